"""The error browser: what a method answered is shown as its metrics count it."""

from dataclasses import replace

import numpy as np

from findistill.report.methods import Run, gather
from findistill.report.mistakes import confident_errors, disagreements
from tests.fixtures.studies import LABELS, make_run

COLUMNS = [f"p_{label}" for label in LABELS]
CONFIG = {"data": {"name": "made_up"}}


def annotator(unanswered: int, ties: int) -> Run:
    """An annotator without an answer to the first rows, and with tied votes on the next, which it decided for the last label."""
    run = make_run("llm", "annotator", None, skill=1.0, config=CONFIG)
    frame = run.predictions.copy()
    rows, tied = frame.index[:unanswered], frame.index[unanswered : unanswered + ties]
    frame.loc[rows, COLUMNS], frame.loc[rows, "predicted"] = 0.0, None
    frame.loc[tied, COLUMNS], frame.loc[tied, "predicted"] = [0.5, 0.0, 0.5], LABELS[2]
    return replace(run, predictions=frame)


def test_rows_without_an_answer_have_no_label_and_ties_keep_theirs() -> None:
    run = annotator(30, 30)
    own, student = gather([run, make_run("student", "student", 0, skill=1.0, config={**CONFIG, "seed": 0})])
    silent, tied = (set(run.predictions["id"][part]) for part in (slice(0, 30), slice(30, 60)))
    rows = disagreements(own, student).set_index("id")
    assert silent <= set(rows.index) and (rows.loc[sorted(silent), "annotator"] == "no answer").all()
    assert not (rows.loc[sorted(silent), "right"] == "annotator").any()
    assert set(rows.loc[sorted(tied & set(rows.index)), "annotator"]) == {LABELS[2]}
    errors = confident_errors(own)
    assert not silent & set(errors["id"]) and (errors["confidence"] > 0).all()
    assert (errors.set_index("id").loc[sorted(tied & set(errors["id"])), "predicted"] == LABELS[2]).all()


def test_several_seeds_vote_with_their_probabilities() -> None:
    [method] = gather([make_run("student", "student", seed, skill=0.5, config={**CONFIG, "seed": seed}) for seed in (0, 1)])
    errors = confident_errors(method)
    mean = method.probabilities.mean(0)
    wrong = mean.argmax(1) != method.gold
    assert len(errors) == wrong.sum() and np.isclose(errors["confidence"].max(), mean[wrong].max(1).max())
