"""Surface forms compared as people read them: in one Unicode form, with one kind of quotes and dashes.

Language models copy a name from a text and change what cannot be seen: `é` as one character or two, straight quotes for curly
ones, characters without width.
"""

import re
import unicodedata
from functools import lru_cache

Offsets = tuple[int, int]

_SAME = str.maketrans("‘’‛′`´“”„″‐‑‒–—−", "''''''\"\"\"\"------")
# Scripts that are written without spaces between words: a name may stand amid other letters.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af"
_LETTER = rf"[^\W{_UNSPACED}]"


@lru_cache(maxsize=256)
def folded(text: str) -> tuple[str, tuple[Offsets, ...]]:
    """The text in its normal form, and for each of its characters the offsets in the text of what it stands for."""
    if text.isascii():
        return text.translate(_SAME), tuple((at, at + 1) for at in range(len(text)))
    clusters: list[tuple[int, int, str]] = []  # a character with the marks that belong to it
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
    """Equal for forms that `occurrences` takes for one another."""
    return " ".join(folded(form)[0].split()).casefold()


def occurrences(text: str, form: str) -> list[Offsets]:
    """Where a form stands in a text at the boundaries of words: as it is written, else regardless of case.

    The kind of white space does not count.
    """
    (characters, offsets), (wanted, _) = folded(text), folded(form)
    if not wanted.strip():
        return []
    pattern = r"\s+".join(map(re.escape, wanted.split()))
    before = rf"(?<!{_LETTER})" if re.match(_LETTER, wanted.lstrip()) else ""
    after = rf"(?!{_LETTER})" if re.search(rf"{_LETTER}$", wanted.rstrip()) else ""
    for flags in (0, re.IGNORECASE):
        matches = [match.span() for match in re.finditer(before + pattern + after, characters, flags)]
        if matches:
            return [(offsets[start][0], offsets[end - 1][1]) for start, end in matches]
    return []
