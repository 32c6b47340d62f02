"""The complete pipeline with a package's own data set, labels, prompt, engine, encoder, loss term, callback and stage."""

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from omegaconf import OmegaConf

import findistill
from tests.extending.conftest import Extended

WORDS = {"earnings": ("profit", "sales"), "deals": ("buys", "merger"), "rates": ("bank", "inflation")}
OWN = (
    "study=moon", "data=topics", "data.path=headlines.tsv", "llm=keywords", "prompt=topic", "shots.k=0", "annotate.samples=4",
    "annotate.temperature=0.2", "student=bag", "callbacks=throughput", "logger=csv", "evaluate.resamples=20",
    "evaluate.latency=false", "report.resamples=20", "report.baselines=[majority]", "trainer.accelerator=cpu",
)  # fmt: skip


def headlines() -> str:
    """120 headlines of a few words, each preceded by its topic."""
    draw = random.Random(0)
    lines: set[str] = set()
    while len(lines) < 120:
        topic = draw.choice(sorted(WORDS))
        parts = [
            draw.choice(("Alfa", "Beta Corp", "Gamma")), draw.choice(WORDS[topic]), draw.choice(("in", "after", "before")),
            draw.choice(("spring", "summer", "winter")), draw.choice(("again", "today", "as expected", "at last")),
        ]  # fmt: skip
        lines.add(f"{topic}\t{' '.join(parts)}")
    return "\n".join(sorted(lines)) + "\n"


@dataclass(frozen=True)
class Study:
    """A study's folder and the log of the second of its two sweeps."""

    folder: Path
    log: str

    def job(self, stage: str, **distinct: Any) -> Path:
        """The run folder of the stage's job with these settings, given by section: `distill={"objective": "cls"}`."""
        [path] = [
            path
            for path in self.folder.glob(f"{stage}-*")
            if all(
                OmegaConf.load(path / "config.yaml")[section][key] == value
                for section, setting in distinct.items()
                for key, value in setting.items()
            )
        ]
        return path

    def metrics(self, stage: str, **distinct: Any) -> dict[str, float]:
        return dict(json.loads((self.job(stage, **distinct) / "metrics.json").read_text()))


@pytest.fixture(scope="module")
def study(run_extended: Extended, tmp_path_factory: pytest.TempPathFactory) -> Study:
    """Votes, a student and a lexicon; then the student evaluated and used as a teacher, and a sweep of the package's stage."""
    place = tmp_path_factory.mktemp("moon")
    (place / "headlines.tsv").write_text(headlines())
    study = Study(place / "runs/moon", "")
    first = ("-m", "stage=annotate,student,lexicon", "distill.min_agreement=3", "sweep.report=false")
    result = run_extended(place, *first, *OWN, OMP_NUM_THREADS="1")
    assert result.returncode == 0, result.stderr[-3000:]
    student = study.job("student").relative_to(place)
    second = (
        "-m", "stage=evaluate,student,lexicon", "lexicon.smoothing=0.1,1", f"evaluate.model={student}", "distill=margin",
        f"distill.teacher={student}", "sweep.vary=[distill,evaluate.model]",
    )  # fmt: skip
    result = run_extended(place, *second, *OWN, OMP_NUM_THREADS="1")
    assert result.returncode == 0, result.stderr[-3000:]
    return Study(study.folder, result.stderr)


STUDENT: dict[str, Any] = {"stage": "student", "distill": {"objective": "cls"}}
TAUGHT: dict[str, Any] = {"stage": "student", "distill": {"objective": "margin"}}
SMALL: dict[str, Any] = {"stage": "lexicon", "lexicon": {"smoothing": 0.1}}


def test_the_engine_answers_the_prompt_about_the_source(study: Study) -> None:
    votes = findistill.load_annotations(study.job("annotate")).votes
    assert {"soft_earnings", "soft_deals", "soft_rates"} <= set(votes) and (votes["n_valid"] == 4).all()
    assert study.metrics("annotate")["test/accuracy"] > 0.9


def test_the_encoder_learns_and_its_folder_opens_in_another_process(study: Study) -> None:
    config = json.loads((study.job(**STUDENT) / "model/config.json").read_text())
    assert config["model_type"] == "moonpack_bag" and config["findistill_code"] == "moonpack.bag.BagForSequenceClassification"
    assert "import moonpack.bag" in (study.job(**STUDENT) / "model/README.md").read_text()
    evaluated, trained = study.metrics("evaluate"), study.metrics(**STUDENT)
    assert evaluated["test/accuracy"] > 0.5 and evaluated["test/n"] > trained["test/n"]  # all labelled rows of the file


def test_a_model_whose_package_is_not_installed_is_refused(study: Study) -> None:
    with pytest.raises(findistill.UserError, match=r"moonpack\.bag\S* is not allowed.*\n.*FINDISTILL_ALLOW=moonpack"):
        findistill.Classifier.from_pretrained(study.job(**STUDENT))


def test_the_callback_logs(study: Study) -> None:
    logged = pd.read_csv(next(study.job(**STUDENT).rglob("metrics.csv")))
    assert logged["train/texts_per_s"].notna().any() and (logged["train/texts_per_s"].dropna() > 0).all()


def test_the_loss_term_is_learnt(study: Study) -> None:
    logged = pd.read_csv(next(study.job(**TAUGHT).rglob("metrics.csv")))
    margin, weighted = (logged[name].dropna() for name in ("train/margin", "train/margin/weighted"))
    assert len(margin) and (weighted.to_numpy() == pytest.approx(0.1 * margin.to_numpy()))


def test_the_stage_is_swept_and_what_is_done_is_not_done_again(study: Study) -> None:
    assert "4 jobs: 1 already done, 3 to run" in study.log and "annotating" not in study.log
    assert (study.job(**SMALL) / "words.csv").read_text().startswith("word,earnings,deals,rates\n")


def test_the_report_has_all_of_it(study: Study) -> None:
    table = pd.read_csv(study.folder / "table.csv").set_index("method")
    methods = {"lexicon, smoothing 1", "lexicon, smoothing 0.1", "CLS ≥3", "majority class", "keywords topic k=0"}
    assert methods <= set(table.index)
    accuracy = table.loc["lexicon, smoothing 0.1", "accuracy"]
    assert accuracy == study.metrics(**SMALL)["test/accuracy"] > 0.8
