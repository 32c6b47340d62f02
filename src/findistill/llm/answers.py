"""Read the label that a response names: exact values in JSON, the longest match in text; for any label set and script.

A model's reasoning is not part of its answer. An answer that was cut off, or that names no label or several, is not a vote.
"""

import ast
import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from findistill.llm.text import read_json

LONGEST = 1 << 16  # characters of a response that are read
LONGEST_LITERAL = 2000  # characters of a Python literal
MOST_FIELDS = 200  # values of a JSON object that are examined
NESTED = 5  # levels of it that are examined

# Scripts without spaces between words, in which a label may be surrounded by letters.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
    "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff"
)
_LETTER = rf"[^\W_{_UNSPACED}]"  # of a script with spaces, or a digit
EDGE = " \t\n\r\"'`*_#~|.,;:!?()[]{}<>«»“”„‘’‚‹›…。、「」『』【】《》〈〉؟،؛·•\\"  # quotes, brackets, markup, punctuation
_POINTS = re.compile("[\u0591-\u05c7\u0640\u064b-\u065f\u0670\ufe00-\ufe0f\u00ad]")  # vowel points, tatweel, variation selectors
_FORMAT = re.compile("[\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]")
_JOINT = re.compile(r"(?<=\w)[\s_\-]+(?=\w)")  # `very positive`, `very_positive` and `very-positive` are one label
_FENCE = re.compile(r"^\s*```\w*\s*$")
_THINKING = re.compile(
    r"<(/?)(?:think|thinking|thoughts?|reasoning|reflection|scratchpad)>|\[(/?)think\]|◁(/?)think▷"
    r"|<\|(?:begin_of_thought|(end_of_thought))\|>|<\|channel\|>(?:(?:analysis|commentary)|(final))<\|message\|>",
    re.IGNORECASE,
)
_JSON_LINE = re.compile(r"""^\s*(\{|["'][\w ]+["']\s*:)""")
_NUMBER = re.compile(r"[+-]?\d+(?:[.,]\d+)?")
_SCALE = re.compile(r"(?<=\d)\s*(?:/|out of|of|von|sur|de)\s*\d+(?:[.,]\d+)?")  # 4/5, 4 out of 5
# What follows a label that is the answer, rather than the beginning of a sentence about it.
_ENDS = re.compile(r"[\"'*_`)\]}>”»」』】]*\s*(?:$|[.;:!。]|[-–—]\s|\(|\[|(?:because|since|as|due to|weil|car|因为)\b)")
_NEGATED = re.compile(
    r"(?:(?<!\w)(?:not|no|never|neither|nor|without|cannot|nicht|kein\w{0,2}|weder|noch|pas|ni)|n't)(?:\s+(?!but|so|and|yet|rather|sondern|mais)\w+){0,2}\s+[\"'*_`(]*$"
    r"|(?<!\w)non[- ]$|(?:不是|并非|並非|绝非|絕非|不属于|不屬於|没有|沒有|[不非])$"
)


def visible(response: str) -> str | None:
    """A response without the model's reasoning; None if the reasoning does not end."""
    parts: list[str] = []
    start, thinking = 0, False
    for tag in _THINKING.finditer(response):
        if any(tag.groups()):
            if not thinking:  # the prompt opened it
                parts.clear()
            thinking = False
        else:
            if not thinking:
                parts.append(response[start : tag.start()])
            thinking = True
        start = tag.end()
    return None if thinking else "".join([*parts, response[start:]])


def normal(text: str) -> str:
    """The text in normalised Unicode, without case, vowel points and invisible marks; line breaks are kept."""
    if text.isascii():
        return text.lower()
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return _FORMAT.sub("", _POINTS.sub("", text)).replace("’", "'")


def canonical(word: str) -> str:
    """Equal for all spellings of a label: ignores case, Unicode form, surrounding punctuation and how words are joined."""
    word = normal(word)
    return _JOINT.sub(" ", word.strip(EDGE)) or word.strip()


def key(header: str) -> str:
    """The JSON key for a header: `Opinion:` -> `opinion`."""
    return re.sub(r"\W+", "_", header.strip().rstrip(":：").lower()).strip("_")


def json_object(response: str) -> tuple[dict[str, Any] | None, str]:
    """The JSON object in a response, keys lower-cased, and the text around it; None if there is none that can be read."""
    end = response.rfind("}") + 1
    for start in dict.fromkeys((response.find("{"), response.rfind("{", 0, end))):
        if 0 <= start < end:
            text = response[start:end]
            value = read_json(text)
            value = _literal(text) if value is None else value
            if isinstance(value, dict):
                return {str(name).lower(): field for name, field in value.items()}, response[:start] + response[end:]
    return None, response


def _literal(text: str) -> Any:
    """The value of what models write instead of JSON: single quotes, trailing commas."""
    if len(text) > LONGEST_LITERAL or text.count("{") + text.count("[") + text.count("(") > MOST_FIELDS:
        return None
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None


@dataclass(frozen=True)
class AnswerReader:
    """Reads labels: `words` maps each label's name to its word; `header` precedes the label, `steps` the other lines."""

    words: Mapping[str, str]
    header: str
    steps: tuple[str, ...] = ()
    text_header: str = "Text:"

    def label(self, response: str, *, cut: bool = False) -> str | None:
        """The label's name, or None where the response names none or several.

        Args:
            cut: it ended at a token limit. Only a complete JSON object, or a complete line with only the label, counts.
        """
        text = visible(response[:LONGEST])
        if text is None:
            return None
        fields, rest = json_object(text)
        if fields is not None:
            values = {name for name in map(self._exact, self._values(fields)) if name}
            named = key(self.header) in {key(str(each)) for each in fields}
            if values or named:
                return values.pop() if len(values) == 1 else None
        return self._in_words(normal(rest), cut or len(response) > LONGEST)

    # -- JSON ----------------------------------------------------------------------------------------------------------

    def _values(self, fields: dict[str, Any]) -> Iterator[Any]:
        """The values that may be the label: those under its key at any depth, else all that are not under a step's key."""
        places = list(self._places(fields))
        own = [value for name, value in places if name == key(self.header)]
        steps = [key(step) for step in self.steps]
        return iter(own or [value for name, value in places if name not in steps])

    def _places(self, fields: dict[str, Any]) -> Iterator[tuple[str, Any]]:
        """Keys and scalar values, outer ones first."""
        places: list[tuple[str, Any, int]] = [("", fields, 0)]
        for name, value, depth in places:  # it grows meanwhile
            if isinstance(value, dict | list) and depth < NESTED:
                inner = value.items() if isinstance(value, dict) else ((name, each) for each in value)
                places += [(key(str(at)), each, depth + 1) for at, each in inner][: max(0, MOST_FIELDS - len(places))]
            elif not isinstance(value, dict | list):
                yield name, value

    def _exact(self, value: Any) -> str | None:
        if isinstance(value, bool):
            value = str(value).lower()
        elif isinstance(value, float) and value.is_integer():
            value = int(value)
        return self._names.get(canonical(str(value))) if isinstance(value, str | int) and len(str(value)) < LONGEST else None

    # -- words ---------------------------------------------------------------------------------------------------------

    def _in_words(self, text: str, cut: bool) -> str | None:
        """The label that lines declare, after its header or as their only content; else the one that the last line names.

        Without steps, the first line may be the answer, and the rest pleasantries. If the model continues with the next text
        of the prompt, only what precedes it counts.
        """
        whole = text.rpartition("\n")[0] if cut else text
        lines = [line for line in whole.split("\n") if line.strip() and not _FENCE.match(line)]
        end = next((n for n, line in enumerate(lines) if n and line.lstrip().startswith(self._next_text)), len(lines))
        lines = lines[:end]
        if not lines:
            return None
        declared = [label for label in (self._declared(lines, number, cut) for number in range(len(lines))) if label]
        if declared:
            ends_on_one = len(set(declared)) == 1 or self._declared(lines, len(lines) - 1, cut)
            return declared[-1] if ends_on_one else None
        # Truncated JSON names no label, and a step's line is not the answer.
        if cut or _JSON_LINE.match(lines[-1]) or lines[-1].lstrip(EDGE).startswith(self._step_headers):
            return None
        last = self._leading(lines[-1]) or self._named(lines[-1])
        if last or self.steps or len(lines) == 1 or self._mentioned(lines[-1]):
            return last
        return self._leading(lines[0]) or self._named(lines[0])

    def _declared(self, lines: list[str], number: int, strict: bool) -> str | None:
        line = lines[number]
        headers = list(self._header.finditer(line))
        if not headers:
            return self._exact(line)
        rest = line[headers[-1].end() :]
        if not rest.strip(EDGE) and number + 1 < len(lines):
            return None if self._header.search(lines[number + 1]) else self._exact(lines[number + 1])
        return self._exact(rest) or (None if strict else self._leading(rest) or self._named(rest))

    def _leading(self, text: str) -> str | None:
        """The label that the text begins with, if a sentence or a quotation ends after it."""
        text = self._unscaled(text.lstrip(EDGE))
        match = self._pattern.match(text)
        return self._name(match) if match and _ENDS.match(text, match.end()) else None

    def _named(self, text: str) -> str | None:
        """The only label in the text; a negated one does not count, and says nothing about the others."""
        text = self._unscaled(text)
        matches = [each for each in self._matches(text) if not _NEGATED.search(text[max(0, each.start() - 60) : each.start()])]
        named = {self._name(each) for each in matches}
        return named.pop() if len(named) == 1 else None

    def _mentioned(self, text: str) -> bool:
        """Whether the text names several labels, and is thus not just a pleasantry."""
        return len({self._name(each) for each in self._matches(self._unscaled(text))}) > 1

    def _matches(self, text: str) -> Iterator[re.Match[str]]:
        for match in self._pattern.finditer(text):
            if unicodedata.category(text[match.end() : match.end() + 1] or " ")[0] != "M":  # else the word continues
                yield match

    def _name(self, match: re.Match[str]) -> str:
        return self._names[canonical(match.group())]

    def _unscaled(self, text: str) -> str:
        return _SCALE.sub("", text) if self._numbers else text

    @cached_property
    def _names(self) -> dict[str, str]:
        return {canonical(word): name for name, word in self.words.items()}

    @cached_property
    def _numbers(self) -> bool:
        return all(_NUMBER.fullmatch(word) for word in self._names)

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        """Any of the words, the longest first."""
        return re.compile("|".join(map(_bounded, sorted(self._names, key=len, reverse=True))))

    @cached_property
    def _header(self) -> re.Pattern[str]:
        name = re.escape(normal(self.header).strip().rstrip(":").strip())
        return re.compile(rf"(?<![\w\"']){name}[*_`)\]\s]{{0,4}}[:=]")

    @cached_property
    def _step_headers(self) -> tuple[str, ...]:
        return tuple(normal(step).strip() for step in self.steps)

    @cached_property
    def _next_text(self) -> str:
        return normal(self.text_header).strip() or "\n"


def _bounded(word: str) -> str:
    """A pattern for a word that is not part of a longer word or number."""
    pattern = r"[\s_\-]+".join(map(re.escape, word.split(" ")))
    if re.match(_LETTER, word[0]):
        pattern = rf"(?<!{_LETTER}){pattern}"
    if word[0].isdigit():
        pattern = rf"(?<![-−])(?<!\d[.,]){pattern}"
    if re.match(_LETTER, word[-1]):
        pattern = rf"{pattern}(?!{_LETTER})"
    if word[-1].isdigit():
        pattern = rf"{pattern}(?!\s?%|[.,]\d|-\d)"
    return f"(?:{pattern})"
