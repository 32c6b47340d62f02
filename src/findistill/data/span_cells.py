"""Mentions in files: lists of offsets, and the exports of Label Studio, doccano and Argilla.

Python and Label Studio (since 1.5) count characters. The web pages of Argilla and of doccano (unless a project counts grapheme
clusters) count UTF-16 code units, of which most emoji have two; so did older versions of Label Studio.
"""

import ast
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from findistill.data.cells import SeveralLabelsError, as_label, is_missing
from findistill.data.spans import Span, from_utf16
from findistill.errors import UserError

CHARACTERS, UTF16 = "characters", "utf16"
_STARTS, _ENDS = ("start", "start_offset"), ("end", "end_offset")
_LABELS = ("label", "labels", "type", "entity_group", "entity", "tag")
_INNER = ("result", "value", "entities", "spans")  # keys of an annotation that hold its spans


class AnnotationsDifferError(ValueError):
    """A cell has several annotators' spans, and they do not agree."""


@dataclass(frozen=True)
class Mention:
    """A span from a file; `surface` is its text, if the file has it."""

    span: Span
    surface: str | None = None


def read_cell(cell: Any) -> list[Mention] | None:
    """The distinct mentions in a cell; None if it is empty, because nobody annotated the text.

    Accepts [start, end, label], {start, end, label} by any of the tools' names, lists of them, columns of them ({start: [...],
    ...}), JSON or Python text, and a list of annotations that agree.

    Raises:
        ValueError: anything else; the message says what.
    """
    if isinstance(cell, str):
        if not cell.strip():
            return None
        cell = _parsed(cell)
    if not isinstance(cell, list | tuple | Mapping):
        if is_missing(cell):
            return None
        raise ValueError("is not a list of spans")
    if isinstance(cell, Mapping):
        return _of_mapping(cell)
    if _is_span(cell):
        return [_mention(cell[0], cell[1], cell[2])]
    if any(_is_annotation(each) for each in cell):
        return _agreed([read_cell(each) for each in cell])
    mentions = [mention for each in cell for mention in read_cell(each) or ()]
    return list(dict.fromkeys(mentions))


def as_spans(rows: Sequence[tuple[str, Sequence[Mention] | None]], offsets: str | None) -> tuple[list[list[Span] | None], str]:
    """The spans of each text, in characters; and a note for the data card if emoji made a difference.

    Args:
        offsets: `characters`, `utf16`, or None: whichever fits the known surface forms, else that by which more spans start
            and end at word boundaries.
    """
    read: list[list[Span] | None] = []
    differing: list[tuple[int, list[Span], list[Span]]] = []
    for row, (text, mentions) in enumerate(rows):
        spans = None if mentions is None else sorted(mention.span for mention in mentions)
        if spans and not text.isascii() and (units := _in_utf16(text, spans)) != spans:
            surfaces = {mention.span: mention.surface for mention in mentions or () if mention.surface is not None}
            if offsets == UTF16 or (offsets is None and units and _fits(text, units, spans, surfaces)):
                spans = units or spans
            elif offsets is None and units and not surfaces:
                differing.append((row, spans, units))
        read.append(spans)
    as_characters = sum(_at_words(rows[row][0], spans) for row, spans, _ in differing)
    as_units = sum(_at_words(rows[row][0], units) for row, _, units in differing)
    if not differing:
        return read, ""
    reading = UTF16 if as_units > as_characters else CHARACTERS
    for row, _, units in differing if reading == UTF16 else ():
        read[row] = units
    return read, (
        f"emoji precede spans in {len(differing):,} texts: offsets are read as "
        f"{'UTF-16 code units' if reading == UTF16 else 'characters'}, which matches the words; data.offsets overrides it"
    )


def _in_utf16(text: str, spans: Sequence[Span]) -> list[Span]:
    """The spans read as UTF-16 offsets; empty if that is impossible."""
    try:
        return from_utf16(text, spans) if all(span.start < span.end for span in spans) else []
    except UserError:
        return []


def _fits(text: str, units: Sequence[Span], spans: Sequence[Span], surfaces: Mapping[Span, str]) -> bool:
    """Whether the surface forms are those of the UTF-16 reading, and not those of the other."""
    both = [(unit, span, surfaces[span]) for unit, span in zip(units, spans, strict=True) if span in surfaces]
    return any(text[span.start : span.end] != form for _, span, form in both) and all(
        text[unit.start : unit.end] == form for unit, _, form in both
    )


def _at_words(text: str, spans: Sequence[Span]) -> int:
    """How many starts and ends of spans are at word boundaries; those outside the text are not."""
    starts = {match.start() for match in re.finditer(r"\b\w|[^\w\s]", text)}
    ends = {match.end() for match in re.finditer(r"\w\b|[^\w\s]", text)}
    return sum((span.start in starts) + (span.end in ends) for span in spans)


def _parsed(text: str) -> Any:
    for parse in (json.loads, ast.literal_eval):
        try:
            return parse(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
    whole = text.strip()[-1:] in ("]", "}")
    raise ValueError("is not JSON" if whole else "is not JSON, or is truncated")


def _of_mapping(cell: Mapping[str, Any]) -> list[Mention] | None:
    start, end, label = (next((cell[name] for name in names if name in cell), None) for names in (_STARTS, _ENDS, _LABELS))
    if isinstance(start, list):  # columns, as `datasets` stores a list of objects
        if not isinstance(end, list) or not isinstance(label, list) or not len(start) == len(end) == len(label):
            raise ValueError("has columns of different lengths")
        return [_mention(*each) for each in zip(start, end, label, strict=True)]
    if start is not None or end is not None:
        return [_mention(start, end, label, cell.get("text"))]
    inner = next((cell[name] for name in _INNER if name in cell), None)
    if isinstance(inner, Mapping) and "value" in cell:  # a choice or a remark beside the regions has no offsets
        return read_cell(inner) if any(name in inner for name in _STARTS) else []
    if any(name in cell for name in _INNER):
        return read_cell(inner)
    raise ValueError(f"has an object with {', '.join(map(str, cell)) or 'nothing'}, but start, end and label are needed")


def _mention(start: Any, end: Any, label: Any, surface: Any = None) -> Mention:
    offsets = []
    for name, value in (("start", start), ("end", end)):
        whole = isinstance(value, int | float) and not isinstance(value, bool) and float(value).is_integer()
        if not whole and not (isinstance(value, str) and value.strip().lstrip("-").isdecimal()):
            raise ValueError(f"has {name}={value!r}, which is not an integer")
        offsets.append(int(value))
    try:
        name = as_label(label)
    except SeveralLabelsError as error:
        raise ValueError(f"has several labels for one span, {', '.join(error.args[0])}; keep one") from None
    if not name:
        raise ValueError(f"has no label for the span {offsets[0]}:{offsets[1]}")
    # Label Studio writes a line break as two characters.
    return Mention(Span(offsets[0], offsets[1], name), surface.replace("\\n", "\n") if isinstance(surface, str) else None)


def _is_span(cell: Sequence[Any]) -> bool:
    """[start, end, label]"""
    return len(cell) == 3 and not any(isinstance(each, list | tuple | Mapping) for each in cell)


def _is_annotation(each: Any) -> bool:
    """Whether this is one annotator's work rather than one span."""
    if isinstance(each, list | tuple):
        return not _is_span(each)
    return isinstance(each, Mapping) and (isinstance(each.get("result"), list) or isinstance(each.get("value"), list | str))


def _agreed(annotations: Sequence[list[Mention] | None]) -> list[Mention] | None:
    complete = [mentions for mentions in annotations if mentions is not None]
    if any({each.span for each in mentions} != {each.span for each in complete[0]} for mentions in complete):
        raise AnnotationsDifferError(f"has {len(complete)} annotations that differ")
    return complete[0] if complete else None
