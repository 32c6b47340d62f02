"""How large a model is and whether it fits, before its weights are read.

Parameters are counted on a model without weights (torch's `meta` device), built from its configuration alone. For the
presets of models on the hub, the configuration is stored here, so neither the hub nor a GPU is needed.

Memory is an estimate: weights, training state (gradients, the optimiser's moments, adapters), and the activations of one
batch, from the tensors that a transformer block stores. Measurements are up to some 40% higher for a batch
(docs/fewshot.md), plus fragmentation by a CPU's allocator.
"""

import importlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from findistill.config.fields import declares
from findistill.core import hardware
from findistill.core.files import read_json
from findistill.errors import UserError
from findistill.models.folder import check_folder
from findistill.models.weights import NO_CODE, loading, locate

log = logging.getLogger(__name__)

GB = 1e9
RUNTIME = 0.7  # GB that Python, torch and the device's context take with any model
CACHED_BATCHES = 4  # size of the key-value cache when sampling, in `llm.batch_tokens`: a pass adds one token per sample
LABEL = 3  # tokens of the answer in tuning, if it is a label's word
SAFE = 0.9  # share of the memory to plan with: allocators fragment it
BYTES = {"32": 4.0, "bf16": 2.0}
# Bytes per weight in the linear layers of blocks: 4 bits and the scales of 64-weight blocks, themselves in 8 bits (Dettmers
# et al. 2023, section 3: 0.127 bits per weight).
QUANTISED = {"nf4": (4 + 0.127) / 8, "int8": 1.0}
_logged: set[tuple[object, ...]] = set()  # what this process has logged: the same line for every job of a sweep is noise

# Published dimensions, by hub id: Flan-T5 (Chung et al. 2022; T5 1.1's layout) and Llama 2 (Touvron et al. 2023).
KNOWN: dict[str, dict[str, Any]] = read_json(Path(__file__).with_name("known_sizes.json"))


@dataclass(frozen=True)
class Size:
    """A model's dimensions; `layers` counts the blocks of encoder and decoder together."""

    parameters: int
    linear: int  # parameters in the blocks' linear layers: what quantisation shrinks and LoRA can adapt
    unquantised: int  # of those, parameters that stay in float32 when the rest is quantised (T5's `wo`)
    layers: int
    hidden: int
    inner: int  # width of the feed-forward layer
    gated: bool  # it has two input matrices
    queries: int  # width of all queries of a layer
    keys: int  # width of all its keys, or values
    vocabulary: int
    encodes: bool  # has an encoder for the prompt; the decoder's response is short

    @property
    def blocks(self) -> float:
        """Blocks that see the prompt: a decoder after an encoder sees only a few label tokens, and stores next to nothing."""
        return self.layers / 2 if self.encodes else self.layers


@dataclass(frozen=True)
class Memory:
    """Gigabytes (1e9 bytes)."""

    weights: float
    training: float  # gradients, optimiser, adapters
    activations: float

    @property
    def total(self) -> float:
        return self.weights + self.training + self.activations + RUNTIME

    def text(self) -> str:
        parts = f"weights {self.weights:.1f}" + (f", training {self.training:.1f}" if self.training else "")
        return f"{self.total:.1f} GB ({parts}, activations {self.activations:.1f}, runtime {RUNTIME})"


@cache
def size(model: str) -> Size:
    """The size of a model: a preset's hub id, a folder, an `embedded:` name, or a hub id in the cache.

    Raises:
        UserError: the model's configuration cannot be read.
    """
    if model not in KNOWN:
        check_folder(model, locate(model), "language model", tokenizer=False)
    # Imported here: an annotator behind an endpoint needs neither.
    torch, transformers = (importlib.import_module(name) for name in ("torch", "transformers"))
    with loading(f"llm.model={model} cannot be loaded"):
        read = transformers.AutoConfig
        config = read.for_model(**KNOWN[model]) if model in KNOWN else read.from_pretrained(locate(model), **NO_CODE)
        auto = transformers.AutoModelForSeq2SeqLM if config.is_encoder_decoder else transformers.AutoModelForCausalLM
        with torch.device("meta"):
            bare = auto.from_config(config)
    parameters = bare.num_parameters()
    # transformers ties T5's output to its embedding until it sees that the weights on disk are two (T5 1.1, Flan-T5).
    parameters += 0 if getattr(config, "scale_decoder_outputs", True) else config.vocab_size * config.d_model
    linear = {name: each for name, each in bare.named_modules() if isinstance(each, torch.nn.Linear)}
    inside = {name: each.weight.numel() for name, each in linear.items() if each is not bare.get_output_embeddings()}
    whole = getattr(bare, "_keep_in_fp32_modules", None) or ()
    t5 = hasattr(config, "d_ff")
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = config.d_kv if t5 else getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return Size(
        parameters=parameters,
        linear=sum(inside.values()),
        unquantised=sum(count for name, count in inside.items() if name.rpartition(".")[2] in whole),
        layers=config.num_layers + config.num_decoder_layers if t5 else config.num_hidden_layers,
        hidden=config.hidden_size,
        inner=config.d_ff if t5 else getattr(config, "intermediate_size", None) or 4 * config.hidden_size,
        gated=config.is_gated_act if t5 else any("gate" in name for name in inside),
        queries=config.num_attention_heads * width,
        keys=heads * width,
        vocabulary=config.vocab_size,
        encodes=bool(config.is_encoder_decoder),
    )


def lora_parameters(model: Size, rank: int) -> int:
    """Parameters of adapters of this rank on the query and value matrices of every attention."""
    attentions = model.layers * 1.5 if model.encodes else model.layers  # a decoder's block has two
    return round(attentions * rank * (2 * model.hidden + model.queries + model.keys))


def inference(
    model: Size, tokens: int, precision: str = "bf16", quantisation: str = "none", *, rows: int = 32, cached_batches: int = 1
) -> Memory:
    """Memory to process `tokens` prompt tokens in one pass, padding included, and to score the label of `rows` prompts.

    Args:
        model: its size.
        tokens: `llm.batch_tokens`.
        precision: a key of `BYTES`.
        quantisation: none, nf4 or int8.
        rows: prompts in the pass, whose last position has logits over the vocabulary.
        cached_batches: size of the key-value cache in `tokens`: sampling works on more texts than one pass reads.
    """
    wide = BYTES[precision]
    one_block = tokens * wide * (6 * model.hidden + (3 if model.gated else 2) * model.inner)
    cache = cached_batches * tokens * wide * 2 * model.keys * model.blocks
    logits = rows * 2 * 4 * model.vocabulary
    return Memory(_weights(model, precision, quantisation) / GB, 0.0, (one_block + cache + logits) / GB)


def training(
    model: Size, batch: int, length: int, precision: str = "bf16", quantisation: str = "none", *, lora_rank: int | None = 16,
    checkpointing: bool = False, read: int | None = None,
) -> Memory:  # fmt: skip
    """Memory of a training step with AdamW, on LoRA adapters or, with `lora_rank=None`, on all weights.

    Args:
        model: its size.
        batch: texts in a step.
        length: tokens of each, padding included.
        precision: of the computation, a key of `BYTES`; weights that are trained, gradients and moments are float32.
        quantisation: of the frozen weights: none, nf4 or int8.
        checkpointing: keep only the input of each block, and recompute the rest in the backward pass.
        read: positions of a text with logits over the vocabulary; by default 4 with an encoder, else all.
    """
    wide, tokens = BYTES[precision], batch * length
    trained = model.parameters if lora_rank is None else lora_parameters(model, lora_rank)
    state = trained * (12 if lora_rank is None else 16)  # gradient and two moments; adapters come on top of the weights
    weights = _weights(model, "32" if lora_rank is None else precision, quantisation)
    # What a block keeps: both norms' inputs and outputs, queries, keys, values, the attention's output, the inner layer.
    block = tokens * wide * (6 * model.hidden + 2 * (model.queries + model.keys) + (4 if model.gated else 2) * model.inner)
    copied = 4 * model.hidden if wide < 4 else 0  # bytes per token: norms and adapters cast their inputs to float32
    block += tokens * 2 * copied
    if lora_rank is not None:  # on queries and values: their inputs, and these after dropout with its mask
        block += tokens * 2 * (copied + 5 * model.hidden)
    activations = model.blocks * tokens * wide * model.hidden + block if checkpointing else model.blocks * block
    positions = read or (4 if model.encodes else length)
    logits = batch * positions * model.vocabulary * (wide + 8)  # as computed, in float32, and the gradient
    return Memory(weights / GB, state / GB, (activations + logits) / GB)


def tuning(model: Size, qlora: Any, batch: int, length: int, dtype: str, answer: int = LABEL) -> Memory:
    """Memory of a step of `stage=qlora` with these settings; `dtype` as `llm.dtype`.

    Args:
        answer: tokens of the longest answer, which are added to `length` and have logits over the vocabulary.
    """
    length += 0 if model.encodes else answer - LABEL
    return training(
        model, batch, length, _precision(dtype), qlora.quantization, lora_rank=qlora.rank,
        checkpointing=qlora.gradient_checkpointing, read=answer,
    )  # fmt: skip


def largest(estimate: Callable[[int], Memory], available: float) -> int:
    """The largest power of two `n` up to 65,536 for which `estimate(n).total` stays within `SAFE` of `available` GB; 0: none.

    `estimate` maps a batch size or a number of tokens to a `Memory`.
    """
    return max((n for n in (2**exponent for exponent in range(17)) if estimate(n).total <= SAFE * available), default=0)


def check_memory(llm: Any, max_memory: float | None, *, sampling: bool = False) -> Size | None:
    """Log how large an in-process LLM is, the memory it needs and which `llm.batch_tokens` would fit; return its size.

    None if it does not run in this process, or if its configuration cannot be read without the hub, which is logged.

    Args:
        llm: the llm's section of the configuration.
        max_memory: GB that may be used (`trainer.max_memory`); by default what the device has free.
        sampling: responses are sampled, with reasoning before the label, instead of reading the label's distribution.

    Raises:
        UserError: it cannot fit.
    """
    if not declares(llm, "in_process"):
        return None
    try:
        model = size(llm.model)
    except UserError:
        log.info("%s: size unknown without its configuration", llm.name)
        return None
    precision, cached = _precision(str(getattr(llm, "dtype", "auto"))), CACHED_BATCHES if sampling else 1

    def needed(tokens: int) -> Memory:
        return inference(model, tokens, precision, cached_batches=cached)

    memory, available, fitting = _compare(needed, llm.batch_tokens, max_memory)
    request = (llm.name, model.parameters, llm.batch_tokens, sampling, max_memory)
    if request not in _logged:  # free memory changes between jobs of a sweep, the need does not
        _logged.add(request)
        log.info(
            "%s: %s M parameters, about %s with llm.batch_tokens=%d; %.1f GB are available, enough for llm.batch_tokens=%d",
            llm.name, f"{model.parameters / 1e6:,.0f}", memory.text(), llm.batch_tokens, available, fitting,
        )  # fmt: skip
    _refuse(memory, available, f"llm={llm.name}", f"llm.batch_tokens={fitting}" if fitting >= 256 else None)
    return model


def check_tuning_memory(llm: Any, qlora: Any, batch: int, length: int, max_memory: float | None, answer: int = LABEL) -> None:
    """Log how large a model to tune is, the memory that a step needs and which batch would fit.

    Args:
        llm: the model's section of the configuration.
        qlora: how it is tuned, the `qlora` section.
        batch: texts in a step.
        length: tokens of the longest prompt.
        answer: tokens of the longest answer.
        max_memory: GB that may be used (`trainer.max_memory`); by default what the device has free.

    Raises:
        UserError: it cannot fit.
    """
    model, rank = size(llm.model), qlora.rank

    def needed(texts: int) -> Memory:
        return tuning(model, qlora, texts, length, llm.dtype, answer)

    memory, available, fitting = _compare(needed, batch, max_memory)
    log.info(
        "%s: %s M parameters, %s M in adapters; a step of %d texts of up to %d tokens needs about %s; %.1f GB are available, "
        "enough for %d texts", llm.name, f"{model.parameters / 1e6:,.0f}", f"{lora_parameters(model, rank) / 1e6:,.1f}",
        batch, length, memory.text(), available, fitting,
    )  # fmt: skip
    remedy = f"trainer.batch_size={fitting} trainer.accumulate_grad_batches={max(1, batch // fitting)}" if fitting else None
    _refuse(memory, available, f"tuning llm={llm.name}", remedy)


def _compare(needed: Callable[[int], Memory], amount: int, max_memory: float | None) -> tuple[Memory, float, int]:
    """The memory that `amount` texts or tokens need, the available GB, and the most texts or tokens that fit."""
    available = hardware.free_memory_gb() if max_memory is None else max_memory
    return needed(amount), available, largest(needed, available)


def _refuse(memory: Memory, available: float, what: str, remedy: str | None) -> None:
    """Raise a UserError if `memory` is more than `available` GB, with the setting that would fit, if one does."""
    if memory.total > available:
        advice = f"set {remedy}" if remedy else "use a smaller model, or a machine with more memory"
        raise UserError(
            f"{what} needs about {memory.text()}, but only {available:.1f} GB are available: {advice}.\n"
            "To override this check, set trainer.max_memory=GB, the memory that may be used."
        )


def _precision(dtype: str) -> str:
    """The key of `BYTES` that `llm.dtype` means on this machine."""
    return {"float32": "32", "bfloat16": "bf16"}.get(dtype, hardware.llm_precision())


def _weights(model: Size, precision: str, quantisation: str) -> float:
    """Bytes of the weights."""
    if quantisation == "none":
        return model.parameters * BYTES[precision]
    shrunk = model.linear - model.unquantised
    rest = model.parameters - shrunk - model.unquantised
    return shrunk * QUANTISED[quantisation] + model.unquantised * BYTES["32"] + rest * BYTES[precision]
