"""Which new texts may become training texts: well formed, new, and far from everything that measures a model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from findistill.data.similarity import closest, distinct, similarity

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

LEAK = 90  # edit similarity to a validation or test text at which a row goes; no setting, for it keeps tests honest


@dataclass
class Screening:
    """New texts on their way through the filters.

    `left` has the columns id, text (None: there is none), method, source_id and echo; filters take rows away and note how
    similar the others are. What is taken away is in `gone`, with its `reason`.
    """

    left: "pd.DataFrame"
    gone: "list[pd.DataFrame]" = field(default_factory=list)

    def drop(self, which: "np.ndarray | pd.Series[bool]", reason: str) -> None:
        self.gone.append(self.left[which].assign(reason=reason))
        self.left = self.left[~which].reset_index(drop=True)

    @property
    def texts(self) -> list[str]:
        return self.left["text"].tolist()

    def well_formed(self, min_words: int, max_words: int) -> None:
        """Drop what is no text, repeats its prompt, or is too short or long (copies by `words` are as long as the data's)."""
        self.drop(self.left["text"].isna(), "unreadable")
        self.drop(self.left["echo"].eq(True), "echo of the prompt")
        words = self.left["text"].map(lambda text: len(text.split())).astype(int)
        self.drop(((words < min_words) | (words > max_words)) & (self.left["method"] != "words"), "length")

    def far_from(self, held: Mapping[str, Sequence[str]]) -> None:
        """Drop rows within `LEAK` of a held-out text; `similarity_<set>` tells how close the others come."""
        for name, texts in held.items():
            near = closest(self.texts, texts)
            self.left = self.left.assign(**{f"similarity_{name}": near})
            self.drop(near >= LEAK, f"close to a {name} text")

    def new(self, sources: Mapping[str, str], training: Sequence[str], limit: float) -> None:
        """Drop rows with a similarity of `limit` or more to a training text or to another new one, of which the first stays.

        `similarity_train` and `similarity_source` (to the text it was made from, by id in `sources`) are noted.
        """
        near = closest(self.texts, training)
        pairs = zip(self.left["text"], self.left["source_id"], strict=True)
        self.left = self.left.assign(
            similarity_source=[similarity(text, sources[of]) for text, of in pairs], similarity_train=near
        )
        self.drop(near >= limit, "close to a training text")
        self.drop(~distinct(self.texts, limit), "close to another new text")
