"""Reviewers' decisions and their status: agreed labels count as human labels, a conflict does not until it is settled."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import pandas as pd

from findistill.data import spans
from findistill.data.reviewed import ACCEPTED
from findistill.data.spans import Span
from findistill.errors import UserError

Answer: TypeAlias = str | tuple[Span, ...]  # a label, or all mentions in a text, in order

CONFLICT, OVERRULED, SKIPPED = "conflict", "overruled", "skipped"


@dataclass(frozen=True)
class Question:
    """What reviewers are asked about each text: its label, or its mentions of these types."""

    labels: tuple[str, ...]
    of_spans: bool

    @property
    def column(self) -> str:
        return "spans" if self.of_spans else "label"

    def check(self, answer: Answer, text: str, where: str) -> Answer:
        """The validated answer, with spans in order.

        Raises:
            UserError: a label outside the set, or invalid spans (`data.spans.check`).
        """
        if not isinstance(answer, str):
            return tuple(spans.check(text, answer, self.labels, where))
        if answer not in self.labels:
            raise UserError(f"{where}: {answer!r} is not one of the labels {', '.join(self.labels)}; correct it there")
        return answer


@dataclass(frozen=True)
class Suggestion:
    """A text to review, with the annotator's answer and its `certainty` (see `suggestions.ordered`)."""

    id: str
    text: str
    answer: Answer | None
    certainty: float
    scores: tuple[float, ...] = ()  # for spans: each one's share of the votes


@dataclass(frozen=True)
class Decision:
    """One reviewer's answer to one text (None: skipped), and the `seconds` it took (None: unknown)."""

    id: str
    text: str
    reviewer: str
    answer: Answer | None
    seconds: float | None = None


def by_text(decisions: Iterable[Decision]) -> dict[str, list[Decision]]:
    groups = defaultdict(list)
    for decision in decisions:
        groups[decision.id].append(decision)
    return dict(groups)


def status(decisions: Sequence[Decision], adjudicator: str | None) -> Iterator[str]:
    """The status of each decision on one text."""
    answers = {decision.answer for decision in decisions if decision.answer is not None}
    final = next((each.answer for each in decisions if each.reviewer == adjudicator and each.answer is not None), None)
    if final is None and len(answers) == 1:
        [final] = answers
    for decision in decisions:
        if decision.answer is None:
            yield SKIPPED
        elif final is None:
            yield CONFLICT
        else:
            yield ACCEPTED if decision.answer == final else OVERRULED


def frame(
    decisions: Sequence[Decision], suggested: Mapping[str, Suggestion], question: Question, adjudicator: str | None
) -> pd.DataFrame:
    """One row per decision, sorted by text id and reviewer.

    Columns: id, text, `label` or `spans`, reviewer, seconds, status, suggestion, changed (None if skipped or not suggested).
    """
    rows = []
    for group in by_text(sorted(decisions, key=lambda each: (each.id, each.reviewer))).values():
        for decision, state in zip(group, status(group, adjudicator), strict=True):
            suggestion = suggested.get(decision.id)
            proposed = suggestion.answer if suggestion else None
            compared = decision.answer is not None and proposed is not None
            rows.append((
                decision.id, decision.text, cell(decision.answer), decision.reviewer, decision.seconds, state, cell(proposed),
                decision.answer != proposed if compared else None,
            ))  # fmt: skip
    columns = ("id", "text", question.column, "reviewer", "seconds", "status", "suggestion", "changed")
    types = {"seconds": float} | dict.fromkeys((question.column, "suggestion", "changed"), object)
    return pd.DataFrame(rows, columns=list(columns)).astype(types)


def cell(answer: Answer | None) -> Any:
    return answer if answer is None or isinstance(answer, str) else spans.to_cell(answer)


def conflicts(reviewed: pd.DataFrame, question: Question) -> pd.DataFrame:
    """Texts in unresolved conflict: id, text, then each reviewer's answer in words."""
    rows = reviewed[reviewed["status"] == CONFLICT]

    def words(row: Any) -> str:
        answer = row[question.column]
        if not question.of_spans:
            return str(answer)
        return " | ".join(f"{row['text'][each['start'] : each['end']]} ({each['label']})" for each in answer) or "(none)"

    answers: dict[str, dict[str, str]] = {}
    for row in rows.to_dict("records"):
        answers.setdefault(row["id"], {"id": row["id"], "text": row["text"]})[row["reviewer"]] = words(row)
    return pd.DataFrame(list(answers.values()), columns=["id", "text", *sorted(rows["reviewer"].unique())]).fillna("")
