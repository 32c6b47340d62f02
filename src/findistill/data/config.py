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
    """A source of texts and how it is split. `_target_` is its reader, such as `findistill.data.sources.tfns.read`."""

    has_labels: ClassVar[bool] = True  # human labels
    has_scores: ClassVar[bool] = False  # a number for each text, for regression
    has_votes: ClassVar[bool] = False  # how many annotators agreed, in eighths
    has_spans: ClassVar[bool] = False  # entity mentions of the types `labels`, instead of one label per text

    _target_: str = MISSING
    name: str = MISSING
    # their order is that of the columns everywhere; None: the labels in the rows, sorted
    labels: list[str] | None = field(default_factory=lambda: list(SENTIMENT))
    limit: int | None = setting(None, ge=2)  # at most this many training rows, drawn with `seed`
    # number of training rows whose labels may be used, as demonstrations and neighbours; other labels count as hidden
    labelled: int = setting(0, ge=0)
    # seed of that draw; None: `seed`. Like seeds, draws are repeats of a method: 'data.labelled_seed=${seed}' varies both
    labelled_seed: int | None = setting(None, ge=0)
    # share of the training rows; 0: none, so that all labels are trained on and the last epoch is kept
    validation: float = setting(0.1, ge=0, lt=1, meaning="a share of the rows")
    # the labelled rows are divided into `folds` folds; this one, from 0, replaces the source's test split, to choose settings by.
    # None: no folds
    fold: int | None = setting(None, ge=0)
    folds: int = setting(5, ge=2)
    # share of all rows, if the source has no test split; 1: all rows are test rows
    test: float | None = setting(0.2, gt=0, le=1, meaning="a share of the rows")
    # the periods of training, validation and test rows, [2010/2016, 2017/2018, 2019/2020], or of training and test rows; other
    # rows are dropped. None: no split by date
    split_by_date: list[str] | None = None
    # training, pool and validation rows with an edit similarity of 90 or more to a test row: count them, or drop them
    near_duplicates: str = setting("keep", choices=("keep", "drop"))
    seed: int = setting(0, ge=0)  # of splits and draws; separate from the training seed, so that seeds share annotations
    reviewed: str | None = None  # reviewed.parquet of stage=review: its decisions are human labels of these texts
    hub_id: str | None = None
    hub_revision: str | None = None


def decided(data: Data, column: str) -> bool:
    """Whether `data.reviewed` has human decisions on the column `label` or `spans`.

    Reads only the Parquet footer, which names the columns and whose size precedes the last four bytes: importing pandas would
    take longer than a plan.
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
    """Texts without labels or mentions, except for human decisions in `data.reviewed`."""

    @property
    def has_labels(self) -> bool:  # type: ignore[override]
        return decided(self, "label")

    @property
    def has_spans(self) -> bool:  # type: ignore[override]
        return decided(self, "spans")


@dataclass
class FileData(Data):
    """A file of the user, or a hub data set, and the columns to read."""

    labels: list[str] | None = None
    # None: 0.2, or 1 if the data are only for testing a model (stage=evaluate, evaluate.also)
    test: float | None = setting(None, gt=0, le=1, meaning="a share of the rows")
    path: str | None = None
    text_column: str = "text"
    label_column: str | None = None  # None: the texts are unlabelled
    # entity mentions: a list of {start, end, label} or [start, end, label], or an export of Label Studio, doccano, Argilla
    spans_column: str | None = None
    # unit of the spans' offsets: characters, or UTF-16 code units as in browsers; None: whichever fits the texts
    offsets: str | None = setting(None, choices=("characters", "utf16"))
    id_column: str | None = None
    date_column: str | None = None
    rationale_column: str | None = None  # the reasoning behind the label, for chain-of-thought demonstrations
    split_column: str | None = None
    # if a test text is also in rows of other splits, by split_column: refuse, or drop those rows
    on_leak: str = setting("refuse", choices=("refuse", "drop"))
    # The file's names -> the LabelSet's, {0: negative, 1: positive}. Not typed as a dict, where Hydra would require a `+`.
    label_map: Any = None
    encoding: str = "utf-8"  # csv, jsonl, conll; a byte order mark takes precedence
    # csv: comma, semicolon, tab, pipe, none (one column) or a character; None: inferred
    delimiter: str | None = setting(None, pattern=PATTERN, meaning="comma, semicolon, tab, pipe, none or one character")
    columns: list[str] | None = setting(None, distinct=True)  # csv, excel: names of the columns, if there is no header
    sheet: str | None = None  # excel: name or number (from 1) of a sheet; None: the first

    @property
    def has_labels(self) -> bool:  # type: ignore[override]
        return self.label_column is not None or decided(self, "label")

    @property
    def has_spans(self) -> bool:  # type: ignore[override]
        return self.spans_column is not None or decided(self, "spans")
