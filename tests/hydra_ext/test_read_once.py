"""Compositions that share what was read give what fresh ones give."""

from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from findistill.config.compose import config_dir
from findistill.hydra_ext.read_once import ReadOnce, read_once

JOBS = (["stage=teacher", "data=tfns"], ["experiment=demo"], ["shots.source='tfns limit=5'"], ["stage=teacher", "data=tfns"])


def test_the_same_as_fresh_compositions_in_any_order() -> None:
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        fresh = [OmegaConf.to_yaml(compose("config", job, return_hydra_config=True)) for job in JOBS]
        read_once(GlobalHydra.instance().config_loader())
        shared = [OmegaConf.to_yaml(compose("config", job, return_hydra_config=True)) for job in (*JOBS, *reversed(JOBS))]
    assert shared == [*fresh, *reversed(fresh)]


def test_a_file_is_read_once_and_folders_of_a_composition_are_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine.yaml").write_text("defaults: [demo]\nlimit: 7\n")
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        loader: Any = GlobalHydra.instance().config_loader()
        read_once(loader)
        read_once(loader)  # no repository in a repository
        assert isinstance(loader.repository, ReadOnce) and not isinstance(loader.repository.repository, ReadOnce)
        reads: list[str] = []
        load = type(loader.repository.repository).load_config
        monkeypatch.setattr(
            type(loader.repository.repository),
            "load_config",
            lambda self, config_path: reads.append(config_path) or load(self, config_path),
        )
        compose("config", ["data=demo"])
        compose("config", ["data=demo"])
        assert len(reads) == len(set(reads)) > 10
        assert compose("config", ["data=mine", f"hydra.searchpath=[file://{tmp_path}]"]).data.limit == 7
        with pytest.raises(Exception, match="data/mine"):
            compose("config", ["data=mine"])
