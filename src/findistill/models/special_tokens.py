"""Special tokens that are written in a text, such as `[SEP]` or `</s>`: they are treated as plain text."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def mark_pattern(marks: Iterable[str]) -> re.Pattern[str]:
    """Matches each of the marks, the longest one first; nothing if there are none."""
    return re.compile("|".join(map(re.escape, sorted(marks, key=len, reverse=True))) or r"(?!)")


def spaced(text: str, marks: re.Pattern[str]) -> str:
    """The text with a space inside each mark, so that it no longer is one: `</s>` as `< /s>`."""
    return marks.sub(lambda match: f"{match.group()[0]} {match.group()[1:]}".rstrip(), text)


@dataclass(frozen=True)
class SpecialTokens:
    """The special tokens of a tokenizer: how they are written, and their ids, except that of the unknown token."""

    marks: re.Pattern[str]
    first: frozenset[str]  # characters that they begin with
    ids: frozenset[int]
    added: int  # how many of them the tokenizer puts around a text

    @classmethod
    def of(cls, tokenizer: "PreTrainedTokenizerBase") -> "SpecialTokens":
        return _special_tokens(tokenizer, len(tokenizer))

    def occur_in(self, texts: Sequence[str]) -> bool:
        """Whether one of them is written in a text."""
        return any(any(each in text for each in self.first) and self.marks.search(text) for text in texts)

    def count(self, ids: Sequence[int]) -> int:
        return sum(map(self.ids.__contains__, ids))


@lru_cache(maxsize=8)
def _special_tokens(tokenizer: "PreTrainedTokenizerBase", size: int) -> SpecialTokens:
    """`size` is part of the cache key, since tokens can be added to a tokenizer."""
    written = {number: str(token) for number, token in tokenizer.added_tokens_decoder.items() if token.special and str(token)}
    named = [number for number in tokenizer.all_special_ids if number is not None]  # None: it is not in the vocabulary
    written |= {number: token for number in named if (token := tokenizer.convert_ids_to_tokens(number))}
    ids = frozenset(written) - {tokenizer.unk_token_id}
    first = frozenset(token[0] for token in written.values())
    return SpecialTokens(mark_pattern(written.values()), first, ids, sum(each in ids for each in tokenizer("")["input_ids"]))


def encode_plain(tokenizer: "PreTrainedTokenizerBase", texts: Sequence[str], max_length: int) -> list[list[int]]:
    """Token ids of the texts, truncated at `max_length`; the only special tokens are those that the tokenizer adds around them.

    Those that are written in a text are split into ordinary pieces. Some tokenizers also have them as pieces of their
    vocabulary: then a space is put inside, and any special token that remains is dropped.
    """
    special, settings = SpecialTokens.of(tokenizer), {"truncation": True, "max_length": max_length, "split_special_tokens": True}
    encoded = tokenizer(list(texts), **settings, return_attention_mask=False, return_token_type_ids=False)
    rows: list[list[int]] = encoded["input_ids"]
    for number, row in enumerate(rows):
        if special.count(row) > special.added:
            again = tokenizer(spaced(texts[number], special.marks), **settings, return_special_tokens_mask=True)
            pairs = zip(again["input_ids"], again["special_tokens_mask"], strict=True)
            rows[number] = [each for each, added in pairs if added or each not in special.ids]
    return rows
