"""Parse the entity mentions that a response lists, in JSON or in what language models write instead.

Accepted are prose and code fences around it, single or curly quotes, trailing commas; a list of names, of objects or of names
by type; or lines that begin with a type (`Companies: Acme, Bolt`). Truncated answers do not count, nor do two that differ.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from findistill.llm import answers
from findistill.llm.entity_types import EntityTypes
from findistill.llm.text import one_line, read_json

MOST_VALUES = 16  # JSON values in one response
MOST_NAMES = 1000  # in one list
LONGEST_KIND = 60  # characters of a type at the beginning of a line

_FORM = ("name", "form", "text", "surface", "surface_form", "mention", "span", "entity", "word")
_TYPE = ("type", "label", "category", "entity_type", "tag", "class", "entity_group")
_RESULT = ("result", "results", "entities", "mentions", "names", "answer", "output")
_NORMAL = re.compile(r"normali[sz]ed|canonical")
_QUOTES = {"'": "'", '"': '"', "“": "”", "‘": "’", "`": "`"}
_BETWEEN_NAMES = re.compile(r",(?!\s*(?:Inc|Ltd|LLC|Corp|Co|PLC|AG|SA)\b)", re.IGNORECASE)
_COMMA = re.compile(r",(?=\s*[\]}])")


@dataclass(frozen=True)
class Mention:
    """A surface form, the label of its type, and the entity's usual name if the response gives it."""

    form: str
    label: str
    normalized: str | None = None


@dataclass(frozen=True)
class Mentions:
    """The mentions that a response lists, without duplicates.

    Attributes:
        unmatched: it has more or fewer normalised names than forms, so none of them is used.
        other: types that are not among the data's labels.
    """

    mentions: tuple[Mention, ...] = ()
    unmatched: bool = False
    other: tuple[str, ...] = ()


def read(response: str, types: EntityTypes, text_header: str, *, cut: bool = False) -> Mentions | None:
    """The mentions that a response lists; None if it has no list, two that differ, or an incomplete one.

    Args:
        text_header: where a completion continues with the next text of the prompt, its answer has ended.
        cut: it ended at a token limit, so only a complete list counts.
    """
    text = answers.visible(response[: answers.LONGEST])
    if text is None:
        return None
    text = re.split(rf"\n\s*{re.escape(text_header)}", text, maxsplit=1)[0]
    values = list(_values(text))
    readings = [each for each in (_mentions(value, types) for value in values) if each is not None]
    if not readings and values and all(map(_is_object, values)) and not (cut or unfinished(text)):  # one object per line
        readings = [each for each in [_of_list(values, [], types)] if each is not None]
    return readings[0] if len({frozenset((one.form, one.label) for one in each.mentions) for each in readings}) == 1 else None


def read_lines(response: str, types: EntityTypes) -> Mentions | None:
    """The mentions of a response without JSON, from lines of a type and its names; None if there are none."""
    items: list[tuple[str, str]] = []
    other: list[str] = []
    headed = False
    text = answers.visible(response[: answers.LONGEST]) or ""
    if unfinished(text) or any(True for _ in _values(text)):
        return None
    for line in re.split(r"[\n;]", text)[:MOST_NAMES]:
        kind, colon, names_part = line.partition(":")
        tag = types.tag(kind.strip(" -–—>+")) if colon and len(kind) < LONGEST_KIND else None
        if tag is None or not (tag.label or tag.other):
            continue
        headed = True
        names = [name.strip(answers.EDGE) for name in _BETWEEN_NAMES.split(names_part)]
        names = [name for name in names if name and types.tag(name) is None]
        items += [(name, tag.label) for name in names if tag.label]
        other += [tag.other for _ in names if tag.other]
    return replace(_of_items(items, [], types), other=tuple(other)) if headed else None


def unfinished(response: str) -> bool:
    """Whether a response breaks off inside a list or an object."""
    return any(response.count(opened) > response.count(closed) for opened, closed in ("{}", "[]"))


# -- JSON --------------------------------------------------------------------------------------------------------------


def _values(text: str) -> Iterator[Any]:
    """The objects and lists in a text, outer ones only."""
    decoder, at = json.JSONDecoder(), 0
    for _ in range(MOST_VALUES):
        start = re.compile(r"[{\[]").search(text, at)
        if start is None:
            return
        try:
            value, at = decoder.raw_decode(text, start.start())
        except (ValueError, RecursionError):
            end = _closing(text, start.start())
            if end is None:
                return
            value, at = _lenient(text[start.start() : end]), end
        if isinstance(value, dict | list):
            yield value


def _closing(text: str, start: int) -> int | None:
    """Where the bracket at `start` is closed, found by counting brackets; None if it is not."""
    depth = 0
    for match in re.compile(r"[{}\[\]]").finditer(text, start):
        depth += 1 if match.group() in "{[" else -1
        if not depth:
            return match.end()
    return None


def _lenient(text: str) -> Any:
    """The value of near-JSON; None if it cannot be parsed."""
    strict = _COMMA.sub("", _double_quoted(text))
    value = read_json(strict)
    return read_json(re.sub(r"\bNone\b", "null", strict)) if value is None else value


def _double_quoted(text: str) -> str:
    """The text with all its strings in JSON's quotes; a string ends where a comma, a colon or a bracket follows."""
    parts, at = [], 0
    for opening in re.compile(r"(?<=[\[{,:])\s*([\"'“‘`])").finditer(text):
        if opening.start() < at:
            continue
        close = re.compile(re.escape(_QUOTES[opening[1]]) + r"(?=\s*(?:[\]}:]|,\s*[\"'“‘`\]}{\[]|,?\s*(?:null|None)\b))").search(
            text, opening.end()
        )
        if close is None:
            continue
        content = text[opening.end() : close.start()]
        escaped = re.sub(r"\\(['’‘“”`\"])", r"\1", content).replace('"', '\\"')
        parts += [text[at : opening.start()], f'"{escaped}"']
        at = close.end()
    return "".join([*parts, text[at:]])


# -- interpretation ----------------------------------------------------------------------------------------------------


def _mentions(value: Any, types: EntityTypes, depth: int = 3) -> Mentions | None:
    if isinstance(value, list):
        return _of_list(value, [], types)
    fields = {answers.key(str(name)): inner for name, inner in value.items()}
    normal = next((inner for name, inner in fields.items() if _NORMAL.match(name) and isinstance(inner, list)), [])
    named = next(
        (
            fields[name]
            for name in _RESULT
            if isinstance(fields.get(name), list | str) or (name in fields and fields[name] is None)
        ),
        fields,
    )
    if named is not fields:
        return _of_list(_as_list(named), normal, types)
    by_type = {label: inner for name, inner in fields.items() if (label := types.label(name)) and not isinstance(inner, dict)}
    if by_type:
        items = [(each, label) for label, inner in by_type.items() for each in _as_list(inner)]
        return _of_items(items, normal, types)
    if fields and all(isinstance(inner, str) and types.tag(inner) for inner in fields.values()):  # name -> type
        return _of_items([({"name": name, "type": inner}, None) for name, inner in value.items()], [], types)
    lists = [inner for name, inner in fields.items() if isinstance(inner, list) and not _NORMAL.match(name)]
    if len(lists) == 1 and len(types.words) == 1:
        return _of_list(lists[0], normal, types)
    inside = [inner for inner in fields.values() if isinstance(inner, dict)]
    return _mentions(inside[0], types, depth - 1) if len(inside) == 1 and depth else None


def _as_list(value: Any) -> list[Any]:
    if isinstance(value, str):
        return [value] if value.strip() else []
    return value if isinstance(value, list) else []


def _of_list(values: list[Any], normal: list[Any], types: EntityTypes) -> Mentions | None:
    """The mentions of a list of names, if there is only one type, or of objects."""
    labels = list(types.words)
    only = labels[0] if len(labels) == 1 else None
    if any(not (isinstance(each, str) or each is None or _is_object(each)) for each in values):
        return None
    if only is None and any(isinstance(each, str) for each in values):
        return None
    return _of_items([(each, only) for each in values], normal, types)


def _of_items(items: Sequence[tuple[Any, str | None]], normal: list[Any], types: EntityTypes) -> Mentions:
    unmatched = bool(normal) and len(normal) != len(items)
    names = normal if normal and not unmatched else [None] * len(items)
    mentions: dict[tuple[str, str], Mention] = {}
    other = []
    for (item, label), name in list(zip(items, names, strict=True))[:MOST_NAMES]:
        form: Any = item
        if isinstance(item, Mapping):
            fields = {answers.key(str(key)): value for key, value in item.items()}
            form = next((fields[key] for key in _FORM if isinstance(fields.get(key), str)), None)
            kind = next((fields[key] for key in _TYPE if isinstance(fields.get(key), str)), None)
            name = next((value for key, value in fields.items() if _NORMAL.match(key)), name)
            if form is None:
                form = next((value for key, value in fields.items() if types.label(key) and isinstance(value, str)), None)
            if kind is not None and (label := types.label(kind)) is None:
                other.append(one_line(kind))
                continue
        if not isinstance(form, str) or not form.strip() or label is None:
            continue
        form = one_line(form)
        normalized = one_line(name) if isinstance(name, str) and name.strip() else None
        mentions.setdefault((form, label), Mention(form, label, normalized))
    return Mentions(tuple(mentions.values()), unmatched, tuple(other))


def _is_object(value: Any) -> bool:
    if not isinstance(value, Mapping):
        return False
    return any(answers.key(str(key)) in (*_FORM, *_TYPE) and isinstance(inner, str) for key, inner in value.items())
