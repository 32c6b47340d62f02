"""A list of company names as an untrained model: every listed name in a text is a company (distant supervision).

Suffixes such as `Class A Common Stock` are stripped, and names match with and without their legal form: `Acme Widgets Inc.`
and `Acme Widgets`. Matching is by words, longest name first, in one pass over a text whatever the length of the list.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path

from findistill.data.delimited import read_csv
from findistill.data.labels import COMPANY
from findistill.data.locations import files_in
from findistill.data.spans import Span
from findistill.errors import UserError, did_you_mean

FOLDER, FILES = "companies", ("us_listed.csv", "sp500.csv")  # in $FINDISTILL_DATA
_SECURITY = re.compile(  # the kind of security, after the company's name
    r"\s+(?:(?:class|series) [a-z]\b"
    r"|(?:common|ordinary|capital|preferred|preference|depositary|subordinate voting) (?:stock|shares?|units?)"
    r"|american deposit[ao]ry|new york registry|registered shares|depositary|shares of beneficial|common units"
    r"|warrants?$|units?$|units representing|rights?$|\d+(?:\.\d+)?%|fixed|floating|notes due|trust preferred).*",
    re.IGNORECASE,
)
_BRACKETS = re.compile(r"\s*\([^)]*\)\s*")
_WORD = re.compile(r"(?:[A-Za-z]\.){2,}|\w+|&")  # initials and dotted legal forms are one word, `JP` and `SA`
_GAP = re.compile(r"[\s.'’/-]{0,2}")  # between the words of one name
_FORMS = ("inc", "incorporated", "corp", "corporation", "co", "company", "ltd", "limited", "plc", "llc")  # extend a mention
_LEGAL = (*_FORMS, "llp", "lp", "nv", "sa", "ag", "se", "spa", "ab", "asa", "oyj", "kgaa", "gmbh", "bv", "pvt", "trust", "reit")
_COMMON = ("holdings", "holding", "group", "companies")  # also omitted in headlines


class CompanyList:
    """Marks the names of a list in texts. A `SpanModel` (`findistill.inference.spans`)."""

    def __init__(self, names: Iterable[str], label: str = COMPANY) -> None:
        self.label = label
        self._by_first: dict[str, list[tuple[str, ...]]] = {}
        for words in sorted({words for name in names for words in variants(name)}, key=lambda words: (-len(words), words)):
            self._by_first.setdefault(words[0].casefold(), []).append(words)

    def __len__(self) -> int:
        """The number of name variants, with and without legal form."""
        return sum(map(len, self._by_first.values()))

    def spans(self, texts: Sequence[str]) -> list[list[Span]]:
        """The mentions in each text, in order; none overlap."""
        return [[*self._mentions(text)] for text in texts]

    def _mentions(self, text: str) -> Iterator[Span]:
        words = _words_of(text)
        joined = [bool(_GAP.fullmatch(text, end, start)) for (_, _, end), (_, start, _) in pairwise(words)]
        at = 0
        while at < len(words):
            length = self._longest(words, joined, at)
            last = at + max(length, 1) - 1
            if length:
                while last + 1 < len(words) and joined[last] and words[last + 1][0].casefold() in _FORMS:
                    last += 1
                yield Span(words[at][1], words[last][2], self.label)
            at = last + 1

    def _longest(self, words: Sequence[tuple[str, int, int]], joined: Sequence[bool], at: int) -> int:
        """The number of words of the longest name that starts at this word; 0 if none does."""
        for name in self._by_first.get(words[at][0].casefold(), ()):
            end = at + len(name)
            if end <= len(words) and all(joined[at : end - 1]) and _is_written_so([word for word, _, _ in words[at:end]], name):
                return len(name)
        return 0


def variants(name: str) -> Iterator[tuple[str, ...]]:
    """The words of each variant of a name: without the kind of security, then without legal form, `Group` and `Holdings`."""
    name = _SECURITY.sub("", _BRACKETS.sub(" ", name).strip())
    words, fewest = [word for word, _, _ in _words_of(name.removeprefix("The "))], 2
    while words:
        if len(words) > 1 or (len(words[0]) >= fewest and words[0].casefold() not in _LEGAL and _is_short_name(words[0])):
            yield tuple(words)
        if len(words) == 1 or (last := words[-1].casefold()) not in (*_LEGAL, *_COMMON, "&"):
            return
        fewest = 4 if last in _COMMON else fewest  # `Q2` of `Q2 Holdings` is not a name
        words = words[:-1]


def _words_of(text: str) -> list[tuple[str, int, int]]:
    """The words, and where each begins and ends."""
    return [(match.group().replace(".", ""), match.start(), match.end()) for match in _WORD.finditer(text)]


def _is_short_name(word: str) -> bool:
    """Whether a single word may be a name; one of two characters must be in capitals or have a digit (`HP`, `3M`)."""
    return len(word) > 2 or word.isupper() or not word.isalpha()


def _is_written_so(words: Sequence[str], name: Sequence[str]) -> bool:
    """Whether words in a text are this name: spelled the same, in capitals, or, if there are several, each capitalised."""
    if list(words) == list(name) or [word.upper() for word in name] == list(words):
        return True
    pairs = [*zip(words, name, strict=True)]
    return len(name) > 1 and all(
        word.casefold() == own.casefold() and (word[0].isupper() or not own[0].isupper()) for word, own in pairs
    )


def list_files(path: str | None) -> list[Path]:
    """The files of the list: `path`, or those in `$FINDISTILL_DATA`. Raises UserError if there are none."""
    if path:
        return [Path(path).expanduser()]
    if files := files_in(FOLDER, FILES):
        return files
    raise UserError(
        f"the company list needs names: set FINDISTILL_DATA to a folder that holds {FOLDER}/, "
        "or entities.company_list.path to your own CSV file"
    )


def read_names(files: Sequence[Path], name_column: str = "name") -> list[str]:
    """The names in these CSV files. Raises UserError if one cannot be read or has no such column."""
    names: list[str] = []
    for path in files:
        rows = read_csv(path)
        if name_column not in rows[0]:
            columns = [*rows[0]]
            suggestion = did_you_mean(name_column, known=columns)
            raise UserError(f"{path} has no column {name_column!r}{suggestion}; its columns are {', '.join(columns)}")
        names += [row[name_column] for row in rows if row[name_column].strip()]
    return names
