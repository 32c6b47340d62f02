"""Which texts people review: those of an annotation artifact, least certain first."""

from pathlib import Path

import pandas as pd

from findistill.data.spans import Span
from findistill.data.texts import TextData
from findistill.errors import UserError
from findistill.llm.votes import certainty
from findistill.methods.extract.extractions import types_of
from findistill.methods.review.decisions import Question, Suggestion


def read(folder: Path) -> pd.DataFrame:
    """The annotations in `folder`.

    Raises:
        UserError: they cannot be read, have neither label votes nor spans, or repeat an id.
    """
    path = folder / "annotations.parquet"
    try:
        rows = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise UserError(f"review.suggestions={folder}: {path.name} cannot be read ({str(error).splitlines()[0]})") from error
    of_spans = "spans" in rows
    needed = ["id", "text", "spans", "n_valid"] if of_spans else ["id", "text", "label", "agreement", "n_valid"]
    if absent := [name for name in needed if name not in rows]:
        raise UserError(f"{path} has no column {', '.join(absent)}; stage=annotate writes such files")
    if (repeated := rows["id"].duplicated()).any():
        raise UserError(f"{path}: the id {rows['id'][repeated].iloc[0]!r} occurs twice; ids must be unique")
    return rows


def question(rows: pd.DataFrame, data: TextData) -> Question:
    """The data's labels, or its entity types plus any others that were suggested."""
    if "spans" not in rows:
        return Question(data.labels.names, of_spans=False)
    types = dict.fromkeys(types_of(data))
    types |= dict.fromkeys(sorted({each["label"] for cell in rows["spans"] for each in cell}))
    return Question(tuple(types), of_spans=True)


def ordered(rows: pd.DataFrame) -> list[Suggestion]:
    """Texts, least certain first; only those without a human label, if there are any.

    A text's certainty is the share of valid answers that give its label, or `votes.certainty` of all spans that any of them
    names; 0 without a valid answer. Ties go to the text with more forms that do not occur in it.
    """
    gold = rows["gold"] if "gold" in rows else pd.Series([None] * len(rows), index=rows.index, dtype=object)
    rows = rows[gold.isna()] if gold.isna().any() else rows
    ranked: list[tuple[float, int, int, Suggestion]] = []
    for row in rows.to_dict("records"):
        valid = max(int(row["n_valid"]), 1)
        if "spans" in row:
            cells = sorted(row["spans"], key=lambda each: (each["start"], each["end"]))
            scores = tuple(min(1.0, float(each.get("votes") or 0) / valid) for each in cells)
            candidates = row.get("candidates")
            sure = certainty(cells if candidates is None else candidates, int(row["n_valid"]))
            cell_spans = tuple(Span(int(each["start"]), int(each["end"]), str(each["label"])) for each in cells)
            suggestion = Suggestion(str(row["id"]), str(row["text"]), cell_spans, sure, scores)
        else:
            label = row["label"] if isinstance(row["label"], str) else None
            sure = min(1.0, float(row["agreement"]) / valid) if label is not None else 0.0
            suggestion = Suggestion(str(row["id"]), str(row["text"]), label, sure)
        missing = row.get("missing")
        ranked.append((sure, -len(missing) if missing is not None else 0, len(ranked), suggestion))
    return [suggestion for *_, suggestion in sorted(ranked, key=lambda each: each[:3])]
