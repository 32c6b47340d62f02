"""Names of entity types as they appear in answers: `companies`, `ORG`, `Organisation_B`, `B-PER`."""

import re
from collections.abc import Mapping
from functools import cached_property
from typing import NamedTuple

from findistill.llm.answers import canonical

# Synonyms of one type, from annotation schemes and in British and American spelling.
_ALIASES = (
    ("person", "per", "people", "individual"),
    ("location", "loc", "place", "gpe"),
    ("organization", "organisation", "org"),
    ("company", "corporation", "firm"),
    ("miscellaneous", "misc"),
)
_WORDS = {"per": "person", "loc": "location", "org": "organization", "misc": "other name"}
_OUTSIDE = ("o", "other", "none", "outside", "null", "n/a")
_TAG = re.compile(r"(?:(?P<before>[bieslu]) )?(?P<type>.+?)(?: (?P<after>[bieslu]))?")  # in canonical form: separators are spaces


class Tag(NamedTuple):
    """A token's tag: `B` or `I` of a label, or `O`; `other` is a type that is not among the labels."""

    prefix: str
    label: str | None = None
    other: str = ""


def word(label: str) -> str:
    """The default word for a label in prompts: its name, or what an abbreviation such as `ORG` stands for."""
    return _WORDS.get(label.lower(), label)


class EntityTypes:
    """Maps names of types in answers to the data's labels.

    Args:
        words: label -> the word for it in prompts.
        label_map: further names in answers -> labels, `{Organisation: company}`.
    """

    def __init__(self, words: Mapping[str, str], label_map: Mapping[str, str] | None = None) -> None:
        self.words = dict(words)
        self._label_map = {_singular(canonical(str(name))): str(label) for name, label in (label_map or {}).items()}

    def label(self, name: str) -> str | None:
        """The label that a name stands for, whatever its case and number; None if it stands for none."""
        return self._names.get(_singular(canonical(name)))

    def tag(self, tag: str) -> Tag | None:
        """What a token's tag stands for; None if it is not a tag.

        A type alone counts as `I`: it continues a mention of the type, or begins one. A type that is not among the labels is
        outside any mention.
        """
        name = canonical(tag)
        if name in _OUTSIDE:
            return Tag("O")
        match = _TAG.fullmatch(name)
        if match is None:
            return None
        kind = _singular(match["type"])
        begins = (match["before"] or match["after"]) in ("b", "s", "u")
        if label := self._names.get(kind):
            return Tag("B" if begins else "I", label)
        if kind in _OUTSIDE:
            return Tag("O")
        return Tag("O", other=kind) if kind in _KNOWN else None

    @cached_property
    def _names(self) -> dict[str, str]:
        names: dict[str, str] = {}
        for label, word in self.words.items():
            own = {_singular(canonical(label)), _singular(canonical(word))}
            for group in _ALIASES:
                own |= set(group) if own & set(group) else set()
            names |= {name: label for name in own if name not in names}
        return names | self._label_map


def _singular(name: str) -> str:
    if name.endswith("ies") and len(name) > 4:
        return f"{name[:-3]}y"
    return name[:-1] if name.endswith("s") and not name.endswith("ss") and len(name) > 3 else name


_KNOWN = frozenset(name for group in _ALIASES for name in group)
