"""Compositions that share what was read give what fresh ones give."""

from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import OmegaConf

from findistill.config.compose import config_dir
from findistill.hydra_ext.read_once import ReadOnce, read_once

JOBS = (
    ["stage=teacher", "data=tfns"], ["experiment=demo"], ["shots.source='tfns limit=5'"], ["stage=teacher", "data=tfns"],
    ["seed=3", "stage=teacher", "+trainer.limit_train_batches=2", "data=tfns", "data.limit=7"], ["seed=4", "experiment=demo"],
    ["+data@shots.source=tfns", "shots.k=2"], ["hydra.job.name=mine", "seed=1"], ["trainer={max_epochs: 4}", "stage=teacher"],
    ["trainer.max_epochs=3", "stage=student", "distill=reg"], ["stage=student", "trainer.max_epochs=4", "distill=reg"],
)  # fmt: skip
MISTAKES = (
    ["sed=3"],
    ["stage=teachr"],
    ["trainer.max_epochs=many"],
    ["+seed=3"],
    ["~seed=9"],
    ["seed=1,2"],
    ["trainer=nowhere", "seed=2"],
    ["~llm.price", "seed=5"],
)


@pytest.fixture(autouse=True)
def fresh_loaders(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other tests share what was composed before them."""
    monkeypatch.setattr(ConfigLoaderImpl, "__init__", getattr(ConfigLoaderImpl.__init__, "__wrapped__"))  # noqa: B009


def test_the_same_as_fresh_compositions_in_any_order() -> None:
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        fresh = [OmegaConf.to_yaml(compose("config", job, return_hydra_config=True)) for job in JOBS]
        read_once(GlobalHydra.instance().config_loader())
        shared = [OmegaConf.to_yaml(compose("config", job, return_hydra_config=True)) for job in (*JOBS, *reversed(JOBS))]
    assert shared == [*fresh, *reversed(fresh)]


@pytest.mark.parametrize("job", MISTAKES, ids=lambda job: " ".join(job))
def test_a_mistake_is_the_same_error(job: list[str]) -> None:
    errors = []
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        for _ in range(2):
            with pytest.raises(HydraException) as error:
                compose("config", job)
            errors.append((type(error.value), str(error.value), str(error.value.__cause__)))
            read_once(GlobalHydra.instance().config_loader())
    assert errors[0] == errors[1]


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
