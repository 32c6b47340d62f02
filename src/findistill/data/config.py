"""Settings of data sources."""

from contextlib import suppress
from dataclasses import dataclass, field
from os import SEEK_END
from pathlib import Path
from typing import Any, ClassVar

from omegaconf import MISSING

from findistill.config.fields import setting
from findistill.data.labels import SENTIMENT

PATTERN = r"comma|semicolon|tab|pipe|none|\\t|[^\w\"\r\n\\]"  # of delimiters


@dataclass
class Data:
    """A source of texts and how it is split. `_target_` is its reader, `findistill.data.sources.tfns.read`."""

    has_labels: ClassVar[bool] = True  # human labels
    has_scores: ClassVar[bool] = False  # a number for each text, to regress on
    has_votes: ClassVar[bool] = False  # how many of its annotators agreed, in eighths
    has_spans: ClassVar[bool] = False  # mentions of entities, of the types `labels`, instead of a label a text

    _target_: str = MISSING
    name: str = MISSING
    # their order is that of the columns everywhere; None: those of the rows, in sorted order
    labels: list[str] | None = field(default_factory=lambda: list(SENTIMENT))
    limit: int | None = setting(None, ge=2)  # at most this many training rows, drawn with `seed`
    # training rows whose labels may be used, as demonstrations and neighbours; the other labels count as hidden
    labelled: int = setting(0, ge=0)
    # of their draw; None: as `seed`. Draws are repeats of a method, like seeds: 'data.labelled_seed=${seed}' varies both
    labelled_seed: int | None = setting(None, ge=0)
    # of the training rows; 0: none, every label is learnt from and the last epoch is kept
    validation: float = setting(0.1, ge=0, lt=1, meaning="a share of the rows")
    # the labelled rows are in so many folds, and this one, from 0, is the test split in place of the source's own: what settings
    # are chosen by. None: no folds
    fold: int | None = setting(None, ge=0)
    folds: int = setting(5, ge=2)
    # share of all rows, where the source has no test rows of its own; 1: all are for testing
    test: float | None = setting(0.2, gt=0, le=1, meaning="a share of the rows")
    # the periods of training, validation and test rows, [2010/2016, 2017/2018, 2019/2020], or of training and test rows; other
    # rows are left out. None: not by date
    split_by_date: list[str] | None = None
    # training, pool and validation rows with an edit similarity of 90 or more to a test row: count them, or drop them
    near_duplicates: str = setting("keep", choices=("keep", "drop"))
    seed: int = setting(0, ge=0)  # of splits and draws; apart from the training seed, so that seeds share annotations
    reviewed: str | None = None  # decisions of stage=review, its reviewed.parquet: they are human labels of these texts
    hub_id: str | None = None
    hub_revision: str | None = None


def decided(data: Data, column: str) -> bool:
    """Whether people decided on the column `label` or `spans` of these texts (`data.reviewed`).

    A Parquet file names its columns in its footer, whose size stands before its last four bytes. A plan reads no more of it:
    importing pandas would take longer than the plan.
    """
    if data.reviewed is None:
        return False
    with suppress(OSError, ValueError), Path(data.reviewed).expanduser().open("rb") as file:
        file.seek(-8, SEEK_END)
        size = int.from_bytes(file.read(4), "little")
        file.seek(-8 - size, SEEK_END)
        return (b'"name": "spans"' in file.read(size)) == (column == "spans")
    return column == "label"


@dataclass
class UnlabelledData(Data):
    """Texts without labels or mentions of their own: they have those that people decided on (`data.reviewed`)."""

    @property
    def has_labels(self) -> bool:  # type: ignore[override]
        return decided(self, "label")

    @property
    def has_spans(self) -> bool:  # type: ignore[override]
        return decided(self, "spans")


@dataclass
class FileData(Data):
    """One's own file, or a hub data set: the columns to read."""

    labels: list[str] | None = None
    # None: 0.2, and where a model is only tested on the data (stage=evaluate, evaluate.also), 1
    test: float | None = setting(None, gt=0, le=1, meaning="a share of the rows")
    path: str | None = None
    text_column: str = "text"
    label_column: str | None = None  # None: the texts are unlabelled
    # mentions of entities: a list of {start, end, label} or [start, end, label], or an export of Label Studio, doccano, Argilla
    spans_column: str | None = None
    # how the spans' offsets count: characters, or UTF-16 code units as browsers do; None: as fits the texts
    offsets: str | None = setting(None, choices=("characters", "utf16"))
    id_column: str | None = None
    date_column: str | None = None
    rationale_column: str | None = None  # what leads to the label, for demonstrations of chain of thought
    split_column: str | None = None
    # a test text that stands in other rows too, by split_column: refuse, or drop the other rows
    on_leak: str = setting("refuse", choices=("refuse", "drop"))
    # The file's names -> the LabelSet's, {0: negative, 1: positive}. Not typed as a dict: Hydra would want a `+` before it.
    label_map: Any = None
    encoding: str = "utf-8"  # csv, jsonl; a byte order mark counts above it
    # csv: comma, semicolon, tab, pipe, none (one column) or a character; None: inferred
    delimiter: str | None = setting(None, pattern=PATTERN, meaning="comma, semicolon, tab, pipe, none or one character")
    columns: list[str] | None = setting(None, distinct=True)  # csv, excel: names of the columns, where there is no header
    sheet: str | None = None  # excel: name or number (from 1) of a sheet; None: the first

    @property
    def has_labels(self) -> bool:  # type: ignore[override]
        return self.label_column is not None or decided(self, "label")

    @property
    def has_spans(self) -> bool:  # type: ignore[override]
        return self.spans_column is not None or decided(self, "spans")
