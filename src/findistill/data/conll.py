"""CoNLL files: one token and its tag per line, a blank line after each sentence."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from findistill.data.spans import Span, from_bio
from findistill.data.text_files import read_text
from findistill.errors import UserError

_TAG = re.compile(r"O|[BILOUESMW]-\S+")
_PREFIXES = {"U": "B", "S": "B", "W": "B", "L": "I", "E": "I", "M": "I"}  # BILOU, BIOES and BMEWO -> BIO


@dataclass(frozen=True)
class Sentence:
    text: str
    spans: list[Span]
    line: int  # number of its first line, from 1


def join_tokens(tokens: Sequence[str], tags: Sequence[str]) -> tuple[str, list[Span]]:
    """The tokens joined by blanks, and the mentions that IOB1, IOB2, BILOU or BIOES tags mark in this text."""
    offsets, at = [], 0
    for token in tokens:
        offsets.append((at, at + len(token)))
        at += len(token) + 1
    bio = [tag if tag == "O" else f"{_PREFIXES.get(tag[0], tag[0])}{tag[1:]}" for tag in tags]
    return " ".join(tokens), from_bio(bio, offsets)


def read_conll(path: Path, encoding: str, delimiter: str | None, token_column: int, tag_column: int) -> list[Sentence]:
    """The sentences of a file. `-DOCSTART-` lines and comments before a sentence are skipped.

    Args:
        delimiter: between columns; None: any blanks.
        token_column, tag_column: counted from 0; -1 is the last.

    Raises:
        UserError: a line without these columns, an invalid tag, or no sentence.
    """
    sentences = []
    for first, lines in _blocks(read_text(path, encoding).getvalue(), delimiter):
        tokens, tags = [], []
        for number, line in enumerate(lines, first):
            cells = [cell.strip() for cell in line.split(delimiter)] if delimiter else line.split()
            at = f"{path}, line {number}"
            try:
                token, tag = cells[token_column], cells[tag_column]
            except IndexError:
                raise UserError(f"{at}: {line.strip()[:60]!r} has {len(cells)} columns; check {_columns()}") from None
            if not _TAG.fullmatch(tag):
                raise UserError(f"{at}: {tag[:40]!r} is not a tag such as O, B-ORG or I-ORG; check {_columns()}")
            if not token:
                raise UserError(f"{at}: the token is empty; check {_columns()}")
            tokens.append(token)
            tags.append(tag)
        text, spans = join_tokens(tokens, tags)
        sentences.append(Sentence(text, spans, first))
    if not sentences:
        raise UserError(f"{path}: no sentences; each line needs a token and its tag, with a blank line after each sentence")
    return sentences


def _columns() -> str:
    return "data.token_column, data.tag_column and data.delimiter"


def _blocks(content: str, delimiter: str | None) -> Iterator[tuple[int, list[str]]]:
    """The lines of each sentence, with the number of the first."""
    block: list[str] = []
    first = 0
    for number, line in enumerate([*content.replace("\r\n", "\n").split("\n"), ""], 1):
        if not line.strip() or line.startswith("-DOCSTART-"):
            if block:
                yield first, block
            block = []
        elif block or not _is_comment(line, delimiter):
            first = first if block else number
            block.append(line)


def _is_comment(line: str, delimiter: str | None) -> bool:
    return line.startswith("#") and not _TAG.fullmatch((line.split(delimiter) or [""])[-1].strip())
