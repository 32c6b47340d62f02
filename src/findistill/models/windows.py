"""Texts as windows of tokens, and which token stands for which word: the input of models that label words.

A text that is longer than a window is split into several that overlap by half, so that every word has context on both sides;
the window with the most context around a word decides about it. A word is represented by its first token.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from findistill.data.spans import Offsets, Span, from_words, pieces, to_words, without_overlaps
from findistill.data.spans import words as gliner_words
from findistill.errors import UserError
from findistill.models.special_tokens import SpecialTokens
from findistill.models.tokens import TEXTS_AT_ONCE, Tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Windows:
    """n texts in m windows, m >= n.

    Attributes:
        tokens: of the windows, special tokens included.
        words: the words of each text, by their offsets. Characters that the tokenizer drops are in none.
        text: (m,) int64, the text that each window belongs to.
        word: for each window, the indexes of its words in their text, int64.
        place: for each window, the position of each such word's first token in it, int64.
        decides: for each window, whether it decides about each such word, bool.
    """

    tokens: Tokens
    words: list[list[Offsets]]
    text: np.ndarray
    word: list[np.ndarray]
    place: list[np.ndarray]
    decides: list[np.ndarray]

    def __len__(self) -> int:
        return len(self.tokens)

    def targets(self, values: Sequence[np.ndarray], missing: int) -> np.ndarray:
        """Values of each text's words at their first tokens, aligned with `tokens.flat`, int64; `missing` elsewhere."""
        flat = np.full(len(self.tokens.flat), missing, np.int64)
        for number, (word, place) in enumerate(zip(self.word, self.place, strict=True)):
            flat[self.tokens.offsets[number] + place] = values[self.text[number]][word]
        return flat

    def by_text(self, values: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Values of the words of each window, regrouped as those of the words of each text."""
        own = [value[decides] for value, decides in zip(values, self.decides, strict=True)]
        starts = np.searchsorted(self.text, np.arange(len(self.words) + 1))
        return [own[first] if end - first == 1 else np.concatenate(own[first:end]) for first, end in pairwise(starts)]


@dataclass(frozen=True)
class Cut:
    """A window from `start` to `end` of a sequence, which decides about positions `first` to `last`; ends are exclusive."""

    start: int
    end: int
    first: int
    last: int


def cuts(length: int, room: int) -> list[Cut]:
    """Windows of at most `room` positions over a sequence; the one with a position nearest its middle decides about it."""
    half = max(1, room // 2)
    starts = [0] if length <= room else list(range(0, length - room + half, half))
    borders = [0, *(start + (room - half) // 2 for start in starts[1:]), length]
    return [Cut(start, min(start + room, length), *borders[at : at + 2]) for at, start in enumerate(starts)]


Predicted = list[tuple[int, int, str, float]]  # of a window: first word, last word, label, probability


@dataclass(frozen=True)
class WordWindows:
    """Texts as windows of words, for span models: `words` of each text; for each window, its text and its place there."""

    words: list[list[Offsets]]
    text: list[int]
    cut: list[Cut]

    @classmethod
    def of(cls, texts: Sequence[str], max_length: int, split: Callable[[str], list[Offsets]] = gliner_words) -> "WordWindows":
        by_text = [split(text) for text in texts]
        pairs = [(number, cut) for number, own in enumerate(by_text) if own for cut in cuts(len(own), max_length)]
        return cls(by_text, [number for number, _ in pairs], [cut for _, cut in pairs])

    def __len__(self) -> int:
        return len(self.text)

    @property
    def lengths(self) -> np.ndarray:
        """(windows,) words of each."""
        return np.asarray([cut.end - cut.start for cut in self.cut], np.int64)

    def example(
        self, window: int, texts: Sequence[str], spans: Sequence[Span] = (), wording: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """A window in GLiNER's format: its words, and the spans that lie within it as word indexes with their prompts."""
        text, cut = self.text[window], self.cut[window]
        own = self.words[text][cut.start : cut.end]
        inside = [span for span in spans if own[0][0] <= span.start and span.end <= own[-1][1]]
        entities = [(first, last, (wording or {})[label]) for first, last, label in to_words(inside, own)]
        return {"tokenized_text": [texts[text][start:end] for start, end in own], "ner": entities}

    def spans(self, predicted: Sequence[Predicted], threshold: float) -> list[list[Span]]:
        """Spans of each text from those of each window above the threshold.

        A window decides about a span if it decides about the middle of it.
        """
        by_text: list[list[Span]] = [[] for _ in self.words]
        for text, cut, own in zip(self.text, self.cut, predicted, strict=True):
            words = [
                (first + cut.start, last + cut.start, label)
                for first, last, label, probability in own
                if probability > threshold and cut.first <= cut.start + (first + last) // 2 < cut.last
            ]
            by_text[text] += from_words(words, self.words[text])
        return [without_overlaps(own) for own in by_text]


def windows(tokenizer: "PreTrainedTokenizerBase", texts: Sequence[str], max_length: int) -> Windows:
    """The texts in windows of at most `max_length` tokens. A special token that is written in a text is text.

    Raises:
        UserError: the tokenizer does not say which characters a token stands for.
    """
    if not tokenizer.is_fast:
        raise UserError(
            f"the tokenizer {type(tokenizer).__name__} is written in Python and has no token offsets; "
            "entities need a fast tokenizer (tokenizer.json)"
        )
    before, after = _around(tokenizer)
    room = max_length - len(before) - len(after)
    ids: list[np.ndarray] = []
    by_text: list[list[Offsets]] = []
    text_of, word_of, places, decides = [], [], [], []
    for start in range(0, len(texts), TEXTS_AT_ONCE):
        part = texts[start : start + TEXTS_AT_ONCE]
        for number, (text, own, offsets) in enumerate(zip(part, *_encoded(tokenizer, part), strict=True), start):
            whole = pieces(text)
            first = _first_tokens(whole, offsets)
            mask = first >= 0
            by_text.append([word for word, there in zip(whole, mask, strict=True) if there])
            first = first[mask]
            for cut in cuts(len(own), room):
                inside = np.flatnonzero((first >= cut.start) & (first < cut.end))
                ids.append(np.concatenate([before, own[cut.start : cut.end], after]))
                text_of.append(number)
                word_of.append(inside)
                places.append(first[inside] - cut.start + len(before))
                decides.append((first[inside] >= cut.first) & (first[inside] < cut.last))
    lengths = np.asarray([len(row) for row in ids], dtype=np.int64)
    flat = np.concatenate(ids) if ids else np.empty(0, np.int32)
    tokens = Tokens(flat, np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64), tokenizer.pad_token_id or 0)
    return Windows(tokens, by_text, np.asarray(text_of, np.int64), word_of, places, decides)


def _around(tokenizer: "PreTrainedTokenizerBase") -> tuple[np.ndarray, np.ndarray]:
    """The special tokens before and after a text, int32."""
    with_text = tokenizer("a", return_special_tokens_mask=True)
    own = [at for at, special in enumerate(with_text["special_tokens_mask"]) if not special]
    ids = np.asarray(with_text["input_ids"], np.int32)
    return ids[: own[0]], ids[own[-1] + 1 :]


def _encoded(tokenizer: "PreTrainedTokenizerBase", texts: Sequence[str]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Token ids of each text and their offsets (n, 2), without special tokens around it."""
    encoded = tokenizer(
        list(texts), add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True, truncation=False,
        return_attention_mask=False, return_token_type_ids=False, verbose=False,
    )  # fmt: skip
    special = np.asarray(sorted(SpecialTokens.of(tokenizer).ids), np.int32)
    ids, offsets = [], []
    for row, places in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True):
        own, where = np.asarray(row, np.int32), np.asarray(places, np.int64).reshape(-1, 2)
        plain = ~np.isin(own, special)  # a tokenizer may also have them as pieces of its vocabulary
        ids.append(own[plain])
        offsets.append(where[plain])
    return ids, offsets


def _first_tokens(words: Sequence[Offsets], offsets: np.ndarray) -> np.ndarray:
    """The first token of each word, (words,) int64; -1 for a word without one."""
    if not words or not len(offsets):
        return np.full(len(words), -1)
    starts, ends = np.asarray(words, np.int64).T
    first = np.searchsorted(np.maximum.accumulate(offsets[:, 1]), starts, side="right")
    there = first < len(offsets)
    there[there] = offsets[first[there], 0] < ends[there]
    return np.where(there, first, -1)
