"""What every source becomes: one frame of texts, their label set, and a card that says where they come from."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from findistill.data.labels import LabelSet
from findistill.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

SPLITS = ("train", "validation", "test", "pool")
COLUMNS = ("id", "text", "label", "split", "date", "source")


def is_labelled(rows: "pd.DataFrame") -> "pd.Series":
    """Whether each row has a human label; in a data set of entities, whether it is annotated, even if with no mention."""
    return rows["spans" if "spans" in rows else "label"].notna()


@dataclass(frozen=True)
class DataCard:
    """What is known of a data set, for users, reports and model cards."""

    name: str
    licence: str
    citation: str
    origin: str  # the folder, file or hub id it was read from
    counts: dict[str, dict[str, int]]  # split -> label -> rows; the label of unlabelled rows is `unlabelled`
    removed: dict[str, int]  # why -> rows
    notes: tuple[str, ...] = ()

    def text(self) -> str:
        """A few plain lines to print."""
        lines = [f"{self.name} (read from {self.origin})", f"licence: {self.licence}", f"citation: {self.citation}"]
        for split, by_label in self.counts.items():
            parts = ", ".join(f"{label} {rows:,}" for label, rows in by_label.items())
            lines.append(f"{split}: {sum(by_label.values()):,} rows ({parts})")
        lines += [f"removed, {why}: {rows:,}" for why, rows in self.removed.items() if rows]
        lines += [f"note: {note}" for note in self.notes]
        return "\n".join(lines)


@dataclass(frozen=True)
class TextData:
    """Texts with their splits.

    `frame` has one row per text and the columns `id` (unique), `text`, `label` (None if unlabelled), `split` (train,
    validation, test or pool), `date` (ISO or None) and `source`, then whatever else the source has: `agreement` (eighths),
    `score`, `ticker`, `difficulty`, ... No text (by `text_key`) occurs twice.

    A data set of entities has a column `spans` instead of labels: a list of {start, end, label} (`data.spans`), empty for a text
    without mentions, None for one that nobody annotated. `labels` are then the entity types.
    """

    frame: "pd.DataFrame"
    labels: LabelSet
    card: DataCard

    def split(self, *names: str) -> "pd.DataFrame":
        """The rows of these splits, in the source's order, numbered from 0. Raises UserError for an unknown split."""
        for name in names:
            if name not in SPLITS:
                raise UserError(f"unknown split {name!r}: the splits are {', '.join(SPLITS)}")
        return self.frame[self.frame["split"].isin(names)].reset_index(drop=True)

    def human_votes(self, *splits: str) -> "pd.DataFrame":
        """The votes of the source's own annotators as an annotation table; of the train split unless others are named.

        Columns as in `annotations.parquet`: id, text, label, gold, agreement, n_valid, n_samples, soft_<label>...,
        rationale (None). PhraseBank publishes no individual votes, only which of four agreement levels a sentence reached,
        so votes are counted in eighths: agreement is the level's lower bound (50% 4, 66% 5, 75% 6, all 8) and the
        rest of the mass is spread evenly over the other labels. A decision of `data.reviewed` counts as all eight votes; texts
        without votes are left out. Raises UserError for a source without any.
        """
        if "agreement" not in self.frame:
            raise UserError(
                f"distill.source=human: {self.card.name} has no agreement of human annotators; "
                "use data=phrasebank, or distill.source=annotator"
            )
        rows = self.split(*(splits or ("train",)))
        rows = rows[rows["agreement"].notna() & rows["label"].notna()].reset_index(drop=True)
        votes = rows[["id", "text", "label"]].assign(
            gold=rows["label"], agreement=rows["agreement"].astype(int), n_valid=8, n_samples=8
        )
        share = votes["agreement"] / 8
        for name in self.labels.names:
            votes[f"soft_{name}"] = share.where(rows["label"] == name, (1 - share) / (len(self.labels) - 1))
        return votes.assign(rationale=None)
