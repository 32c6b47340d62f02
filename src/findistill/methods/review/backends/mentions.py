"""Mentions in a cell of a spreadsheet: their surface forms, `Acme Corp | Bolt`, located again in the text.

A form alone stands for all its mentions, `Acme #2` for its second occurrence only; `@10:14` are offsets, where forms fail.
"""

import re
from collections.abc import Sequence

from findistill.data.spans import Span, locate
from findistill.errors import UserError

MARK = " | "
_NUMBERED = re.compile(r"(?P<form>.*\S)\s*#(?P<number>[1-9]\d*)", re.DOTALL)
_OFFSETS = re.compile(r"@(\d+):(\d+)")


def in_words(spans: Sequence[Span], text: str) -> str:
    """A cell for spans of one label: forms alone if all their mentions are marked, else with numbers, else offsets."""
    ordered = sorted(spans)
    forms = [text[span.start : span.end] for span in ordered]
    numbered = [f"{form} #{1 + _starts(text, form).index(span.start)}" for form, span in zip(forms, ordered, strict=True)]
    label = ordered[0].label if ordered else ""
    whole = {form for form in forms if {*locate(text, [form], label).spans} <= {*ordered}}
    shortest = [form if form in whole else item for form, item in zip(forms, numbered, strict=True)]
    for items in ([*dict.fromkeys(shortest)], numbered):
        cell = MARK.join(items)
        try:
            if from_words(cell, text, label) == ordered:
                return cell
        except UserError:
            continue
    return MARK.join(f"@{span.start}:{span.end}" for span in ordered)


def from_words(cell: str, text: str, label: str) -> list[Span]:
    """The spans that a cell names.

    Raises:
        UserError: a form or an occurrence that is not in the text.
    """
    plain: list[str] = []
    spans: list[Span] = []
    for item in filter(None, (part.strip() for part in cell.split("|"))):
        if offsets := _OFFSETS.fullmatch(item):
            spans.append(Span(int(offsets[1]), int(offsets[2]), label))
        elif not (numbered := _NUMBERED.fullmatch(item)) or item in text:
            plain.append(item)
        else:
            form, number = numbered["form"], int(numbered["number"])
            starts = _starts(text, form)
            if number > len(starts):
                times = f"{len(starts)} time{'s' * (len(starts) != 1)}"
                raise UserError(f"{form!r} occurs {times} in the text, so there is no {item!r}")
            spans.append(Span(starts[number - 1], starts[number - 1] + len(form), label))
    located = locate(text, plain, label)
    if located.missing:
        raise UserError(
            f"{located.missing[0]!r} does not occur in the text; copy names from the text, separated by {MARK.strip()!r}"
        )
    return sorted({*spans, *(span for span in located.spans if not any(span.overlaps(other) for other in spans))})


def _starts(text: str, form: str) -> list[int]:
    """Every start of a form, also inside words."""
    return [at for at in range(len(text)) if text.startswith(form, at)]
