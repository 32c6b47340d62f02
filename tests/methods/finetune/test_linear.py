"""A linear teacher through the application: trained in seconds, distilled, scored, opened, and refused where unsupported."""

from pathlib import Path

import pandas as pd
import pytest

import findistill as package
from findistill.core.files import read_json
from findistill.models.linear import fit_linear
from tests.conftest import Command
from tests.fixtures.models import tiny

assert tiny  # a fixture

QUICK = ("study=lin", "data=demo", "data.rows=300", "data.labelled=60", "logger=none",
         "evaluate.resamples=20", "evaluate.latency=false")  # fmt: skip


def test_from_teacher_to_student(findistill: Command, tiny: Path, tmp_path: Path) -> None:
    result = findistill("stage=teacher", "teacher=tfidf", *QUICK)
    assert result.returncode == 0, result.stderr
    run = tmp_path / "runs" / "lin" / "latest-teacher"
    metrics = read_json(run / "metrics.json")
    assert metrics["data/kept"] == 60 and metrics["test/accuracy"] > metrics["test/majority_share"]
    assert "TF-IDF of words" in (run / "model" / "README.md").read_text()

    texts = pd.read_parquet(run / "predictions.parquet")
    predictions = package.Classifier.from_pretrained(run).predict(texts["text"].tolist())
    assert predictions["label"].tolist() == texts["predicted"].tolist()

    student = (f"student={tiny}", "trainer.max_epochs=1", "student.max_length=24", *QUICK)
    result = findistill("stage=student", "distill=logit", "teacher=tfidf", *student)
    assert result.returncode == 0, result.stderr
    assert read_json(tmp_path / "runs" / "lin" / "latest-student" / "metrics.json")["data/unlabelled"] > 60

    result = findistill("stage=student", "distill=mixed", "teacher=tfidf", "sweep.vary=[distill]", *student)
    assert result.returncode == 0, result.stderr
    artifacts = read_json(tmp_path / "runs" / "lin" / "latest-student" / "artifacts.json")
    assert artifacts["teacher"].startswith("teacher-") and artifacts["teacher/embeddings"] not in ("", artifacts["teacher"])
    result = findistill("stage=report", "study=lin", "report.baselines=[teacher]", "report.resamples=20")
    assert result.returncode == 0, result.stderr
    table = pd.read_csv(tmp_path / "runs" / "lin" / "table.csv").set_index("method")
    assert {f"{tiny.name}: kl", f"{tiny.name}: kl, with embeddings"} <= {*table.index}
    assert {"the students' teacher, tfidf", "the students' teacher, tfidf and embeddings"} <= {*table.index}
    shares = pd.read_csv(tmp_path / "runs" / "lin" / "teacher_share.csv").set_index("method")["teacher"]
    assert shares[f"{tiny.name}: kl, with embeddings"] == "the students' teacher, tfidf and embeddings"

    for arguments, message in (
        (
            ("stage=student", "distill=tinybert", "teacher=tfidf", *student),
            "distill.terms.hidden compares layers, and teacher=tfidf",
        ),
        (("stage=student", "distill=tinybert", f"distill.teacher={run}", *student), "no"),
        (("stage=export", f"evaluate.model={run}", *QUICK), "is logistic regression, which cannot be exported"),
        (("stage=teacher", f"teacher={run}", *QUICK), "is logistic regression on tfidf: there are no weights to start from"),
        (("stage=teacher", "teacher=embeddings", "teacher.class_weights=balanced", *QUICK), "nor class weights"),
        (("stage=teacher", "teacher=tfidf", "teacher.model=bm25", *QUICK), "teacher.model=bm25: choose one of tfidf, embeddings"),
    ):
        result = findistill(*arguments)
        assert result.returncode == 2 and message in result.stderr and "Traceback" not in result.stderr, result.stderr


@pytest.mark.parametrize("damage", ["model.safetensors", "config.json"])
def test_a_damaged_one_is_named(damage: str, tmp_path: Path) -> None:
    model = fit_linear("tfidf", ["profit rose", "profit fell"] * 3, ["up", "down"] * 3)
    model.save(tmp_path / "model")
    path = tmp_path / "model" / damage
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(package.UserError, match=damage.split(".")[0]):
        package.Classifier.from_pretrained(tmp_path)
