"""`distill=logit` and `tinybert` through the application, with a tiny random teacher that the job trains itself."""

import json
from pathlib import Path

import pandas as pd
import pytest
import yaml

from findistill.data import load
from findistill.data.normalise import duplicate_key
from findistill.runs.files import read_json
from findistill.settings.schema import DemoData
from tests.conftest import Command
from tests.learning.conftest import tiny

assert tiny  # a fixture

QUICK = (
    "study=taught", "student.layers=[2,4]", "teacher.epochs=1", "teacher.max_length=24", "student.max_length=24",
    "trainer.max_epochs=1", "logger=none", "evaluate.resamples=20", "evaluate.latency=false", "report.resamples=20",
    "report.baselines=[majority]", "data.pool=60",
)  # fmt: skip


def job(folder: Path) -> tuple[dict[str, float], dict[str, object], str]:
    return read_json(folder / "metrics.json"), read_json(folder / "artifacts.json"), (folder / "model/README.md").read_text()


def test_a_sweep_trains_one_teacher_and_asks_it_once(findistill: Command, tiny: Path, tmp_path: Path) -> None:
    done = findistill(
        "-m", f"teacher={tiny}", f"student={tiny}", *QUICK, "distill=tinybert", "distill.intermediate.epochs=1",
        "distill.terms.attention=0,1", "distill.layers=uniform,[1,4]", "distill.cache=all", "distill.pool='demo rows=700'",
        OMP_NUM_THREADS="1",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    folders = [path.parent for path in sorted((tmp_path / "runs/taught").glob("*/metrics.json"))]
    assert len(folders) == 4 and len({folder.name for folder in folders}) == 4
    store = tmp_path / "runs/.artifacts"
    assert len([path for path in store.glob("teacher-*") if path.is_dir()]) == 1
    assert len([path for path in store.glob("outputs-*") if path.is_dir()]) == 1
    assert "GB" in done.stderr or "MB on disk" in done.stderr
    metrics, artifacts, card = job(folders[0])
    assert metrics["data/kept"] == 60 and metrics["data/unlabelled"] > 200
    assert 0 <= metrics["test/macro_f1"] <= 1 and {"teacher", "outputs"} <= set(artifacts)
    assert "Distillation at temperature 1" in card and "the teacher tiny" in card and "texts of demo rows=700" in card
    config = yaml.safe_load((folders[0] / "config.yaml").read_text())
    assert config["distill"]["recipe"] == "fixed" and (tmp_path / "runs/taught/report.html").exists()
    again = findistill("-m", f"teacher={tiny}", f"student={tiny}", *QUICK, "distill=tinybert", "distill.intermediate.epochs=1",
                       "distill.terms.attention=0,1", "distill.layers=uniform,[1,4]", "distill.pool='demo rows=700'")  # fmt: skip
    assert "4 done before, 0 to run" in again.stderr


def test_faithful_takes_a_trained_teacher_and_says_what_is_wrong(findistill: Command, tiny: Path, tmp_path: Path) -> None:
    done = findistill("stage=teacher", f"teacher={tiny}", *QUICK)
    assert done.returncode == 0, done.stderr[-3000:]
    [run] = [path.parent for path in (tmp_path / "runs/taught").glob("*/metrics.json")]
    done = findistill(
        f"student={tiny}", *QUICK, "distill=tinybert_faithful", "distill.intermediate.epochs=1", f"distill.teacher={run}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert "picks the student on the test rows" in done.stderr
    [student] = [path.parent for path in (tmp_path / "runs/taught").glob("student*/metrics.json")]
    assert "Known faults kept: the prediction stage's learning rate is 0" in (student / "model/README.md").read_text()
    assert "teacher" not in json.loads((student / "artifacts.json").read_text())


def test_no_text_of_a_test_or_validation_set_is_distilled_on(tmp_path: Path) -> None:
    from types import SimpleNamespace

    from findistill.stages import inputs

    data = load(DemoData(_target_="findistill.data.sources.demo", name="demo", pool=60))
    held = data.split("validation")
    pool = pd.DataFrame(
        {"id": ["a", "b", "c", "d"], "text": ["New.", "new", held["text"][0] + "!", data.split("test")["text"][0].upper()]}
    )
    other = SimpleNamespace(split=lambda *_: pool)
    job = SimpleNamespace(config=SimpleNamespace(distill=SimpleNamespace(pool="other")))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inputs, "named_dataset", lambda job, words: other)
        labelled = inputs.supervised(data)
        texts = inputs.transfer_texts(job, data, labelled, {"test": (data.split("test"), data.labels)})  # type: ignore[arg-type]
    assert len(labelled) == 60
    assert set(texts["id"]) == {"a", *data.split("train")["id"]}  # the labels of other training rows count as hidden
    keys = {duplicate_key(text) for text in texts["text"]}
    for rows in (held, data.split("test"), labelled):
        assert not keys & {duplicate_key(text) for text in rows["text"]}
