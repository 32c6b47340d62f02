"""Pretrained encoders with a classification head: loading, cutting layers, naming labels, saving.

A model stays a Hugging Face model: what is written is read by plain `from_pretrained`. A scalar head keeps its label
names and thresholds in its `config.json`, as `findistill_labels` and `findistill_thresholds`.
"""

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from findistill.errors import UserError
from findistill.runs.weights import locate, quiet

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from findistill.learning.objectives import Thresholds
    from findistill.settings.schema import Encoder


def load(
    encoder: "Encoder", names: Sequence[str], *, scalar: bool, seed: int
) -> tuple["PreTrainedModel", "PreTrainedTokenizerBase"]:
    """The encoder to train, float32, and its tokenizer; the head is new and drawn from `seed`.

    A model that already names exactly these labels keeps its head, its rows put in the order of `names`. `scalar` asks
    for one output. Raises UserError where the weights or a layer number do not exist.
    """
    from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

    where = locate(encoder.model)
    outputs = ["score"] if scalar else list(names)
    try:
        with quiet(), torch.random.fork_rng():
            torch.manual_seed(seed)  # weights the checkpoint lacks besides the head, such as a pooler
            own = AutoConfig.from_pretrained(where).id2label or {}
            tokenizer = AutoTokenizer.from_pretrained(where)
            model = AutoModelForSequenceClassification.from_pretrained(
                where,
                dtype=torch.float32,
                id2label=dict(enumerate(outputs)),
                label2id={name: i for i, name in enumerate(outputs)},
                ignore_mismatched_sizes=True,
            )
    except (OSError, ValueError) as error:
        raise UserError(
            f"model={encoder.model} (of {encoder.name}) cannot be loaded: {str(error).splitlines()[0]}"
            "\nGive embedded:minilm_l6, a folder with config.json and weights, or a hub id that this machine can reach."
        ) from error
    own_names = [str(own[i]).lower() for i in sorted(own)]
    wanted = [name.lower() for name in outputs]
    if sorted(own_names) == sorted(wanted):
        _reorder_head(model, [own_names.index(name) for name in wanted])
    else:
        _new_head(model, len(outputs), seed)
    if encoder.layers is not None:
        _keep_layers(model, list(encoder.layers), encoder)
    return model, tokenizer


def _head(model: "PreTrainedModel", outputs: int) -> nn.Linear:
    """The last linear layer with that many outputs."""
    linears = [module for module in model.modules() if isinstance(module, nn.Linear)]
    return [linear for linear in linears if linear.out_features == outputs][-1]


def _reorder_head(model: "PreTrainedModel", order: list[int]) -> None:
    head = _head(model, len(order))
    with torch.no_grad():
        head.weight.copy_(head.weight[order].clone())
        if head.bias is not None:
            head.bias.copy_(head.bias[order].clone())


def _new_head(model: "PreTrainedModel", outputs: int, seed: int) -> None:
    head = _head(model, outputs)
    generator = torch.Generator().manual_seed(seed)
    std = getattr(model.config, "initializer_range", 0.02)
    with torch.no_grad():
        head.weight.copy_(torch.randn(head.weight.shape, generator=generator) * std)
        if head.bias is not None:
            head.bias.zero_()


def _keep_layers(model: "PreTrainedModel", layers: list[int], encoder: "Encoder") -> None:
    depth = getattr(model.config, "num_hidden_layers", 0)
    stacks = [
        (name, module) for name, module in model.named_modules() if isinstance(module, nn.ModuleList) and len(module) == depth
    ]
    if not layers or not stacks or not all(1 <= number <= depth for number in layers):
        raise UserError(f"layers={layers} (of {encoder.name}): {encoder.model} has encoder layers 1 to {depth}.")
    name, stack = stacks[0]
    model.set_submodule(name, nn.ModuleList([stack[number - 1] for number in layers]))
    model.config.num_hidden_layers = len(layers)


def save(
    folder: Path,
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    names: Sequence[str],
    max_length: int,
    thresholds: "Thresholds | None" = None,
) -> None:
    """Write model and tokenizer to `folder`, complete or not at all (an older folder is replaced).

    The tokenizer remembers `max_length`, so that `tokenizer(texts, truncation=True)` truncates as training did.
    """
    aside = folder.with_name(f"{folder.name}.{os.getpid()}.tmp")
    tokenizer.model_max_length = max_length
    if thresholds is not None:
        model.config.findistill_labels = list(names)
        model.config.findistill_thresholds = thresholds.as_dict()
    try:
        with quiet():
            model.save_pretrained(aside)
            tokenizer.save_pretrained(aside)
        if thresholds is not None:
            (aside / "thresholds.json").write_text(json.dumps(thresholds.as_dict(), indent=2) + "\n", encoding="utf-8")
        if folder.exists():
            shutil.rmtree(folder)
        aside.replace(folder)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


def open_trained(model: str | Path) -> tuple["PreTrainedModel", "PreTrainedTokenizerBase"]:
    """A trained model, float32 in evaluation mode, and its tokenizer.

    Raises UserError where it cannot be loaded or does not name its labels.
    """
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    where = locate(str(model))
    try:
        with quiet():
            loaded = AutoModelForSequenceClassification.from_pretrained(where, dtype=torch.float32)
            tokenizer = AutoTokenizer.from_pretrained(where)
    except (OSError, ValueError) as error:
        raise UserError(
            f"the model {model} cannot be loaded: {str(error).splitlines()[0]}"
            "\nGive a model folder (such as runs/<study>/<job>/model) or a hub id that this machine can reach."
        ) from error
    if set(loaded.config.id2label.values()) == {f"LABEL_{i}" for i in range(loaded.config.num_labels)}:
        raise UserError(
            f"the model {model} does not name its labels (id2label in its config.json)."
            "\nGive a trained classifier, such as runs/<study>/<job>/model."
        )
    return loaded.eval(), tokenizer
