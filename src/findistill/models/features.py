"""The only place that reads a model's internal activations, for teachers and students alike.

Arrays are named by kind and layer: `logits`, `hidden/0` (the embeddings) to `hidden/L`, and for encoder layers 1 to L
`scores/3` (attention before the softmax), `query/3`, `key/3`, `value/3`. Only entries of real tokens are returned,
concatenated in the order of the texts, so that padding can neither be stored nor enter a loss.
"""

from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from findistill.errors import UserError

KINDS = ("hidden", "scores", "query", "key", "value")
RECORDED = "findistill_recorded"  # the name of our attention function in transformers

_calls: ContextVar[list[dict[str, torch.Tensor]] | None] = ContextVar("calls", default=None)


@dataclass(frozen=True)
class Anatomy:
    """The sizes of an encoder, which determine what can be compared."""

    name: str
    depth: int  # encoder layers
    width: int
    heads: int

    @classmethod
    def of(cls, model: PreTrainedModel, name: str) -> "Anatomy":
        config = model.config
        sizes = (getattr(config, size, 0) for size in ("num_hidden_layers", "hidden_size", "num_attention_heads"))
        return cls(name, *sizes)

    def all_arrays(self) -> list[str]:
        """The names of all arrays that can be read, except the logits."""
        hidden = [f"hidden/{layer}" for layer in range(self.depth + 1)]
        return [*hidden, *(f"{kind}/{layer}" for kind in KINDS[1:] for layer in range(1, self.depth + 1))]


def row_shape(name: str, anatomy: Anatomy, labels: int) -> tuple[int, ...]:
    """The shape of one row of an array; `rows_of` is how many rows a text has."""
    kind = name.partition("/")[0]
    return {"logits": (labels,), "scores": ()}.get(kind, (anatomy.width,))


def rows_of(name: str, lengths: np.ndarray, heads: int) -> np.ndarray:
    """Rows of each text in an array: one for logits, heads x tokens x tokens for scores, else one per token."""
    kind = name.partition("/")[0]
    if kind == "logits":
        return np.ones_like(lengths, dtype=np.int64)
    return heads * lengths.astype(np.int64) ** 2 if kind == "scores" else lengths.astype(np.int64)


def square(mask: torch.Tensor, heads: int) -> torch.Tensor:
    """(batch, heads, length, length): which attention scores have a real token on both sides; `mask` (batch, length)."""
    both = mask[:, None, :, None] & mask[:, None, None, :]
    return both.expand(-1, heads, -1, -1)


def read(model: PreTrainedModel, inputs: dict[str, torch.Tensor], names: Collection[str]) -> dict[str, torch.Tensor]:
    """Run `model` on a padded batch and return the arrays in `names`, with gradients where they are enabled.

    Shapes: logits (batch, labels); hidden, query, key, value (real tokens, width); scores (real entries,): heads x
    length x length of each text in row-major order, one text after another.

    Raises:
        UserError: attention is requested of a model that does not expose it.
    """
    attention = any(name.partition("/")[0] in KINDS[1:] for name in names)
    mask = inputs["attention_mask"].bool()
    recording: AbstractContextManager[list[dict[str, Any]]] = _recording(model) if attention else nullcontext([])
    with recording as calls:
        output: Any = model(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            output_hidden_states=any(name.startswith("hidden/") for name in names),
        )
    if attention and len(calls) != model.config.num_hidden_layers:
        raise _no_attention(model, f"{len(calls)} of {model.config.num_hidden_layers} layers do")
    arrays: dict[str, torch.Tensor] = {}
    for name in names:
        kind, _, layer = name.partition("/")
        if kind == "logits":
            arrays[name] = output.logits
        elif kind == "hidden":
            arrays[name] = output.hidden_states[int(layer)][mask]
        elif kind == "scores":
            call = calls[int(layer) - 1]
            scores = call["query"] @ call["key"].transpose(2, 3)
            arrays[name] = (scores * call["scaling"])[square(mask, scores.shape[1])]
        else:
            arrays[name] = calls[int(layer) - 1][kind].transpose(1, 2).flatten(2)[mask]
    return arrays


def admit(model: PreTrainedModel) -> None:
    """Allow `read` on a model that was copied from another process.

    transformers registers what can be recorded when it constructs a model of that class, once per process.
    """
    with torch.device("meta"):
        type(model)(model.config)


@contextmanager
def _recording(model: PreTrainedModel) -> Iterator[list[dict[str, Any]]]:
    """Collect queries, keys and values (batch, heads, length, head width) of every attention call, layer by layer.

    The model keeps computing attention with SDPA: if asked for its attention maps, it would either return none or fall back
    to the slow path. This setting is not saved with the model.
    """
    if model.config._attn_implementation != RECORDED:
        try:
            model.set_attn_implementation(RECORDED)
        except ValueError as error:
            raise _no_attention(model, str(error).splitlines()[0]) from error
    calls: list[dict[str, Any]] = []
    token = _calls.set(calls)
    try:
        yield calls
    finally:
        _calls.reset(token)


def _attend(
    module: torch.nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: Any, **settings: Any
) -> Any:
    """SDPA that records its inputs."""
    if (calls := _calls.get()) is not None:
        scaling = settings.get("scaling")
        scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
        calls.append({"query": query, "key": key, "value": value, "scaling": scaling})
    return sdpa_attention_forward(module, query, key, value, mask, **settings)


AttentionInterface.register(RECORDED, _attend)
AttentionMaskInterface.register(RECORDED, sdpa_mask)


def _no_attention(model: PreTrainedModel, why: str) -> UserError:
    return UserError(
        f"distill.terms: {type(model).__name__} does not return its attention ({why})."
        "\nSet attention, attention_probs, query_key and value_value to 0, or choose another model (BERT, RoBERTa, ...)."
    )
