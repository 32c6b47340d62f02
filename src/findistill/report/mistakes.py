"""Where models err: their most confident errors, and the rows on which a student and its annotator disagree, by id."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd

from findistill.report.methods import Method
from findistill.report.parts import BASELINE, Table, Wording

WORDING = Wording("findistill.report")
SHOWN = 50  # rows on the page; the csv has all
WORDS = ("Method", "Id", "Gold", "Predicted", "Annotator", "Student", "Right", "Text")


def tables(methods: Sequence[Method], leaders: Sequence[Method], texts: Mapping[str, str]) -> Iterator[Table]:
    """The tables of one test set that have rows.

    Args:
        leaders: whose errors are listed; the first that is neither annotator nor baseline is compared with the best annotator.
        texts: id -> text of rows that may be shown; empty: only ids.
    """
    errors = pd.concat([confident_errors(leader) for leader in leaders])
    if len(errors):
        yield _table("errors", errors.sort_values("confidence", ascending=False, kind="stable"), texts)
    student = next((one for one in leaders if not _annotates(one) and one.kind != BASELINE), None)
    annotator = max((one for one in methods if _annotates(one)), key=lambda one: one.correct.mean(), default=None)
    if student and annotator and len(rows := disagreements(annotator, student)):
        yield _table("disagreements", rows, texts, annotator=annotator.name, student=student.name)


def _table(name: str, rows: pd.DataFrame, texts: Mapping[str, str], **names: str) -> Table:
    table = WORDING.table(name, rows, **names)
    if not texts:
        return table
    frame = rows.assign(text=[texts.get(each, "") for each in rows["id"]])
    return Table(name, table.title, table.note, frame, {**table.columns, "text": ("Text", "{}")})


def _annotates(method: Method) -> bool:
    return method.kind == "annotator" or "agreement" in method.runs[0].predictions


def confident_errors(method: Method) -> pd.DataFrame:
    """The rows that a method gets wrong by its mean probabilities over seeds, most confident first.

    Columns: method, id, gold, predicted, confidence (the mean probability of `predicted`), wrong_seeds (share of the seeds).
    Without probabilities there are no rows.
    """
    guess, confidence = _guess(method)
    rows = np.flatnonzero((guess >= 0) & (guess != method.gold) & np.isfinite(confidence))
    names = np.array(method.labels, dtype=object)
    frame = pd.DataFrame({
        "method": method.name, "id": method.ids[rows], "gold": names[method.gold[rows]], "predicted": names[guess[rows]],
        "confidence": confidence[rows], "wrong_seeds": 1 - method.correct.mean(0)[rows],
    })  # fmt: skip
    return frame.sort_values("confidence", ascending=False, kind="stable")


def disagreements(annotator: Method, student: Method) -> pd.DataFrame:
    """The rows of a test set to which two methods assign different labels, by the student's confidence, highest first.

    Columns: id, gold, annotator, student, confidence (the student's), right (annotator, student or neither). An annotator
    without an answer has the label `no answer`.
    """
    (first, _), (second, confidence) = _guess(annotator), _guess(student)
    rows = np.flatnonzero(first != second)
    names = np.array([*student.labels, "no answer"], dtype=object)  # -1 is the last
    gold = student.gold[rows]
    right = np.where(first[rows] == gold, "annotator", np.where(second[rows] == gold, "student", "neither"))
    frame = pd.DataFrame({
        "id": student.ids[rows], "gold": names[gold], "annotator": names[first[rows]], "student": names[second[rows]],
        "confidence": confidence[rows], "right": right,
    })  # fmt: skip
    return frame.sort_values("confidence", ascending=False, kind="stable")


def _guess(method: Method) -> tuple[np.ndarray, np.ndarray]:
    """(n,) label positions, -1 without one, and their mean probabilities over seeds, NaN where a method has only labels.

    The labels of a single run are its predictions, those of several have the highest mean probability. An annotator without a
    readable answer has probabilities of zero, and no label.
    """
    finite = np.isfinite(method.probabilities).all((0, 2))
    mean = np.where(finite[:, None], np.nan_to_num(method.probabilities).mean(0), 0)
    finite &= mean.sum(1) > 0
    guess = np.where(finite & (len(method.runs) > 1), mean.argmax(1), method.predicted[0])
    return guess, np.where(finite & (guess >= 0), mean[np.arange(len(mean)), guess], np.nan)
