"""Attention of many rows over shared keys and values, which are read in place.

Attention is computed separately over each part of the keys and merged by the softmax normalisers, which is exact
(Juravsky et al. 2024, "Hydragen").
"""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface, DynamicCache
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

ATTENTION = "findistill"


class SharedKVCache:
    """Keys and values that several rows read, (groups, heads, length, width) per layer. Each row reads one group."""

    def __init__(self, cache: Any, mask: torch.Tensor | None = None) -> None:
        self.layers = [(layer.keys, layer.values) for layer in cache.layers]
        self.mask = None if mask is None or mask.all() else mask.bool()[:, None, None]


class RowLayout:
    """Which group of a `SharedKVCache` each row reads; rows are laid out as (groups, size of the largest group)."""

    def __init__(self, shared: SharedKVCache, groups: torch.Tensor) -> None:
        self.shared = shared
        sizes = [0] * len(shared.layers[0][0])
        seats = []
        for group in groups.tolist():
            seats.append(sizes[group])
            sizes[group] += 1
        self.shape = (len(sizes), max(sizes))
        self.at = (groups, torch.tensor(seats, device=groups.device))

    def attend(self, layer: int, query: torch.Tensor, scaling: float) -> tuple[torch.Tensor, torch.Tensor]:
        """`_attend` for queries (rows, heads, queries, width)."""
        key, value = self.shared.layers[layer]
        (groups, seats), (_, heads, queries, width) = self.shape, query.shape
        grouped = query.new_zeros(groups, seats, heads, queries, width)
        grouped[self.at] = query
        grouped = grouped.transpose(1, 2).reshape(groups, heads, seats * queries, width)
        parts = _attend(grouped, key, value, self.shared.mask, scaling)
        output, normaliser = (each.view(groups, heads, seats, queries, -1).transpose(1, 2)[self.at] for each in parts)
        return output, normaliser


def _attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None, scaling: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention over one part of the keys, (..., queries, width), and its log-normaliser, (..., queries, 1)."""
    scores = (query @ key.mT).float() * scaling
    if mask is not None:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)  # finite: fully masked rows give no NaN
    whole = scores.logsumexp(-1, keepdim=True)
    return (scores - whole).exp().to(value.dtype) @ value, whole


def attention(
    module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attention_mask: torch.Tensor | None, *,
    scaling: float | None = None, shared: Sequence[RowLayout] | None = None, **kwargs: Any,
) -> tuple[torch.Tensor, None]:  # fmt: skip
    """An attention function for transformers: SDPA or, with `shared`, attention over own and shared keys, in place.

    Raises:
        NotImplementedError: the model asks for more than plain attention.
    """
    if shared is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
    if any(kwargs.get(name) is not None for name in ("sliding_window", "softcap", "s_aux", "position_bias")):
        raise NotImplementedError("sliding windows, capped scores, sinks, position biases")
    rows, heads, length, width = query.shape
    of_key, keys = heads // key.shape[1], key.shape[2]
    scaling = width**-0.5 if scaling is None else scaling
    if attention_mask is None and length > 1:  # transformers omits it where the kernel's causal mask suffices
        attention_mask = torch.ones(1, 1, length, keys, dtype=torch.bool, device=query.device).tril(keys - length)
    mask = None if attention_mask is None else attention_mask.repeat(1, 1, of_key, 1)
    query = query.reshape(rows, key.shape[1], of_key * length, width)  # stack the query heads of each key head (GQA)
    parts = [_attend(query, key, value, mask, scaling)]
    parts += [each.attend(module.layer_idx, query, scaling) for each in shared]
    shares = torch.cat([whole for _, whole in parts], -1).softmax(-1).split(1, -1)
    out = sum(share * part.float() for share, (part, _) in zip(shares, parts, strict=True))
    return out.to(value.dtype).view(rows, heads, length, -1).transpose(1, 2).contiguous(), None


def share_attention(model: Any) -> bool:
    """Make a causal model read shared keys in place; False, without changes, if its attention is not plain."""
    before = model.config._attn_implementation
    if before == ATTENTION:
        return True
    if before != "sdpa":
        return False
    AttentionInterface.register(ATTENTION, attention)
    AttentionMaskInterface.register(ATTENTION, sdpa_mask)
    model.set_attn_implementation(ATTENTION)
    read: list[int] = []

    class Probe(RowLayout):
        def attend(self, layer: int, *args: Any) -> tuple[torch.Tensor, torch.Tensor]:
            read.append(layer)
            return super().attend(layer, *args)

    ids = torch.zeros(1, 1, dtype=torch.long, device=model.device)
    try:
        with torch.inference_mode():
            cache = model(input_ids=ids, use_cache=True).past_key_values
            seats = [Probe(SharedKVCache(cache), ids[0])]
            model(input_ids=ids, position_ids=ids + 1, past_key_values=DynamicCache(), use_cache=True, shared=seats)
    except (NotImplementedError, TypeError, AttributeError):  # forward takes no such keyword, or the cache is of another kind
        read.clear()
    if read == list(range(model.config.num_hidden_layers)):
        return True
    model.set_attn_implementation(before)
    return False
