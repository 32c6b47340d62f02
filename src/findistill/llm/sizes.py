"""How large a model is and whether it fits, told before its weights are read.

Parameters are counted on a model without weights (torch's `meta` device), built from its configuration alone. For the
presets that stand for models on the hub the configuration is known here, so neither the hub nor a GPU is needed.

Memory is an estimate: weights, what training keeps of them (gradients, the optimiser's moments, adapters), and the
activations of one batch, from the tensors that a transformer's block holds. It is meant to tell what fits from what does
not. What was measured is up to some 40% more for a batch (docs/fewshot.md), and gaps of a CPU's allocator come on top.
"""

import logging
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from findistill.errors import UserError
from findistill.runs import hardware
from findistill.runs.weights import locate, quiet

if TYPE_CHECKING:
    from findistill.settings.schema import LLM, InProcessLLM, QLoRA

log = logging.getLogger(__name__)

GB = 1e9
RUNTIME = 0.7  # GB that Python, torch and the device's context take whatever the model
HELD = 4  # times `llm.batch_tokens` that sampling holds: a pass writes one token a sample, and few get long
READ = 3  # positions of a text with logits over the vocabulary when tuning: those of the label
SAFE = 0.9  # share of the memory to plan with: allocators leave gaps
BYTES = {"float32": 4.0, "32": 4.0, "bfloat16": 2.0, "bf16": 2.0, "16": 2.0}
# Bytes a weight in the linear layers of blocks: 4 bits and the scales of 64-weight blocks, themselves in 8 bits (Dettmers
# et al. 2023, section 3: 0.127 bits a weight).
QUANTISED = {"nf4": (4 + 0.127) / 8, "int8": 1.0}

# Published dimensions, by hub id: Flan-T5 (Chung et al. 2022; T5 1.1's layout) and Llama 2 and 3.1 (Touvron et al. 2023).
_T5 = {"vocab_size": 32128, "d_kv": 64, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
_LLAMA2 = {"vocab_size": 32000, "tie_word_embeddings": False, "max_position_embeddings": 4096}
KNOWN: dict[str, tuple[str, dict[str, Any]]] = {
    "google/flan-t5-small": ("t5", {**_T5, "d_model": 512, "d_ff": 1024, "num_layers": 8, "num_heads": 6}),
    "google/flan-t5-base": ("t5", {**_T5, "d_model": 768, "d_ff": 2048, "num_layers": 12, "num_heads": 12}),
    "google/flan-t5-large": ("t5", {**_T5, "d_model": 1024, "d_ff": 2816, "num_layers": 24, "num_heads": 16}),
    "google/flan-t5-xl": ("t5", {**_T5, "d_model": 2048, "d_ff": 5120, "num_layers": 24, "num_heads": 32}),
    "meta-llama/Llama-2-7b-hf": (
        "llama",
        {**_LLAMA2, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32},
    ),
}


_told: set[tuple[str, int, int]] = set()  # by `foresee`, in this process


@dataclass(frozen=True)
class Size:
    """A model's dimensions; `layers` counts the blocks of encoder and decoder together."""

    parameters: int
    linear: int  # parameters in the blocks' linear layers: what quantisation shrinks and LoRA may stand on
    kept: int  # of those, parameters that stay in float32 when the rest is quantised (T5's `wo`)
    layers: int
    hidden: int
    inner: int  # width of the feed-forward layer
    gated: bool  # two matrices lead into it
    queries: int  # width of all queries of a layer
    keys: int  # width of all its keys, or values
    vocabulary: int
    encodes: bool  # has an encoder for the prompt; what is written is the decoder's, and short


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


@lru_cache(maxsize=16)
def size(model: str) -> Size:
    """The size of a model: a preset's hub id, a folder, an `embedded:` name, or a hub id in the cache.

    Raises:
        UserError: the model's configuration cannot be read.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

    try:
        if model in KNOWN:
            kind, fields = KNOWN[model]
            config = AutoConfig.for_model(kind, **fields)
        else:
            with quiet():
                config = AutoConfig.from_pretrained(locate(model))
        auto = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
        with torch.device("meta"), quiet():
            bare = auto.from_config(config)
    except (OSError, ValueError) as error:
        raise UserError(f"llm.model={model} cannot be loaded: {str(error).strip().splitlines()[0]}") from error
    parameters = sum(each.numel() for each in bare.parameters())
    # transformers ties T5's output to its embedding until it sees that the weights on disk are two (T5 1.1, Flan-T5).
    parameters += 0 if getattr(config, "scale_decoder_outputs", True) else config.vocab_size * config.d_model
    inside = {
        name: each.weight.numel()
        for name, each in bare.named_modules()
        if isinstance(each, torch.nn.Linear) and each is not bare.get_output_embeddings()
    }
    whole = tuple(getattr(bare, "_keep_in_fp32_modules", None) or ())
    t5 = hasattr(config, "d_ff")
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = config.d_kv if t5 else getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return Size(
        parameters=parameters,
        linear=sum(inside.values()),
        kept=sum(count for name, count in inside.items() if name.rpartition(".")[2] in whole),
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
    model: Size, tokens: int, precision: str = "bf16", quantisation: str = "none", *, rows: int = 32, held: int = 1
) -> Memory:
    """Memory to read `tokens` prompt tokens in one pass, padding included, and the label of each of `rows` prompts.

    Args:
        model: its size.
        tokens: `llm.batch_tokens`.
        precision: a key of `BYTES`.
        quantisation: none, nf4 or int8.
        rows: prompts in the pass, whose last position has logits over the vocabulary.
        held: times `tokens` whose keys and values are kept: sampling holds more texts than one pass reads.
    """
    wide = BYTES[precision]
    one_block = tokens * wide * (6 * model.hidden + (3 if model.gated else 2) * model.inner)
    cache = held * tokens * wide * 2 * model.keys * (model.layers / 2 if model.encodes else model.layers)
    logits = rows * 2 * 4 * model.vocabulary
    return Memory(_weights(model, precision, quantisation) / GB, 0.0, (one_block + cache + logits) / GB)


def training(
    model: Size,
    batch: int,
    length: int,
    precision: str = "bf16",
    quantisation: str = "none",
    *,
    lora_rank: int | None = 16,
    checkpointing: bool = False,
    read: int | None = None,
) -> Memory:
    """Memory of a training step with AdamW, on LoRA adapters or, with `lora_rank=None`, on all weights.

    Args:
        model: its size.
        batch: texts in a step.
        length: tokens of each, padding included.
        precision: of the computation, a key of `BYTES`; weights that are trained, gradients and moments are float32.
        quantisation: of the frozen weights: none, nf4 or int8.
        checkpointing: keep only what enters each block, and compute the rest again on the way back.
        read: positions of a text with logits over the vocabulary; by default 4 with an encoder, else all.
    """
    wide, tokens = BYTES[precision], batch * length
    trained = model.parameters if lora_rank is None else lora_parameters(model, lora_rank)
    state = trained * (12 if lora_rank is None else 16)  # gradient and two moments; adapters come on top of the weights
    weights = _weights(model, "32" if lora_rank is None else precision, quantisation)
    # What a block keeps: both norms' inputs and outputs, queries, keys, values, the attention's output, the inner layer.
    block = tokens * wide * (6 * model.hidden + 2 * (model.queries + model.keys) + (4 if model.gated else 2) * model.inner)
    copied = 4 * model.hidden if wide < 4 else 0  # bytes a token: norms and adapters cast what they read to float32
    block += tokens * 2 * copied
    if lora_rank is not None:  # on queries and values: what enters them, and what dropout leaves of it with its mask
        block += tokens * 2 * (copied + 5 * model.hidden)
    # The decoder of a model with an encoder sees a few label tokens only, so its blocks keep next to nothing.
    blocks = model.layers / 2 if model.encodes else model.layers
    kept = blocks * tokens * wide * model.hidden + block if checkpointing else blocks * block
    read = (4 if model.encodes else length) if read is None else read
    logits = batch * read * model.vocabulary * (wide + 8)  # as computed, in float32, and the gradient
    return Memory(weights / GB, state / GB, (kept + logits) / GB)


def largest(estimate: Any, most_gb: float) -> int:
    """The largest power of two `n` up to 65,536 for which `estimate(n).total` stays within `SAFE` of `most_gb`; 0: none.

    `estimate` takes a batch size or a number of tokens and gives a `Memory`.
    """
    return max((n for n in (2**exponent for exponent in range(17)) if estimate(n).total <= SAFE * most_gb), default=0)


def foresee(llm: "LLM", max_memory: float | None, *, sampling: bool = False) -> Size | None:
    """Say how large an in-process llm is, what it needs and which `llm.batch_tokens` would fit; None: not in this process.

    A model whose configuration is not to be had without the hub is said to be of unknown size.

    Args:
        llm: the llm's section of the configuration.
        max_memory: GB that may be used (`trainer.max_memory`); by default what the device has free.
        sampling: answers are sampled, with steps before the label, instead of the label's distribution read.

    Raises:
        UserError: it cannot fit.
    """
    if not hasattr(llm, "batch_tokens"):
        return None
    try:
        found = size(llm.model)
    except UserError:
        log.info("%s: size not known without its configuration", llm.name)
        return None
    precision = _precision(str(getattr(llm, "dtype", "auto")))
    held = HELD if sampling else 1
    memory = inference(found, llm.batch_tokens, precision, held=held)
    most = hardware.free_memory_gb() if max_memory is None else max_memory
    fitting = largest(lambda tokens: inference(found, tokens, precision, held=held), most)
    if (llm.model, llm.batch_tokens, held) not in _told:
        _told.add((llm.model, llm.batch_tokens, held))
        log.info(
            "%s: %s M parameters, with llm.batch_tokens=%d about %s; %.1f GB are there, enough for llm.batch_tokens=%d",
            llm.name, f"{found.parameters / 1e6:,.0f}", llm.batch_tokens, memory.text(), most, fitting,
        )  # fmt: skip
    refuse(memory, most, f"llm={llm.name}", f"llm.batch_tokens={fitting}" if fitting >= 256 else None)
    return found


def foresee_tuning(llm: "InProcessLLM", qlora: "QLoRA", batch: int, length: int, max_memory: float | None) -> None:
    """Say how large a model to be tuned is, what a step needs and which batch would fit.

    Args:
        llm: the model's section of the configuration.
        qlora: how it is tuned.
        batch: texts in a step.
        length: tokens of the longest prompt.
        max_memory: GB that may be used (`trainer.max_memory`); by default what the device has free.

    Raises:
        UserError: it cannot fit.
    """
    found = size(llm.model)
    precision = _precision(llm.dtype)

    def needed(texts: int) -> Memory:
        return training(
            found, texts, length, precision, qlora.quantization,
            lora_rank=qlora.rank, checkpointing=qlora.gradient_checkpointing, read=READ,
        )  # fmt: skip

    most = hardware.free_memory_gb() if max_memory is None else max_memory
    memory, fitting = needed(batch), largest(needed, most)
    log.info(
        "%s: %s M parameters, %s M in adapters; a step of %d texts of up to %d tokens needs about %s; %.1f GB are there, "
        "enough for %d texts",
        llm.name, f"{found.parameters / 1e6:,.0f}", f"{lora_parameters(found, qlora.rank) / 1e6:,.1f}", batch, length,
        memory.text(), most, fitting,
    )  # fmt: skip
    remedy = f"trainer.batch_size={fitting} trainer.accumulate={max(1, batch // fitting)}" if fitting else None
    refuse(memory, most, f"tuning llm={llm.name}", remedy)


def refuse(memory: Memory, most_gb: float, what: str, remedy: str | None) -> None:
    """Raise a UserError where `memory` is more than there is, with the setting that would fit, if one does.

    Raises:
        UserError: it cannot fit.
    """
    if memory.total > most_gb:
        advice = f"set {remedy}" if remedy else "take a smaller model, or a machine with more memory"
        raise UserError(
            f"{what} needs about {memory.text()} and there are {most_gb:.1f} GB: {advice}.\n"
            "If you know better, trainer.max_memory=GB sets what may be used."
        )


def _precision(dtype: str) -> str:
    """The key of `BYTES` that `llm.dtype` means on this machine."""
    return {"float32": "32", "bfloat16": "bf16"}.get(dtype, hardware.llm_precision())


def _weights(model: Size, precision: str, quantisation: str) -> float:
    """Bytes of the weights."""
    if quantisation == "none":
        return model.parameters * BYTES[precision]
    shrunk = model.linear - model.kept
    rest = model.parameters - shrunk - model.kept
    return shrunk * QUANTISED[quantisation] + model.kept * BYTES["32"] + rest * BYTES[precision]
