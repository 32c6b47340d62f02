"""What the report reads of a job: its settings, except those that do not affect results."""

from pathlib import Path

from omegaconf import OmegaConf

from findistill.config.compose import plain
from findistill.report.runs import settings_of, superseded
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


def test_a_job_that_was_run_again_on_changed_data_replaces_the_earlier_one(tmp_path: Path) -> None:
    """Both have the same settings; only their keys, which include the content of the data, differ."""
    (tmp_path / "shared").mkdir()
    config = settings(tmp_path / "shared" / "one", "seed=1")

    def done(name: str, ended: str, **changes: object) -> tuple[Path, dict, dict]:
        return tmp_path / name, {"state": "done", "ended": ended}, {**config, **changes}

    newer, older = done("teacher-3a", "2026-01-02T00:00:00+00:00"), done("teacher-9f", "2026-01-01T00:00:00+00:00")
    others = [done("seed-2", "2026-01-03T00:00:00+00:00", seed=2), (tmp_path / "failed", {"state": "failed"}, config)]
    assert superseded([newer, older, *others]) == {older[0]: newer[0]}
    assert superseded([older, done("teacher-3a", "2026-01-02T00:00:00+00:00", study="another name")]) == {older[0]: newer[0]}
