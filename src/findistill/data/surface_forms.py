"""Surface forms compared as people read them: in one Unicode form, with one kind of quotes and dashes.

Language models copy a name from a text and change what is hard to see: `é` as one character or two, straight quotes for curly
ones, zero-width characters.
"""

import re
import unicodedata
from functools import lru_cache

Offsets = tuple[int, int]

_SAME = str.maketrans("‘’‛′`´“”„″‐‑‒–—−", "''''''\"\"\"\"------")
# Scripts that are written without spaces between words: a name may be next to other letters.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af"
_LETTER = re.compile(rf"[^\W{_UNSPACED}]")
_BLANKS = re.compile(r"\s+")


@lru_cache(maxsize=256)
def folded(text: str) -> tuple[str, tuple[Offsets, ...]]:
    """The normalised text, and for each of its characters the offsets of its source in the text."""
    if text.isascii():
        return text.translate(_SAME), tuple((at, at + 1) for at in range(len(text)))
    clusters: list[tuple[int, int, str]] = []  # a character with its combining marks
    for at, character in enumerate(text):
        kind = unicodedata.category(character)
        if kind == "Cf" or "\ufe00" <= character <= "\ufe0f":
            continue
        if kind[0] == "M" and clusters and clusters[-1][1] == at:
            start, _, before = clusters.pop()
            clusters.append((start, at + 1, before + character))
        else:
            clusters.append((at, at + 1, character.translate(_SAME)))
    characters, offsets = [], []
    for start, end, cluster in clusters:
        for character in unicodedata.normalize("NFKC", cluster):
            characters.append(character)
            offsets.append((start, end))
    return "".join(characters), tuple(offsets)


def form_key(form: str) -> str:
    """A key that is equal for forms that `occurrences` does not distinguish."""
    return " ".join(folded(form)[0].split()).casefold()


def occurrences(text: str, form: str) -> list[Offsets]:
    """Where a form occurs in a text at word boundaries: as it is written, else regardless of case.

    The kind of white space is ignored.
    """
    characters, offsets = _searchable(text)
    key = _searchable(form)[0].strip()
    return _places(characters, offsets, key) or _places(_lower(characters), offsets, _lower(key))


@lru_cache(maxsize=256)
def _searchable(text: str) -> tuple[str, tuple[Offsets, ...]]:
    """Like `folded`, with each run of white space as one blank."""
    characters, offsets = folded(text)
    plain = _BLANKS.sub(" ", characters)
    if plain == characters:
        return characters, offsets
    places = [at for at, character in enumerate(characters) if not (character.isspace() and characters[at - 1 : at].isspace())]
    return plain, tuple(offsets[at] for at in places)


def _places(characters: str, offsets: tuple[Offsets, ...], form: str) -> list[Offsets]:
    places: list[Offsets] = []
    start = characters.find(form) if form else -1
    while start >= 0:
        end = start + len(form)
        if _bounded(characters[start - 1 : start], form[0]) and _bounded(form[-1], characters[end : end + 1]):
            places.append((offsets[start][0], offsets[end - 1][1]))
            start = characters.find(form, end)
        else:
            start = characters.find(form, start + 1)
    return places


def _bounded(before: str, after: str) -> bool:
    """Whether a word may begin or end between two characters."""
    return not (_LETTER.match(before) and _LETTER.match(after))


@lru_cache(maxsize=256)
def _lower(text: str) -> str:
    """In lower case, character by character."""
    if text.isascii():
        return text.lower()
    return "".join(lower if len(lower := character.lower()) == 1 else character for character in text)
