"""`stage=annotate` through the application: the dry run, what is cached, and what is never written."""

import json
import os
import re
from pathlib import Path

import pandas as pd
import pytest

from tests.conftest import Command
from tests.fixtures.models import tiny
from tests.llm.servers import KEY, LoopbackServer, refusal, sampling

assert tiny  # a fixture

BASE = ("stage=annotate", "data.labelled=60", "logger=none", "evaluate.resamples=20")


def lines(folder: Path) -> int:
    return sum(len(path.read_text().splitlines()) for path in folder.glob("runs/.artifacts/responses/*.jsonl"))


def test_a_prompt_can_be_seen_before_anything_is_asked(findistill: Command, tmp_path: Path) -> None:
    result = findistill(*BASE, "annotate.show_prompt=true", "prompt=carp", "shots.k=2")
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("[system]\n") and "[user]\n" in result.stdout
    form = "Clues: <the telling words of the text>\nReasoning: <one or two sentences>\nSentiment: <negative, neutral or positive>"
    assert form in result.stdout
    assert not (tmp_path / "runs" / "default").exists()


@pytest.mark.slow
def test_an_estimate_a_pilot_and_the_rest(findistill: Command, tmp_path: Path) -> None:
    price = ("llm.price.per_million_in=1", "llm.price.per_million_out=2")
    blind = findistill(*BASE, "annotate.dry_run=true", "annotate.limit=40")
    assert blind.returncode == 0 and "40 texts, 0 of them in the cache\n70 requests" in blind.stdout
    assert "price unknown" in blind.stdout and not lines(tmp_path)
    pilot = findistill(*BASE, "annotate.limit=20", *price)
    assert pilot.returncode == 0, pilot.stderr
    assert lines(tmp_path) == 20 + 30  # held-out rows of the pool are annotated too
    result = findistill(*BASE, "annotate.dry_run=true", "annotate.limit=40", *price)
    assert "20 of them in the cache\n20 requests" in result.stdout and "measured on 50 annotated texts" in result.stdout
    again = findistill(*BASE, "annotate.limit=40", "annotate.samples=4", *price)
    assert again.returncode == 0, again.stderr
    assert lines(tmp_path) == 40 + 30  # fewer samples, more texts: only the new texts are requested
    [job] = (tmp_path / "runs" / "default").glob("annotate-limit_40*samples_4*")
    metrics = json.loads((job / "metrics.json").read_text())
    assert metrics["annotate/texts"] == 40 and 0 < metrics["cost/usd_per_1000_texts"] < 10
    assert metrics["annotate/accuracy"] == pytest.approx(metrics["test/accuracy"])
    assert metrics["annotate/accuracy_samples_4"] == pytest.approx(metrics["annotate/accuracy"], abs=0.06)
    assert len(pd.read_parquet(job / "predictions.parquet")) == 40


@pytest.mark.slow
def test_an_llm_with_demonstrations_is_measured_on_half_of_the_labelled_rows(findistill: Command) -> None:
    members = 'annotate.ensemble=["shots.k=4","llm=tfidf"]'
    result = findistill(*BASE, members, "annotate.combine=stacking", "annotate.limit=20")
    assert result.returncode == 0, result.stderr
    assert "accuracy on 30 labelled rows: smollm2 direct 0." in result.stderr


@pytest.mark.slow
def test_several_annotators(findistill: Command, tmp_path: Path) -> None:
    members = 'annotate.ensemble=["shots.k=4","shots.k=0","shots.selection=balanced shots.k=3"]'
    result = findistill(*BASE, members, "annotate.combine=dawid_skene", "annotate.limit=30", "logger=csv")
    assert result.returncode == 0, result.stderr
    [job] = (tmp_path / "runs" / "default").glob("annotate-*")
    metrics = json.loads((job / "metrics.json").read_text())
    assert metrics["annotate/samples"] == 30 * 8 * 3 and metrics["annotate/coverage"] == 1
    [curve] = job.rglob("metrics.csv")  # one for all annotators
    counts = pd.read_csv(curve)["annotation/responses"].dropna().tolist()
    assert counts == sorted(set(counts)) and counts[-1] >= 30 * 3
    wrong = findistill(*BASE, 'annotate.ensemble=["shots.colour=red"]')
    assert wrong.returncode == 2 and "annotate.ensemble" in wrong.stderr and "colour" in wrong.stderr


def test_annotators_that_are_no_llm_are_measured_on_labelled_rows(findistill: Command, tmp_path: Path) -> None:
    members = 'annotate.ensemble=["llm=rules llm.rules.positive=(rose|grew) llm.rules.negative=[fell,loss]","llm=tfidf"]'
    result = findistill(*BASE, members, "annotate.combine=weighted_majority", "annotate.limit=60", "annotate.next=5")
    assert result.returncode == 0, result.stderr
    assert re.search(r"accuracy on 60 labelled rows: rules [01]\.\d+, tfidf 0\.\d+\n", result.stderr)
    [job] = (tmp_path / "runs" / "default").glob("annotate-*")
    metrics = json.loads((job / "metrics.json").read_text())
    assert metrics["annotate/requests"] == 0 and metrics["annotate/texts"] == 60 and metrics["test/accuracy"] > 0.3
    rows = pd.read_csv(job / "to_label.csv")
    assert len(rows) == 5 and rows["label"].isna().all() and rows["id"].is_unique
    one = findistill(*BASE, "annotate.combine=stacking")
    assert one.returncode == 2 and "annotate.combine=stacking combines several annotators" in one.stderr


def test_the_recorded_llms_of_the_study_vote(findistill: Command, tmp_path: Path) -> None:
    if not (Path(os.environ.get("FINDISTILL_DATA", "none")) / "llm_answers").is_dir():
        pytest.skip("no recorded answers in FINDISTILL_DATA")
    result = findistill("experiment=llm_answers", "stage=annotate", "annotate.limit=40", "logger=none")
    assert result.returncode == 0, result.stderr
    [job] = (tmp_path / "runs" / "llm_answers").glob("annotate-*")
    metrics = json.loads((job / "metrics.json").read_text())
    assert metrics["annotate/samples"] == 40 * 5 and metrics["annotate/coverage"] == 1
    annotators = [path for path in (tmp_path / "runs" / ".artifacts").glob("annotate-*") if path.is_dir()]
    assert len(annotators) == 5 + 1  # and the combination


def test_an_encoder_votes_out_of_fold(findistill: Command, tiny: Path, tmp_path: Path) -> None:
    """Each row is predicted by the model that was not trained on it; the models are fitted once for both uses."""
    quick = (f"teacher={tiny}", "teacher.min_steps=null", "teacher.epochs=1", "teacher.max_length=16", "data.validation=0")
    members = 'annotate.ensemble=["llm=encoder llm.folds=2","llm=tfidf"]'
    result = findistill(*BASE, *quick, members, "annotate.combine=stacking", "annotate.limit=60")
    assert result.returncode == 0, result.stderr
    assert re.search(r"accuracy on 60 labelled rows: encoder [01]\.\d+, tfidf 0\.\d+\n", result.stderr)
    store = tmp_path / "runs" / ".artifacts"
    [folds] = [path for path in store.glob("folds-*") if path.is_dir()]
    assert len(list(folds.glob("without_*/model"))) == 2 and result.stderr.count("teacher 1 of 2") == 1
    unseen = pd.read_parquet(folds / "out_of_fold.parquet").set_index("id")
    votes = [pd.read_parquet(path) for path in store.glob("annotate-*/annotations.parquet")]
    [labelled] = [frame for frame in votes if "p_neutral" in frame and set(frame["id"]) == set(unseen.index)
                  and abs(frame.set_index("id")["p_neutral"] - unseen["p_neutral"]).max() < 1e-4]  # fmt: skip
    assert len(labelled) == 60 and labelled["n_samples"].eq(8).all()


@pytest.mark.slow
def test_the_key_is_written_nowhere(findistill: Command, tmp_path: Path) -> None:
    server = LoopbackServer(sampling)
    secrets = {"MY_KEY": KEY, "NO_PROXY": "127.0.0.1"}
    arguments = (*BASE[:2], "llm=endpoint", "llm.model=m", f"llm.base_url={server.url}")
    arguments += ("llm.api_key_env=MY_KEY", "annotate.limit=10")
    try:
        result = findistill(*arguments, "logger.wandb.mode=offline", "evaluate.resamples=20", **secrets)
        server.behave = lambda body: sampling(body) if len(body["messages"]) == 1 else refusal(500, f"broken {KEY}")
        failure = findistill(*arguments, "annotate.seed=1", "llm.max_retries=0", "llm.give_up_s=1", "study=broken", **secrets)
        wrong_key = findistill(*arguments, "annotate.seed=2", "study=refused", **{**secrets, "MY_KEY": "sk-another-secret"})
    finally:
        server.stop()
    assert result.returncode == 0, result.stderr
    assert failure.returncode == 2 and wrong_key.returncode == 2 and "MY_KEY" in wrong_key.stderr
    assert len(server.requests) > 10
    printed = "".join(each.stdout + each.stderr for each in (result, failure, wrong_key))
    content = b"".join(path.read_bytes() for path in (tmp_path / "runs").rglob("*") if path.is_file())
    for secret in (KEY, "sk-another-secret"):
        assert secret not in printed and secret.encode() not in content
    assert b"MY_KEY" in content and any((tmp_path / "runs").rglob("wandb/offline-run-*"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("annotate.max_cost_usd=0",), "must be positive"),
        (("annotate.max_cost_usd=1", "llm=endpoint", "llm.model=m"), "needs the price"),
        (("-m", "annotate.dry_run=true", "seed=0,1"), "without -m"),
        (("stage=student", "annotate.dry_run=true"), "only work with stage=annotate"),
        (("annotate.stop_at=9",), "can never be reached"),
        (("stage=student", "prompt=cot", "annotate.stop_at=5", "distill.min_agreement=6"), "stops sampling there"),
    ],
)
def test_mistakes(arguments: tuple[str, ...], message: str, findistill: Command, tmp_path: Path) -> None:
    result = findistill(*BASE, *arguments)
    assert result.returncode == 2 and message in result.stderr, result.stderr
    assert len(result.stderr.splitlines()) <= 2 and not (tmp_path / "runs").exists()
