"""Human decisions of `stage=review` (`data.reviewed`) as the human labels of a data set's texts."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from findistill.data.config import Data
from findistill.data.text_key import text_key
from findistill.errors import UserError

VOTES = 8  # a decision counts as this many, see `TextData.human_votes`
ACCEPTED = "accepted"  # the status of decisions on which the reviewers, or the adjudicator, agree


def with_decisions(rows: Sequence[Mapping[str, Any]], config: Data) -> tuple[Sequence[Mapping[str, Any]], list[str]]:
    """The rows with accepted decisions in place of the source's `label` or `spans`; and a note for the card.

    Labels are matched to texts by `text_key`; spans, whose offsets count characters, only to identical texts.

    Raises:
        UserError: the file is not from stage=review, contradicts itself, has unknown labels, or is about other texts.
    """
    if not config.reviewed:
        return rows, []
    column, decisions = _accepted(Path(config.reviewed).expanduser())
    if column == "label" and config.labels and (unknown := sorted({*decisions.values()} - {*config.labels})):
        raise UserError(
            f"data.reviewed={config.reviewed}: {unknown[0]!r} is not one of data.labels=[{','.join(config.labels)}]; add it there"
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
    others = f" ({len(decisions) - matched:,} for other texts ignored)" if matched < len(decisions) else ""
    note = f"human {'labels' if column == 'label' else 'spans'} of {matched:,} texts from data.reviewed{others}"
    if not any(row.get(column) for row in rows):
        note += (
            "; test rows are drawn from these. If stage=review selected the least certain texts, scores are lower than they "
            "would be on all texts"
        )
    return changed, [note]


def _accepted(path: Path) -> tuple[str, dict[str, Any]]:
    """The column of the decisions, `label` or `spans`, and the accepted decisions by text (for labels, by `text_key`)."""
    try:
        frame = pd.read_parquet(path)
    except FileNotFoundError:
        raise UserError(f"data.reviewed={path}: no such file; stage=review writes it to its run folder") from None
    except (OSError, ValueError) as error:
        raise UserError(
            f"data.reviewed={path}: not a reviewed.parquet from stage=review ({str(error).splitlines()[0]})"
        ) from error
    column = "spans" if "spans" in frame else "label"
    if absent := [name for name in ("text", column, "status") if name not in frame]:
        raise UserError(f"data.reviewed={path} has no column {', '.join(absent)}; give the reviewed.parquet from stage=review")
    rows = frame[frame["status"] == ACCEPTED]
    if not len(rows):
        raise UserError(f"data.reviewed={path}: no decision is accepted yet; run stage=review again to read newer decisions")
    decisions: dict[str, Any] = {}
    for text, answer in zip(rows["text"], rows[column], strict=True):
        key, value = (text_key(text), answer) if column == "label" else (text, [dict(each) for each in answer])
        if decisions.setdefault(key, value) != value:
            raise UserError(f"data.reviewed={path}: two accepted decisions for the same text ({text[:60]!r}); keep one")
    return column, decisions
