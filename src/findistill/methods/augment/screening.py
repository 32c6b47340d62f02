"""Which new texts may become training texts: well formed, new, and far from all validation and test texts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from findistill.data.similarity import closest, distinct, similarity

LEAK = 90  # edit similarity to a validation or test text at which a row is dropped; no setting, as it prevents leaks


@dataclass
class Screening:
    """New texts and the filters that they go through.

    `rows` has the columns id, text (None: unreadable), method, source_id and echo; filters remove rows and record the
    similarities of the others. Removed rows are in `dropped`, with the `reason`.
    """

    rows: pd.DataFrame
    dropped: list[pd.DataFrame] = field(default_factory=list)

    def drop(self, which: "np.ndarray | pd.Series[bool]", reason: str) -> None:
        self.dropped.append(self.rows[which].assign(reason=reason))
        self.rows = self.rows[~which].reset_index(drop=True)

    @property
    def texts(self) -> list[str]:
        return self.rows["text"].tolist()

    def well_formed(self, min_words: int, max_words: int) -> None:
        """Drop missing texts, echoes of the prompt, and texts that are too short or long (except copies by `words`)."""
        self.drop(self.rows["text"].isna(), "unreadable")
        self.drop(self.rows["echo"].eq(True), "echo of the prompt")
        words = self.rows["text"].map(lambda text: len(text.split())).astype(int)
        self.drop(((words < min_words) | (words > max_words)) & (self.rows["method"] != "words"), "length")

    def far_from(self, held_out: Mapping[str, Sequence[str]]) -> None:
        """Drop rows with a similarity of `LEAK` or more to a held-out text; `similarity_<set>` has that of the others."""
        for name, texts in held_out.items():
            near = closest(self.texts, texts)
            self.rows = self.rows.assign(**{f"similarity_{name}": near})
            self.drop(near >= LEAK, f"close to a {name} text")

    def new(self, sources: Mapping[str, str], training: Sequence[str], limit: float) -> None:
        """Drop rows with a similarity of `limit` or more to a training text or to an earlier new text.

        Records `similarity_train` and `similarity_source` (to the source text, by id in `sources`).
        """
        near, pairs = closest(self.texts, training), zip(self.rows["text"], self.rows["source_id"], strict=True)
        to_source = [similarity(text, sources[source]) for text, source in pairs]
        self.rows = self.rows.assign(similarity_source=to_source, similarity_train=near)
        self.drop(near >= limit, "close to a training text")
        self.drop(~distinct(self.texts, limit), "close to another new text")
