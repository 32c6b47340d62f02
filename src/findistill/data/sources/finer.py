"""FiNER-ORD: people, places and organisations in sentences of English financial news, tagged by hand (Shah et al. 2023)."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, ClassVar

from findistill.config.fields import setting
from findistill.config.overrides import typed
from findistill.data.config import Data
from findistill.data.conll import join_tokens
from findistill.data.delimited import read_csv
from findistill.data.labels import COMPANY
from findistill.data.locations import files_in, from_hub
from findistill.data.rows import SPLIT_NAMES, Source
from findistill.data.spans import to_cell
from findistill.errors import UserError

LICENCE = "CC BY-NC 4.0"
CITATION = "Shah, Gullapalli, Vithani, Galarnyk, Chava (2023), FiNER-ORD, arXiv:2302.11157"
FOLDER = "finer_ord"
TAGS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC", "B-ORG", "I-ORG")  # in the order of the file's numbers
TYPES = {"person": "PER", "location": "LOC", "organisation": "ORG", COMPANY: "ORG"}  # our names -> theirs


@dataclass
class FinerData(Data):
    """`labels` are the entity types to mark: `company` or `organisation` (the same), optionally `person` and `location`."""

    has_labels: ClassVar[bool] = False
    has_spans: ClassVar[bool] = True

    labels: list[str] | None = setting([COMPANY], choices=tuple(TYPES), distinct=True)
    # answered: train on the published test sentences, for which LLM answers are published, and test on all others
    split: str = setting("published", choices=("published", "answered"))


def local_files(config: FinerData) -> list[Path]:
    return files_in(FOLDER, ["train.csv", "val.csv", "test.csv"])


def read(config: FinerData) -> Source:
    """The text of a sentence is its tokens joined by blanks; its id has the numbers of the document and the sentence."""
    names = {TYPES[label]: label for label in config.labels or [COMPANY]}
    if len(names) < len(config.labels or [COMPANY]):
        raise UserError(f"data.labels: company and organisation are the same here; use {typed('data.labels', [COMPANY])}")
    if paths := local_files(config):
        parts, origin = {path.stem: read_csv(path) for path in paths}, str(paths[0].parent)
    else:
        parts, origin = {name: part.to_list() for name, part in from_hub(config, FOLDER).items()}, f"hub:{config.hub_id}"
    splits = {"train": "test", "validation": "test", "test": "train"} if config.split == "answered" else {}
    rows = [row for name, tokens in parts.items() for row in _sentences(SPLIT_NAMES[name], tokens, names, splits)]
    return Source(rows, origin, LICENCE, CITATION, notes=["texts are the data set's tokens joined by spaces"])


def _sentences(
    split: str, tokens: Iterable[Mapping[str, Any]], names: Mapping[str, str], splits: Mapping[str, str]
) -> Iterable[dict[str, Any]]:
    """Rows of a published split, which `splits` may map to another; ids keep the published one."""
    for (document, sentence), rows in groupby(tokens, lambda row: (row["doc_idx"], row["sent_idx"])):
        of_sentence = list(rows)
        tags = [TAGS[int(row["gold_label"])] for row in of_sentence]
        own_tags = [f"{tag[:2]}{names[tag[2:]]}" if tag[2:] in names else "O" for tag in tags]
        text, spans = join_tokens([str(row["gold_token"]) for row in of_sentence], own_tags)
        yield {
            "id": f"finer/{split}/{document}/{sentence}",
            "text": text,
            "spans": to_cell(spans),
            "split": splits.get(split, split),
            "source": "finer",
        }
