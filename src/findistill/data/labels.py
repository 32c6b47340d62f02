"""Label sets: which labels there are, in which order, and how each is worded in prompts."""

from dataclasses import dataclass

from findistill.errors import UserError

OWN_NAMES = "names"  # the wording for label sets of one's own: each label is its own word
WORDINGS: dict[str, dict[str, str]] = {
    "sentiment": {"negative": "negative", "neutral": "neutral", "positive": "positive"},
    "market": {"negative": "bearish", "neutral": "neutral", "positive": "bullish"},
    "movement": {"negative": "down", "neutral": "unsure", "positive": "up"},
}


@dataclass(frozen=True)
class LabelSet:
    """Ordered label names. The order is that of the columns everywhere; labels are matched by name, never by position.

    Raises:
        UserError: fewer than two names, an empty name, or a name that occurs twice.
    """

    names: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.names) < 2 or len(set(self.names)) < len(self.names) or not all(n.strip() for n in self.names):
            raise UserError(
                f"data.labels={list(self.names)}: give at least two different, non-empty names, "
                "such as data.labels=[negative,neutral,positive]"
            )

    def __len__(self) -> int:
        return len(self.names)

    def index(self, name: str) -> int:
        """The column of a label. Raises UserError for a label that is not in the set."""
        try:
            return self.names.index(name)
        except ValueError:
            raise UserError(f"unknown label {name!r}: the labels are {', '.join(self.names)} (data.labels)") from None

    def words(self, wording: str) -> dict[str, str]:
        """Label name -> its word in prompts, in the order of the set.

        `wording` is `sentiment` (negative, neutral, positive), `market` (bearish, neutral, bullish), `movement` (down,
        unsure, up), or `names`: every label as it is spelled. Raises UserError for another wording and for a label
        without a word in it.
        """
        if wording == OWN_NAMES:
            return {name: name for name in self.names}
        if wording not in WORDINGS:
            raise UserError(f"prompt.wording={wording}: unknown; choose from {', '.join([*WORDINGS, OWN_NAMES])}")
        words = WORDINGS[wording]
        for name in self.names:
            if name not in words:
                raise UserError(
                    f"prompt.wording={wording} has no word for the label {name!r} of data.labels; "
                    f"prompt.wording={OWN_NAMES} uses the labels' own names"
                )
        return {name: words[name] for name in self.names}
