"""`distill=logit` and `tinybert` through the application, with a tiny random teacher that the job trains itself."""

from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import yaml

from findistill.core import run_folder
from findistill.core.files import read_json
from findistill.data.labels import LabelSet
from findistill.data.loading import load
from findistill.data.sources.demo import DemoData
from findistill.data.text_key import text_key
from findistill.methods import rows as reading
from findistill.methods.distil.stage import note_stopped, votes, with_gold
from findistill.methods.stage import stage_of
from tests.conftest import Command
from tests.fixtures.composing import composed
from tests.fixtures.models import tiny

assert tiny  # a fixture

QUICK = (
    "study=taught", "student.layers=[2,4]", "teacher.epochs=1", "teacher.max_length=24", "student.max_length=24",
    "trainer.max_epochs=1", "logger=none", "evaluate.resamples=20", "evaluate.latency=false", "report.resamples=20",
    "report.baselines=[majority,teacher]", "data.labelled=60",
)  # fmt: skip


def job(folder: Path) -> tuple[dict[str, float], dict[str, str], str]:
    return read_json(folder / "metrics.json"), read_json(folder / "artifacts.json"), (folder / "model/README.md").read_text()


@pytest.mark.slow
def test_a_sweep_trains_one_teacher_and_asks_it_once(findistill: Command, tiny: Path, tmp_path: Path) -> None:
    result = findistill(
        "-m", f"teacher={tiny}", f"student={tiny}", *QUICK, "distill=tinybert", "distill.intermediate.epochs=1",
        "distill.layers=uniform,[1,4]", "distill.cache=all", "distill.unlabelled='demo rows=700'", OMP_NUM_THREADS="1",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-3000:]
    folders = [path.parent for path in sorted((tmp_path / "runs/taught").glob("student-*/metrics.json"))]
    assert len(folders) == 2
    store = tmp_path / "runs/.artifacts"
    [teacher] = [path for path in store.glob("teacher-*") if path.is_dir()]
    [outputs] = [path for path in store.glob("outputs-*") if path.is_dir()]
    assert " on disk, 0.00 MB already stored, limit 8 GB" in result.stderr
    for folder in folders:
        metrics, artifacts, card = job(folder)
        assert metrics["data/kept"] == 54 and metrics["data/unlabelled"] > 200  # 6 of the 60 labels select the epoch
        assert 0 <= metrics["test/macro_f1"] <= 1
        assert (artifacts["teacher"], artifacts["outputs"]) == (teacher.name, outputs.name)
        assert "Distillation at temperature 1" in card and "the teacher tiny" in card and "texts of demo rows=700" in card
    config = yaml.safe_load((folders[0] / "config.yaml").read_text())
    assert config["distill"]["recipe"] == "fixed"
    table = (tmp_path / "runs/taught/table.md").read_text()
    assert ": hidden + attention + soft_ce" in table and f"| the students' teacher, {tiny.name} |" in table
    [baseline] = [
        path
        for path in store.glob("baseline-*")
        if (path / "metrics.json").exists() and "parameters" in (path / "metrics.json").read_text()
    ]
    own = pd.read_parquet(baseline / "predictions_test.parquet")
    assert list(own["id"]) == list(pd.read_parquet(folders[0] / "predictions.parquet")["id"])

    # The published study's actual behaviour, with the same teacher.
    result = findistill(
        f"student={tiny}", *QUICK, "study=faulty", "distill=tinybert_faithful", "distill.intermediate.epochs=1",
        f"distill.teacher={teacher}", OMP_NUM_THREADS="1",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-3000:]
    assert "picks the student on the test rows" in result.stderr
    [student] = [path.parent for path in (tmp_path / "runs/faulty").glob("student-*/metrics.json")]
    metrics, artifacts, card = job(student)
    assert "Known faults kept: the prediction stage's learning rate is 0" in card and "teacher" not in artifacts


@pytest.mark.slow
def test_a_student_on_labels_alone_has_no_teacher(findistill: Command, tiny: Path, tmp_path: Path) -> None:
    result = findistill(
        f"student={tiny}", *QUICK, "study=alone", "distill=logit", "distill.terms.kl=0", "distill.terms.hard=1",
        "distill.unlabelled='demo rows=700'", OMP_NUM_THREADS="1",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-3000:]
    assert "training on gold labels only: 54 labelled texts" in result.stderr
    [student] = [path.parent for path in (tmp_path / "runs/alone").glob("student-*/metrics.json")]
    metrics, artifacts, card = job(student)
    assert not {"teacher", "outputs"} & artifacts.keys() and metrics["data/unlabelled"] == 0 and metrics["data/kept"] == 54
    assert "without a teacher" in card
    # The same encoder trained as a teacher: the same loss, batches and seed.
    shared = [setting for setting in QUICK if setting.split(".")[0] in ("trainer", "data", "logger", "evaluate")]
    result = findistill(
        "stage=teacher", f"teacher={tiny}", "teacher.layers=[2,4]", "teacher.max_length=24", "study=same", *shared,
        OMP_NUM_THREADS="1",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-3000:]
    [teacher] = (tmp_path / "runs/same").glob("teacher-*/predictions.parquet")
    pd.testing.assert_frame_equal(pd.read_parquet(teacher), pd.read_parquet(student / "predictions.parquet"))


def test_settings_of_the_cache_and_of_the_llm_make_no_other_job() -> None:
    def key(*overrides: str) -> dict[str, object]:
        config = composed("distill=tinybert", *overrides)
        return run_folder.sections(config, stage_of(config)) | {"key": stage_of(config).key}

    assert key() == key("distill.cache=all", "distill.cache_gb=99", "llm=endpoint", "llm.model=m", "annotate.samples=3")
    assert key() != key("teacher=bert_base") and key() != key("distill.recipe=mean")


def test_vote_shares_of_fewer_samples_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    note_stopped(pd.Series([8, 8, 8]))
    assert not caplog.messages
    note_stopped(pd.Series([8, 5, 6]))
    assert "vote shares of 5 to 8 samples: annotate.stop_at" in caplog.text


def test_human_labels_take_the_place_of_votes() -> None:
    votes = pd.DataFrame({"id": list("abc"), "text": list("ABC"), "label": ["up"] * 3, "soft_down": 0.25, "soft_up": 0.75})
    known = pd.DataFrame({"id": ["b", "x"], "text": ["B", "X"], "label": ["down", "up"], "score": 0})
    rows = with_gold(votes, known, votes[votes["id"] == "c"], LabelSet(("down", "up"))).set_index("id")
    assert rows["label"].to_dict() == {"b": "down", "x": "up", "a": "up"}
    assert rows["soft_down"].to_dict() == {"b": 1.0, "x": 0.0, "a": 0.25}


def test_no_text_of_a_test_or_validation_set_is_distilled_on(tmp_path: Path) -> None:
    data = load(DemoData(_target_="findistill.data.sources.demo.read", name="demo", labelled=60))
    validation = data.split("validation")
    pool = pd.DataFrame(
        {"id": ["a", "b", "c", "d"], "text": ["New.", "new", validation["text"][0] + "!", data.split("test")["text"][0].upper()]}
    )
    other = SimpleNamespace(split=lambda *_: pool)
    labelled = reading.labelled_rows(data)
    tests = {"test": (data.split("test"), data.labels)}
    texts = reading.transfer_texts(data, labelled, validation, tests, labelled.head(0), other)  # type: ignore[arg-type]
    assert len(labelled) == 60
    assert set(texts["id"]) == {"a", *data.split("train")["id"]}  # the labels of other training rows count as hidden
    keys = {text_key(text) for text in texts["text"]}
    for rows in (validation, data.split("test"), labelled):
        assert not keys & {text_key(text) for text in rows["text"]}


def test_texts_without_a_readable_answer_count_as_annotated_but_not_as_labelled(tmp_path: Path) -> None:
    data = load(DemoData(_target_="findistill.data.sources.demo.read", name="demo", labelled=60))
    rows = data.split("train")[["id", "text"]].head(40).assign(agreement=8, n_samples=8)
    rows["label"] = ["positive", None, "negative", "neutral"] * 10
    rows.assign(**{f"soft_{label}": 1 / 3 for label in data.labels.names}).to_parquet(tmp_path / "annotations.parquet")
    config = SimpleNamespace(data=SimpleNamespace(validation=0.2, seed=0))
    frame = votes(SimpleNamespace(parents={"annotations": tmp_path}, config=config), data)  # type: ignore[arg-type]
    assert len(frame) == 40 and frame["label"].isna().sum() == 10
    held_out = frame[frame["split"] == "validation"]
    assert len(held_out) == 6 and held_out["label"].notna().all()
