"""What the report reads of a job: its settings, except those that do not affect results."""

from pathlib import Path

from omegaconf import OmegaConf

from findistill.config.compose import plain
from findistill.report.runs import settings_of
from tests.fixtures.composing import composed


def settings(folder: Path, *overrides: str) -> dict:
    folder.mkdir()
    OmegaConf.save(OmegaConf.create(plain(composed(*overrides))), folder / "config.yaml")
    return settings_of(folder)


def test_runtime_settings_make_no_other_method(tmp_path: Path) -> None:
    first = settings(tmp_path / "a")
    slower = settings(tmp_path / "b", "annotate.concurrency=1", "evaluate.usd_per_hour=3", "trainer.max_memory=9")
    assert first == slower and first["trainer"]["monitor"] == "val/macro_f1"
    assert first != settings(tmp_path / "c", "annotate.temperature=0.1")


def test_data_sets_that_settings_name_are_kept_as_named(tmp_path: Path) -> None:
    config = settings(tmp_path / "a", "evaluate.also=['phrasebank test=1']", "shots.source=tfns")
    assert config["evaluate"]["also"] == ["phrasebank test=1"] and config["shots"]["source"] == "tfns"
