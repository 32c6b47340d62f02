"""all-MiniLM-L6-v2 in torch, for `embeddings`."""

from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from transformers import AutoModel

from findistill.core.hardware import cpu_has_fast_bf16, device
from findistill.core.progress import ProgressMeter
from findistill.models.embeddings import MODEL, WIDTH
from findistill.models.weights import locate, quiet

MAX_TOKENS = 256  # the model's own limit; longer texts are truncated


@cache
def _encoder() -> tuple[Any, Any]:
    """Tokenizer and model, loaded once per process."""
    folder = locate(MODEL)
    tokenizer = Tokenizer.from_file(str(Path(folder) / "tokenizer.json"))
    tokenizer.enable_truncation(MAX_TOKENS)
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True  # `[SEP]` in a text is text
    with quiet():
        model = AutoModel.from_pretrained(folder)
    return tokenizer, model.eval().to(device())


def _batches(lengths: Sequence[int], batch_tokens: int) -> Iterator[list[int]]:
    """Row numbers, longest texts first, in batches whose padded size is at most `batch_tokens` (at least one row)."""
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    start = 0
    while start < len(order):
        size = max(1, batch_tokens // lengths[order[start]])
        yield order[start : start + size]
        start += size


def encode(texts: Sequence[str], batch_tokens: int) -> np.ndarray:
    """See `embeddings.embed`."""
    vectors = np.zeros((len(texts), WIDTH), dtype=np.float32)
    tokenizer, model = _encoder()
    encoded = [encoding.ids for encoding in tokenizer.encode_batch(list(texts))]
    progress = ProgressMeter(total=len(texts), desc="embed", unit="text")
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=cpu_has_fast_bf16()), progress:
        for rows in _batches([len(ids) for ids in encoded], batch_tokens):
            ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(encoded[row]) for row in rows], batch_first=True)
            ids = ids.to(model.device)
            mask = ids.ne(0)  # 0 is [PAD], which no text encodes to
            states = model(input_ids=ids, attention_mask=mask.long()).last_hidden_state.float()
            means = (states * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True)
            vectors[rows] = torch.nn.functional.normalize(means, dim=1).cpu().numpy()
            progress.update(len(rows))
    return vectors
