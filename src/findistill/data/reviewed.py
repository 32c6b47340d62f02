"""What people decided in `stage=review` (`data.reviewed`) becomes the human labels of a data set's texts."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from findistill.data.config import Data
from findistill.data.text_key import text_key
from findistill.errors import UserError

VOTES = 8  # that a decision counts as, see `TextData.human_votes`
ACCEPTED = "accepted"  # the status of decisions on which the reviewers, or the adjudicator, agree


def with_decisions(rows: Sequence[Mapping[str, Any]], config: Data) -> tuple[Sequence[Mapping[str, Any]], list[str]]:
    """The rows with accepted decisions as their `label` or `spans`, in place of what the source says; and a note for the card.

    A label belongs to a text as `text_key` compares them; spans, whose offsets count characters, to the very same text.

    Raises:
        UserError: the file is none of stage=review, contradicts itself, names unknown labels, or is about other texts.
    """
    if not config.reviewed:
        return rows, []
    column, decisions = _accepted(Path(config.reviewed).expanduser())
    if column == "label" and config.labels and (unknown := sorted({*decisions.values()} - {*config.labels})):
        raise UserError(
            f"data.reviewed={config.reviewed}: {unknown[0]!r} is none of data.labels=[{','.join(config.labels)}]; add it there"
        )
    key = text_key if column == "label" else str
    keys = {key(row["text"]) for row in rows}
    if not (matched := sum(text in keys for text in decisions)):
        raise UserError(f"data.reviewed={config.reviewed}: none of its {len(decisions):,} texts is in data={config.name}")

    def decided(row: Mapping[str, Any]) -> Mapping[str, Any]:
        if (answer := decisions.get(key(row["text"]))) is None:
            return row
        return {**row, column: answer, **({"agreement": VOTES} if column == "label" else {})}

    changed = [decided(row) for row in rows]
    others = f", {len(decisions) - matched:,} of other texts" if matched < len(decisions) else ""
    return changed, [f"human {'labels' if column == 'label' else 'spans'} of {matched:,} texts by data.reviewed{others}"]


def _accepted(path: Path) -> tuple[str, dict[str, Any]]:
    """The column of the decisions, `label` or `spans`, and what was decided by text."""
    try:
        frame = pd.read_parquet(path)
    except FileNotFoundError:
        raise UserError(f"data.reviewed={path}: no such file; stage=review leaves it in its run folder") from None
    except (OSError, ValueError) as error:
        raise UserError(f"data.reviewed={path}: not a reviewed.parquet of stage=review ({str(error).splitlines()[0]})") from error
    column = "spans" if "spans" in frame else "label"
    if absent := [name for name in ("text", column, "status") if name not in frame]:
        raise UserError(f"data.reviewed={path} has no column {', '.join(absent)}; give the reviewed.parquet of stage=review")
    rows = frame[frame["status"] == ACCEPTED]
    if not len(rows):
        raise UserError(f"data.reviewed={path}: no decision is accepted yet; stage=review reads what was decided since")
    decisions: dict[str, Any] = {}
    for text, answer in zip(rows["text"], rows[column], strict=True):
        key, value = (text_key(text), answer) if column == "label" else (text, [dict(each) for each in answer])
        if decisions.setdefault(key, value) != value:
            raise UserError(f"data.reviewed={path}: two accepted decisions on one text ({text[:60]!r}); keep one of them")
    return column, decisions
