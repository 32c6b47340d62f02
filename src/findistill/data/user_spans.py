"""Mentions in the user's own files: reading the column with spans, renaming its types, and naming the row of every error."""

from collections.abc import Mapping, Sequence
from typing import Any

from findistill.config.overrides import mapping_of, typed
from findistill.data.cells import folded, lookup
from findistill.data.config import FileData
from findistill.data.span_cells import AnnotationsDifferError, Mention, as_spans, read_cell
from findistill.data.spans import Span, to_cell
from findistill.errors import UserError

ANNOTATED = ("annotation_id", "annotator")  # columns of Label Studio, which omits the spans of a text without mentions


def read_spans(
    config: FileData, rows: Sequence[Mapping[str, Any]], texts: Sequence[str], origin: str
) -> tuple[list[list[dict[str, Any]] | None], str]:
    """The span cells of `TextData.frame`, and a note for the data card, possibly empty.

    Types are matched regardless of case. `data.label_map` renames them, and drops those that it maps to null.

    Raises:
        UserError: a cell is not a list of spans, or has a type that is not in `data.labels`.
    """
    column = str(config.spans_column)
    mentions = []
    for number, row in enumerate(rows, 1):
        try:
            of_row = read_cell(lookup(row, column))
        except AnnotationsDifferError as error:
            remedy = f"resolve them first, or choose one: {typed('data.spans_column', f'{column}.0')}"
            raise UserError(f"{origin}, row {number}: {column} {error}; {remedy}") from None
        except ValueError as error:
            cell = " ".join(str(lookup(row, column)).split())[:60]
            raise UserError(f"{origin}, row {number}: {column}={cell} {error} (data.spans_column)") from None
        mentions.append([] if of_row is None and any(lookup(row, name) for name in ANNOTATED) else of_row)
    located, note = as_spans([*zip(texts, mentions, strict=True)], config.offsets)
    for number, (text, spans, of_row) in enumerate(zip(texts, located, mentions, strict=True), 1):
        _check_surfaces(text, spans, of_row, f"{origin}, row {number}: {column}")
    renamed = {folded(str(name)): value for name, value in (mapping_of(config.label_map) or {}).items()}
    names = {folded(name): name for name in config.labels or ()}
    cells: list[list[dict[str, Any]] | None] = []
    for number, spans in enumerate(located, 1):
        if spans is None:
            cells.append(None)
            continue
        named = []
        for span in spans:
            name = renamed.get(folded(span.label), span.label)
            if name is None:
                continue
            name = names.get(folded(name), name) if config.labels else names.setdefault(folded(name), name)
            if config.labels is not None and name not in config.labels:
                raise UserError(
                    f"{origin}, row {number}: {column} has the type {name!r}, "
                    f"not one of data.labels=[{','.join(config.labels)}].\n"
                    f"Rename it: {typed('data.label_map', {span.label: config.labels[0]})}, or drop it: "
                    f"{typed('data.label_map', {span.label: None})}"
                )
            named.append(Span(span.start, span.end, name))
        cells.append(to_cell(named))
    return cells, note


def _check_surfaces(text: str, spans: Sequence[Span] | None, mentions: Sequence[Mention] | None, at: str) -> None:
    """Raise UserError if the file names a span's text, and the text differs at its offsets."""
    surfaces = sorted(_plain(mention.surface) for mention in mentions or () if mention.surface is not None)
    there = sorted(_plain(text[span.start : span.end]) for span in spans or ())
    if len(surfaces) == len(there) and surfaces != there:
        [one, other] = next(pair for pair in zip(surfaces, there, strict=True) if pair[0] != pair[1])
        raise UserError(
            f"{at}: a span should be {one[:40]!r}, but the text has {other[:40]!r} there; text and offsets are from "
            "different versions, export both again"
        )


def _plain(surface: str) -> str:
    return "".join(surface.split()).casefold()
