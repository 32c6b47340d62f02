"""Texts to token ids: tokenised once, cached on disk, in batches of similar length, padded. Nothing here needs torch.

Everything is a function of its arguments; the cache on disk is the only state.
"""

import hashlib
import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from findistill.core.files import replacing
from findistill.models.special_tokens import SpecialTokens, encode_plain

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)

TEXTS_AT_ONCE = 10_000  # tokenised in one call; bounds the Python lists held beside the flat array
CHECKSUM = 8  # int32 values in a sha256


@dataclass(frozen=True)
class Tokens:
    """The concatenated token ids of n texts: text i is flat[offsets[i]:offsets[i + 1]]. `flat` may be memory-mapped int32."""

    flat: np.ndarray
    offsets: np.ndarray  # (n + 1,) int64
    pad_id: int

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> np.ndarray:
        return self.flat[self.offsets[index] : self.offsets[index + 1]]

    @property
    def lengths(self) -> np.ndarray:
        """(n,) tokens of each text, special tokens included."""
        return np.diff(self.offsets)

    def repeated(self, times: int) -> "Tokens":
        """The same texts, `times` times."""
        offsets = np.concatenate([[0], np.cumsum(np.tile(self.lengths, times), dtype=np.int64)])
        return Tokens(np.tile(self.flat, times), offsets, self.pad_id)


def tokenise(tokenizer: "PreTrainedTokenizerBase", texts: Sequence[str], max_length: int, cache: Path | None = None) -> Tokens:
    """Token ids of `texts`, truncated at `max_length` tokens; read from `cache` if they are in it.

    A special token that is written in a text is text, see `special_tokens`.

    The cache is one `.npy` file per key (sha256 of texts, tokenizer and length), written under another name and renamed, so
    that concurrent jobs can share a folder. It holds int32: n, the n lengths, all ids, then the sha256 of all these. A damaged
    file is recreated.
    """
    pad_id = tokenizer.pad_token_id or 0
    path = cache / f"{_key(tokenizer, texts, max_length)}.npy" if cache else None
    packed = _load(path) if path and path.is_file() else None
    if packed is None:
        packed = _pack(tokenizer, texts, max_length)
        if path:
            with replacing(path) as aside:
                np.save(aside, np.concatenate([packed, _checksum(packed)]))
    n = int(packed[0])
    offsets = np.concatenate([[0], np.cumsum(packed[1 : n + 1], dtype=np.int64)])
    return Tokens(packed[n + 1 :], offsets, pad_id)


def _load(path: Path) -> np.ndarray | None:
    """The cached array without its checksum; None if they do not match."""
    with suppress(ValueError, EOFError, OSError):
        packed = np.load(path, mmap_mode="r", allow_pickle=False)
        content, checksum = packed[:-CHECKSUM], packed[-CHECKSUM:]
        if len(content) and np.array_equal(_checksum(content), checksum):
            return content
    log.warning("%s is damaged; the texts are tokenised again", path)
    return None


def _checksum(packed: np.ndarray) -> np.ndarray:
    return np.frombuffer(hashlib.sha256(np.ascontiguousarray(packed).data).digest(), dtype=np.int32)


def _pack(tokenizer: "PreTrainedTokenizerBase", texts: Sequence[str], max_length: int) -> np.ndarray:
    rows: list[np.ndarray] = []
    for start in range(0, len(texts), TEXTS_AT_ONCE):
        encoded = encode_plain(tokenizer, texts[start : start + TEXTS_AT_ONCE], max_length)
        rows += [np.asarray(ids, dtype=np.int32) for ids in encoded]
    lengths = np.asarray([len(row) for row in rows], dtype=np.int32)
    return np.concatenate([np.asarray([len(rows)], dtype=np.int32), lengths, *rows])


def _key(tokenizer: "PreTrainedTokenizerBase", texts: Sequence[str], max_length: int) -> str:
    digest = hashlib.sha256(f"{max_length}\0{len(texts)}\0".encode())
    if SpecialTokens.of(tokenizer).occur_in(texts):
        digest.update(b"plain\0")  # version 0.1 cached other ids for such texts
    if tokenizer.is_fast:
        # Truncation and padding are settings of the last call, not of the tokenizer.
        tokenizer.backend_tokenizer.no_truncation()
        tokenizer.backend_tokenizer.no_padding()
        digest.update(tokenizer.backend_tokenizer.to_str().encode())
    else:
        digest.update(f"{type(tokenizer).__name__}{sorted(tokenizer.get_vocab().items())}".encode())
    for text in texts:
        encoded = text.encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(8, "little"))  # so that two texts never hash like one
        digest.update(encoded)
    return digest.hexdigest()


def sorted_batches(lengths: np.ndarray, batch_size: int) -> list[list[int]]:
    """Every row once, longest first (the first batch is the one that needs the most memory); for evaluation."""
    order = np.argsort(-lengths, kind="stable")
    return [order[i : i + batch_size].tolist() for i in range(0, len(order), batch_size)]


def padded(tokens: Tokens, rows: Sequence[int], *, left: bool = False) -> dict[str, np.ndarray]:
    """`input_ids` and `attention_mask` of these rows, (len(rows), longest) int64, padded on the right or the `left`.

    Only to the longest row: rounding up to a multiple of 8 was measured to cost time for the extra tokens on a CPU.
    """
    lengths = tokens.lengths[list(rows)]
    mask = np.arange(lengths.max()) < lengths[:, None]
    mask = mask[:, ::-1] if left else mask
    ids = np.full(mask.shape, tokens.pad_id, dtype=np.int64)
    ids[mask] = np.concatenate([tokens[row] for row in rows])
    return {"input_ids": ids, "attention_mask": mask.astype(np.int64)}
