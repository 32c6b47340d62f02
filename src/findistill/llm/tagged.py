"""Entity mentions in answers with one token and tag per line (`Acme:Organisation_B`), aligned to the text they are about.

Models drop, merge, split and invent tokens. A token matches equal characters of the text, ignoring spaces and case, between
word boundaries; of all alignments that keep the order of the tokens, the one that covers the most characters is used. Tokens
between two aligned ones are aligned too if, joined, they equal the text there (a word that was split). All others stay
unaligned: nothing is guessed.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby

from findistill.data.spans import Span
from findistill.data.surface_forms import Offsets, folded
from findistill.llm import answers
from findistill.llm.entity_types import EntityTypes, Tag
from findistill.llm.text import one_line

MOST_LINES = 2000
LONGEST_TAG = 30  # characters
READABLE = 0.5  # share of the lines that must be a token and a tag, and of the tokens that must be in the text
SKIPPED_WORDS = 2  # that a mention may span where the answer drops them

# Between token and tag; white space alone only before a tag that could not be a word.
_SEPARATED = re.compile(r"(.*\S)?\s*(?::|\||\t|=>?|-+>|→)\s*(\S[^:|\t]*)")
_SPACED = re.compile(r"(.*\S)\s+(O|[BIESLU][-_]\w+|\w+[-_][BIESLU])\W*")
_AFFIXED = re.compile(r"(.+)_([BI])")
_WRAPPING = " \"'`*“”"
_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Tokens:
    """An answer's tokens with their tags; `other` are types that are not among the data's labels, and text that is not a tag."""

    tokens: tuple[str, ...]
    tags: tuple[Tag, ...]
    other: tuple[str, ...]


@dataclass(frozen=True)
class Alignment:
    """The mentions of a tagged answer.

    Attributes:
        spans: in the text, in order.
        lost: mentions none of whose tokens could be aligned, as in the answer.
        tokens: number of tokens in the answer.
        aligned: number of tokens that were aligned.
    """

    spans: list[Span]
    lost: list[str]
    tokens: int
    aligned: int


def read(response: str, types: EntityTypes) -> Tokens | None:
    """The tokens and tags of a response; None if fewer than half of its lines have both."""
    text = answers.visible(response[: answers.LONGEST])
    lines = [line.strip() for line in (text or "").splitlines() if line.strip()][:MOST_LINES]
    pairs = [_pair(line, types) for line in lines]
    readable = [pair for pair in pairs if pair]
    if not readable or len(readable) < READABLE * len(lines):
        return None
    tokens, tags, other = [], [], []
    for line, pair in zip(lines, pairs, strict=True):
        token, tag_text = line.rpartition(":")[::2]
        token, tag = pair or (token.strip() or line, Tag("O", other=one_line(tag_text)[:LONGEST_TAG]))
        tokens.append(token)
        tags.append(tag)
        other += [tag.other] if tag.other else []
    return Tokens(tuple(tokens), tuple(tags), tuple(other))


def _pair(line: str, types: EntityTypes) -> tuple[str, Tag] | None:
    for pattern in (_SEPARATED, _SPACED):
        if (match := pattern.fullmatch(line)) and (tag := types.tag(match[2])):
            token = match[1] or line[: match.start(2)].strip()[:1]  # a colon may be the token
            if (tag.label or tag.other) and (affixed := _AFFIXED.fullmatch(token)):  # `Acme_B:Organisation`
                name, _, kind = affixed[1].rpartition("_")  # `Acme_Organisation_B`
                token = name if name and types.tag(kind) else affixed[1]
                return token, tag._replace(prefix="B" if affixed[2] == "B" and tag.label else tag.prefix)
            return token, tag
    return None


def align(answer: Tokens, text: str) -> Alignment:
    """The answer's mentions as spans of the text.

    A mention is a token tagged `B`, or `I` after another type or none, and those tagged `I` that follow. It spans one or two
    words that the answer drops, and is split where the answer drops more.
    """
    places = _places(answer.tokens, text)
    spans: list[Span] = []
    lost: list[str] = []
    for label, group in _mentions(answer):
        aligned = [place for place in (places[at] for at in group) if place]
        if not aligned:
            lost.append(" ".join(answer.tokens[at] for at in group))
            continue
        start, end = aligned[0]
        for following in aligned[1:]:
            if len(_WORD.findall(text[end : following[0]])) > SKIPPED_WORDS:
                spans.append(Span(start, end, label))
                start = following[0]
            end = following[1]
        spans.append(Span(start, end, label))
    return Alignment(spans, lost, len(places), sum(place is not None for place in places))


def _mentions(answer: Tokens) -> Iterator[tuple[str, list[int]]]:
    """Label and token numbers of each mention."""
    number = 0
    numbers: list[tuple[int, str | None]] = []
    before: str | None = None
    for prefix, label, _ in answer.tags:
        number += label is not None and (prefix == "B" or label != before)
        numbers.append((number, label))
        before = label
    for (_, label), group in groupby(range(len(numbers)), key=lambda at: numbers[at]):
        if label is not None:
            yield label, list(group)


def _places(tokens: Sequence[str], text: str) -> list[Offsets | None]:
    """Offsets in the text of each token; None if it is unaligned."""
    characters, starts, boundaries = _squeezed(text)
    forms = [_form(token, characters) for token in tokens]
    # For each end: the most characters that the tokens so far cover up to there, and the chain of tokens that does.
    best: list[tuple[int, tuple | None]] = [(0, None)] * (len(characters) + 1)
    for number, form in enumerate(forms):
        reached = []
        for start in _occurrences(form, characters, boundaries):
            covered, chain = best[start]
            reached.append((start + len(form), (covered + len(form), (number, start, chain))))
        for end, candidate in reached:
            while end < len(best) and best[end][0] < candidate[0]:
                best[end] = candidate
                end += 1
    places: list[tuple[int, int] | None] = [None] * len(tokens)
    chain = best[-1][1]
    while chain:
        number, start, chain = chain
        places[number] = (start, start + len(forms[number]))
    _align_split(places, forms, characters)
    return [place and (starts[place[0]][0], starts[place[1] - 1][1]) for place in places]


def _align_split(places: list[Offsets | None], forms: Sequence[str], characters: str) -> None:
    """Align runs of tokens that, joined, equal the text between their aligned neighbours."""
    for empty, group in groupby(range(len(places)), key=lambda at: places[at] is None):
        run = list(group)
        before = places[run[0] - 1] if run[0] else (0, 0)
        after = places[run[-1] + 1] if run[-1] + 1 < len(places) else (len(characters), 0)
        if empty and before and after and "".join(forms[at] for at in run) == characters[before[1] : after[0]]:
            ends = accumulate((len(forms[at]) for at in run), initial=before[1])
            for at, start in zip(run, list(ends)[:-1], strict=True):
                places[at] = (start, start + len(forms[at])) if forms[at] else None


def _form(token: str, characters: str) -> str:
    """A token's characters as in the text: without surrounding quotes, or underscores for spaces, that the text lacks."""
    form = _squeezed(token)[0]
    return form if form in characters else _squeezed(token.strip(_WRAPPING).replace("_", " "))[0]


def _occurrences(form: str, characters: str, boundaries: set[int]) -> Iterator[int]:
    start = characters.find(form) if form else -1
    while start >= 0:
        if start in boundaries and start + len(form) in boundaries:
            yield start
        start = characters.find(form, start + 1)


def _squeezed(text: str) -> tuple[str, list[Offsets], set[int]]:
    """The text's characters without spaces and case, the offsets of each, and where words begin and end among them."""
    characters: list[str] = []
    offsets: list[Offsets] = []
    boundaries, before = {0}, " "
    for character, place in zip(*folded(text), strict=True):
        if not (character.isalnum() and before.isalnum()):
            boundaries.add(len(characters))
        before = character
        if not character.isspace():
            for each in character.casefold():
                characters.append(each)
                offsets.append(place)
    return "".join(characters), offsets, boundaries | {len(characters)}
