"""Label sets: which labels there are, in which order, and how each is worded in prompts."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from findistill.config.overrides import typed
from findistill.errors import UserError

SENTIMENT = ("negative", "neutral", "positive")
COMPANY = "company"  # the default entity type
MOST_NAMES = 100  # in a column; more are ids, scores or texts
MOST_DISTINCT = 0.75  # names as a share of the labelled rows; again, more are ids, scores or texts
MOST_STEPS = 12  # distinct values of a rating with fractions
FEW_ROWS = 10  # with fewer, `MOST_DISTINCT` does not apply
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?")
OWN_NAMES = "names"  # the wording for custom label sets: each label is its own word
WORDINGS: dict[str, dict[str, str]] = {
    "sentiment": {"negative": "negative", "neutral": "neutral", "positive": "positive"},
    "market": {"negative": "bearish", "neutral": "neutral", "positive": "bullish"},
    "movement": {"negative": "down", "neutral": "unsure", "positive": "up"},
}


@dataclass(frozen=True)
class LabelSet:
    """Ordered label names. The order is that of the columns everywhere; labels are matched by name, never by position.

    Attributes:
        fewest: minimum number of names: two classes, or one entity type.

    Raises:
        UserError: fewer names, an empty name, or a duplicate.
    """

    names: tuple[str, ...]
    fewest: int = field(default=2, compare=False)

    def __post_init__(self) -> None:
        if len(self.names) < self.fewest or len(set(self.names)) < len(self.names) or not all(n.strip() for n in self.names):
            raise UserError(
                f"data.labels={list(self.names)}: give at least two different, non-empty names, "
                "such as data.labels=[negative,neutral,positive]"
                if self.fewest > 1
                else f"data.labels={list(self.names)}: give different, non-empty names, such as data.labels=[company]"
            )

    def __len__(self) -> int:
        return len(self.names)

    def index(self, name: str) -> int:
        """The column of a label. Raises UserError for a label that is not in the set."""
        try:
            return self.names.index(name)
        except ValueError:
            raise UserError(f"unknown label {name!r}: the labels are {', '.join(self.names)} (data.labels)") from None

    def words(self, wording: str | Mapping[str, str] | None) -> dict[str, str]:
        """Label name -> its word in prompts, in the order of the set.

        `wording` is `sentiment` (negative, neutral, positive), `market` (bearish, neutral, bullish), `movement` (down,
        unsure, up), or a custom mapping; None or `names`: every label as it is spelled. Raises UserError for any other
        wording and for a label without a word.
        """
        if wording is None or wording == OWN_NAMES:
            return {name: name for name in self.names}
        if not isinstance(wording, Mapping) and wording not in WORDINGS:
            raise UserError(f"prompt.wording={wording}: unknown; choose from {', '.join([*WORDINGS, OWN_NAMES])}")
        words = wording if isinstance(wording, Mapping) else WORDINGS[wording]
        for name in self.names:
            if name not in words:
                raise UserError(
                    f"prompt.wording={wording} has no word for the label {name!r} of data.labels; "
                    f"prompt.wording={OWN_NAMES} uses the labels' own names"
                )
        return {name: str(words[name]) for name in self.names}


def names_in(values: Sequence[str], what: str) -> tuple[str, ...]:
    """The distinct labels of a column: numbers first, by value, then the others in alphabetical order.

    Args:
        what: what the column belongs to, for the error.

    Raises:
        UserError: there is only one label, or too many for these to be labels.
    """
    names = sorted(set(values), key=lambda name: (0, float(name), name) if _NUMBER.fullmatch(name) else (1, 0.0, name))
    if len(names) == 1:
        raise UserError(
            f"{what}: all labelled rows have the label {names[0]!r}, but at least two classes are needed; "
            f"check data.label_column, or name the other labels, too: {typed('data.labels', _with_others(names[0]))}"
        )
    numbers = all(map(_NUMBER.fullmatch, names))
    scores = numbers and len(names) > MOST_STEPS and any("." in name for name in names)
    if scores or len(names) > MOST_NAMES or (len(values) >= FEW_ROWS and len(names) > MOST_DISTINCT * len(values)):
        what_else = "scores" if numbers else "ids or texts"
        examples = ", ".join(" ".join(f"{name[:30]}{'...' * (len(name) > 30)}".split()) for name in names[:3])
        raise UserError(
            f"{what}: {len(names):,} different labels in {len(values):,} labelled rows ({examples}, ...) look like {what_else}, "
            "not classes; check data.label_column, or name the labels in data.labels"
        )
    return tuple(names)


def _with_others(name: str) -> list[str]:
    return [*SENTIMENT] if name in SENTIMENT else [name, f"not {name}"]
