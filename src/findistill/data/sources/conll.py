"""Files in CoNLL format, for entities: one token per line, its tag in another column, a blank line after each sentence."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from findistill.config.fields import setting
from findistill.data.config import FileData
from findistill.data.conll import read_conll
from findistill.data.delimited import NAMES
from findistill.data.locations import files_under, own_path
from findistill.data.rows import SPLIT_NAMES, Source
from findistill.data.user_files import from_rows
from findistill.errors import UserError

TEST_FILES = {"testa": "validation", "testb": "test"}  # of CoNLL 2003


@dataclass
class ConllData(FileData):
    has_spans: ClassVar[bool] = True

    spans_column: str | None = "spans"
    token_column: int = 0  # columns are counted from 0; -1 is the last
    tag_column: int = -1
    delimiter: str | None = setting(None, choices=("tab", "comma", "semicolon", "pipe"))  # None: any blanks


def read(config: ConllData) -> Source:
    """The text of a sentence is its tokens joined by blanks.

    Files of a folder belong to the split in their names: `train.conll`, `dev.txt`, `eng.testa`.
    """
    path = own_path(config)
    if not path.exists():
        raise UserError(f"{path}: no such file; check data.path")
    rows, ids, splits = [], [], []
    for file in files_under(path):
        split = _split(file) if path.is_dir() else None
        delimiter = NAMES[config.delimiter] if config.delimiter else None
        for number, sentence in enumerate(read_conll(file, config.encoding, delimiter, config.token_column, config.tag_column)):
            rows.append({"text": sentence.text, "spans": [[span.start, span.end, span.label] for span in sentence.spans]})
            ids.append(f"{file.stem if split is None else file.name}/{number}")
            splits.append(split)
    return from_rows(config, rows, str(path), path.name, ids, splits)


def _split(file: Path) -> str | None:
    words = re.split(r"[\W_]+", file.name.lower())
    return next((split for word in words if (split := (SPLIT_NAMES | TEST_FILES).get(word))), None)
