"""Entity mentions: character spans in a text, and conversions to and from the forms that libraries use.

Offsets count Unicode code points, as Python's strings do: `text[start:end]` is the surface form. Everything else (words,
tokens with BIO tags, UTF-16 offsets of browsers) is converted on input and output.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import accumulate, pairwise
from typing import Any

from findistill.data.surface_forms import Offsets as Offsets
from findistill.data.surface_forms import occurrences
from findistill.errors import UserError

# Words as GLiNER splits them: letters and digits, joined by hyphens and underscores, or one other character.
_WORD = re.compile(r"\w+(?:[-_]\w+)*|\S")
_PIECE = re.compile(r"\w+|[^\w\s]")


@dataclass(frozen=True, order=True)
class Span:
    """One mention: `text[start:end]` is of the type `label`."""

    start: int
    end: int
    label: str

    def overlaps(self, other: "Span") -> bool:
        return self.start < other.end and other.start < self.end


@dataclass(frozen=True)
class Located:
    """Where surface forms occur in a text.

    Attributes:
        spans: every mention, in order; none overlap.
        repeated: forms that occur more than once, each mention of which is a span.
        missing: forms that do not occur.
    """

    spans: list[Span]
    repeated: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Marked:
    """Texts with their spans, none of which overlap, to train or evaluate an entity model on."""

    texts: list[str]
    spans: list[list[Span]]

    def __len__(self) -> int:
        return len(self.texts)

    def repeated(self, times: int) -> "Marked":
        """The same texts, `times` times."""
        return Marked(self.texts * times, self.spans * times)


def to_cell(spans: Iterable[Span]) -> list[dict[str, Any]]:
    """Spans as a table cell: a list of mappings with start, end and label."""
    return [asdict(span) for span in sorted(spans)]


def from_cell(cell: Iterable[Mapping[str, Any]]) -> list[Span]:
    """Spans from a table cell; other values of a span, such as its votes, are ignored."""
    return sorted(Span(int(each["start"]), int(each["end"]), str(each["label"])) for each in cell)


def check(text: str, spans: Iterable[Span], labels: Sequence[str], where: str) -> list[Span]:
    """The spans in order, if they are valid.

    Args:
        where: the place that the error names, such as a file and a row.

    Raises:
        UserError: an offset outside the text, an empty span, a label outside the set, or two spans that overlap.
    """
    ordered = sorted(spans)
    for span in ordered:
        place = f"{where}: span {span.start}:{span.end} ({span.label})"
        if not 0 <= span.start < span.end <= len(text):
            raise UserError(f"{place} is empty or outside the text of {len(text)} characters: offsets count characters from 0")
        if not text[span.start : span.end].strip():
            raise UserError(f"{place} covers only whitespace")
        if span.label not in labels:
            raise UserError(f"{place}: its label is not one of {', '.join(labels)}; add it to data.labels, or remove the span")
    for one, other in pairwise(ordered):
        if one.overlaps(other):
            raise UserError(
                f"{where}: spans {one.start}:{one.end} and {other.start}:{other.end} overlap, but a character can belong "
                "to one mention only; remove one of them"
            )
    return ordered


def without_overlaps(spans: Iterable[Span]) -> list[Span]:
    """Of spans that overlap, the longest; of equally long ones, the first."""
    disjoint: list[Span] = []
    for span in sorted(spans, key=lambda each: (each.start - each.end, each)):
        if not any(span.overlaps(other) for other in disjoint):
            disjoint.append(span)
    return sorted(disjoint)


def locate(text: str, forms: Iterable[str], label: str) -> Located:
    """Every mention of the surface forms in the text, longer forms first.

    A form matches at word boundaries, first as it is written, then regardless of case; the kind of blanks, quotes and dashes and
    the Unicode form are ignored, because language models change them (`surface_forms`).
    """
    return locate_typed(text, [(form, label) for form in forms])


def locate_typed(text: str, forms: Iterable[tuple[str, str]]) -> Located:
    """Like `locate`, with a label for each form; if a form has two labels, the first counts."""
    spans: list[Span] = []
    repeated, missing = [], []
    labels_of_forms = {form.strip(): label for form, label in reversed(list(forms))}
    for form in sorted(filter(None, reversed(labels_of_forms)), key=len, reverse=True):
        places = occurrences(text, form)
        mentions = [Span(start, end, labels_of_forms[form]) for start, end in places]
        free = [mention for mention in mentions if not any(mention.overlaps(other) for other in spans)]
        spans += free
        if len(free) > 1:
            repeated.append(form)
        if not places:
            missing.append(form)
    return Located(sorted(spans), repeated, missing)


def to_utf16(text: str, spans: Iterable[Span]) -> list[Span]:
    """The spans with offsets in UTF-16 code units, as JavaScript counts: a character beyond U+FFFF, most emoji, counts twice."""
    units = _units(text)
    return [Span(units[span.start], units[span.end], span.label) for span in spans]


def from_utf16(text: str, spans: Iterable[Span]) -> list[Span]:
    """Spans from offsets in UTF-16 code units.

    Raises:
        UserError: an offset outside the text, or inside a character.
    """
    units = {unit: at for at, unit in enumerate(_units(text))}
    converted = []
    for span in spans:
        if span.start not in units or span.end not in units:
            raise UserError(
                f"as UTF-16 offsets, span {span.start}:{span.end} ({span.label}) is outside the text or inside a character"
            )
        converted.append(Span(units[span.start], units[span.end], span.label))
    return converted


def _units(text: str) -> list[int]:
    """UTF-16 code units before each character, and in the whole text."""
    return [0, *accumulate(1 + (character > "\uffff") for character in text)]


def words(text: str) -> list[Offsets]:
    """Offsets of the words of a text as GLiNER splits it."""
    return [match.span() for match in _WORD.finditer(text)]


def pieces(text: str) -> list[Offsets]:
    """Offsets of the runs of letters and digits of a text, and of each other character: `Tata-led` has three.

    A name that is joined to another word ends inside one of `words`, but hardly ever inside one of these.
    """
    return [match.span() for match in _PIECE.finditer(text)]


def to_words(spans: Iterable[Span], offsets: Sequence[Offsets]) -> list[tuple[int, int, str]]:
    """Spans as (first word, last word, label), both inclusive; a span that ends inside a word gets the whole word.

    Args:
        offsets: of the words, in order. A span without any word is left out.
    """
    entities = []
    for span in spans:
        inside = [at for at, (start, end) in enumerate(offsets) if start < span.end and span.start < end]
        if inside:
            entities.append((inside[0], inside[-1], span.label))
    return entities


def from_words(entities: Iterable[tuple[int, int, str]], offsets: Sequence[Offsets]) -> list[Span]:
    """Spans from (first word, last word, label), both inclusive."""
    return sorted(Span(offsets[first][0], offsets[last][1], label) for first, last, label in entities)


def tags_of(labels: Iterable[str]) -> list[str]:
    """The BIO tags of these labels, `O` first."""
    return ["O", *(f"{prefix}-{label}" for label in labels for prefix in "BI")]


def to_bio(spans: Iterable[Span], offsets: Sequence[Offsets]) -> list[str]:
    """One tag per token: `B-company` where a mention begins, `I-company` inside it, `O` elsewhere.

    Args:
        offsets: of the tokens, in order; a token without characters (0, 0), such as a special token, is `O`.
    """
    tags = ["O"] * len(offsets)
    for first, last, label in to_words(spans, offsets):
        tags[first : last + 1] = [f"B-{label}", *[f"I-{label}"] * (last - first)]
    return tags


def from_bio(tags: Sequence[str], offsets: Sequence[Offsets]) -> list[Span]:
    """Spans from one tag per token. `I-` after another label or after `O` begins a mention, as in CoNLL's scorer."""
    spans: list[Span] = []
    inside = False
    for tag, (start, end) in zip(tags, offsets, strict=True):
        if start == end:
            continue
        prefix, _, label = tag.partition("-")
        if prefix == "I" and inside and spans[-1].label == label:
            spans[-1] = Span(spans[-1].start, end, label)
        elif prefix in ("B", "I"):
            spans.append(Span(start, end, label))
        inside = prefix in ("B", "I")
    return spans
