"""Encoders with a classification head: initialising from weights, at random or from a parent; naming labels; saving.

A saved model is a Hugging Face model that plain `from_pretrained` loads. A scalar head keeps its label names and
thresholds in its `config.json`, as `findistill_labels` and `findistill_thresholds`.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    PreTrainedConfig,
)
from transformers.modeling_utils import PreTrainedModel
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from findistill.config.instantiate import resolve
from findistill.core.files import replacing_folder
from findistill.errors import UserError
from findistill.models.architecture import import_code, note_code
from findistill.models.config import Encoder, Shape
from findistill.models.folder import LABELS, THRESHOLDS, check_folder
from findistill.models.heads import Thresholds
from findistill.models.label_names import match_labels, same_labels
from findistill.models.opened import begun, check_code, check_opened
from findistill.models.weights import NO_CODE, loading, locate, quiet

SIZES = {  # field of a `Shape` -> name in a model's configuration
    "layers": "num_hidden_layers", "hidden": "hidden_size", "heads": "num_attention_heads", "intermediate": "intermediate_size",
}  # fmt: skip


def load(encoder: Encoder, names: Sequence[str], *, scalar: bool, seed: int) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The encoder to train, in float32, and its tokenizer; weights that it lacks, such as a new head, are drawn from `seed`.

    A model that already names exactly these labels keeps its head, with rows in the order of `names`. `scalar` asks for
    one output. Raises UserError if the weights or a layer number do not exist, or a shape does not fit.
    """
    model, tokenizer = with_head(encoder, AutoModelForSequenceClassification, ["score"] if scalar else list(names), seed)
    for key in (LABELS, THRESHOLDS):  # of a scalar head that the model had before
        if hasattr(model.config, key):
            delattr(model.config, key)
    return model, tokenizer


def with_head(encoder: Encoder, auto: Any, outputs: Sequence[str], seed: int) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model with one output for each name, and its tokenizer; see `begin` for `auto`.

    The head is that of the weights if they name just these outputs, with its rows in their order, and new otherwise.
    """
    labels = {"id2label": dict(enumerate(outputs)), "label2id": {name: i for i, name in enumerate(outputs)}}
    model, tokenizer, own = begin(encoder, auto, labels, seed)
    head = [module for module in model.modules() if isinstance(module, nn.Linear) and module.out_features == len(outputs)][-1]
    with torch.no_grad():
        if encoder.init == "pretrained" and same_labels(own, outputs):
            order = np.argsort(match_labels(own, outputs, model=encoder.name))
            for value in head.parameters():
                value.copy_(value[order].clone())
        else:
            noise = torch.randn(head.weight.shape, generator=torch.Generator().manual_seed(seed))
            head.weight.copy_(noise * getattr(model.config, "initializer_range", 0.02))
            if head.bias is not None:
                head.bias.zero_()
    return model, tokenizer


def begin(
    encoder: Encoder, auto: Any, labels: dict[str, Any], seed: int
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, list[str]]:
    """The model, initialised by `encoder.init`, its tokenizer, and the names its weights had for their outputs.

    `auto` is a class such as `AutoModelForSequenceClassification`, `labels` are settings of the model's configuration.
    `init=parent` takes the embeddings from the parent, see `_inherit`.
    """
    if encoder._target_:
        make = resolve(encoder._target_, "student._target_")  # teachers share this slot
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return *make(encoder, labels), []
    where = locate(encoder.model)
    check_folder(encoder.model, where)
    import_code(where)
    check_code(encoder.model, where)
    advice = "\nGive embedded:minilm_l6, a folder with config.json and weights, or a hub id that this machine can reach."
    with loading(f"model={encoder.model} (of {encoder.name}) cannot be loaded", advice), torch.random.fork_rng():
        torch.manual_seed(seed)
        config = AutoConfig.from_pretrained(where, **NO_CODE)
        tokenizer = AutoTokenizer.from_pretrained(where, **NO_CODE)
        own = [str(config.id2label[i]) for i in sorted(config.id2label or {})]
        if encoder.init == "pretrained":
            if encoder.shape is not None and encoder.shape != _shape(config):
                raise UserError(
                    f"shape={encoder.shape} (of {encoder.name}) differs from {_shape(config)}, the shape of {encoder.model}.\n"
                    "Use that shape, or for another one student.init=random or student.init=parent (teacher.init for a teacher)."
                )
            # float32 whatever the file holds; a head of another size is drawn anew
            model, info = auto.from_pretrained(
                where, dtype=torch.float32, ignore_mismatched_sizes=True, output_loading_info=True, **NO_CODE, **labels
            )
            check_opened(encoder.model, model, tokenizer, begun(info, model))
        else:
            parent = None
            if encoder.init == "parent":
                parent, info = AutoModel.from_pretrained(where, dtype=torch.float32, output_loading_info=True, **NO_CODE)
                check_opened(encoder.model, parent, tokenizer, {**info, "missing_keys": []})
            config.update(labels)
            if encoder.shape is not None:
                if config.model_type != "bert":
                    kind = config.model_type
                    raise UserError(f"shape={encoder.shape} (of {encoder.name}): {encoder.model} is {kind}, not BERT.")
                config.update({name: getattr(encoder.shape, ours) for ours, name in SIZES.items()})
            model = auto.from_config(config, dtype=torch.float32)
            if parent is not None:
                _inherit(model, parent, encoder)
    if encoder.layers is not None:
        _keep_layers(model, list(encoder.layers), encoder)
    return model, tokenizer, own


def _shape(config: PreTrainedConfig) -> Shape:
    """The size of a model; a number that its architecture lacks is 0."""
    return Shape(**{ours: getattr(config, name, 0) for ours, name in SIZES.items()})


@torch.no_grad()
def _inherit(model: PreTrainedModel, parent: PreTrainedModel, encoder: Encoder) -> None:
    """Initialise `model` from a larger BERT as far as possible.

    Its three embedding tables become the parent's, projected on the first principal components of the parent's word
    embeddings (uncentred: the best approximation of that table at this width). Encoder layers are random, unless the
    parent's have the same size: then every n-th is copied, always including the last. Raises UserError for a wider model.
    """
    base, width = model.base_model, model.config.hidden_size
    table = parent.embeddings.word_embeddings.weight
    if width > table.shape[1]:
        raise UserError(
            f"{encoder.name} has hidden size {width}, but {encoder.model} only {table.shape[1]}: "
            "start from random weights (student.init=random, or teacher.init=random for a teacher)"
        )
    same_width = width == table.shape[1]
    components = torch.eye(width) if same_width else torch.linalg.eigh(table.T @ table).eigenvectors.flip(1)[:, :width]
    for name, embedding in base.embeddings.named_children():
        if isinstance(embedding, nn.Embedding):
            embedding.weight.copy_(parent.embeddings.get_submodule(name).weight @ components)
        elif same_width:
            embedding.load_state_dict(parent.embeddings.get_submodule(name).state_dict())
    ours, theirs = _shape(model.config), _shape(parent.config)
    if replace(ours, layers=0) == replace(theirs, layers=0) and ours.layers <= theirs.layers:
        base.pooler.load_state_dict(parent.pooler.state_dict())
        for number, layer in enumerate(base.encoder.layer, 1):
            layer.load_state_dict(parent.encoder.layer[number * theirs.layers // ours.layers - 1].state_dict())


def depths(model: PreTrainedModel) -> dict[str, int]:
    """How far each parameter is from the output: 0 the head, 1 the top encoder layer, ..., layers + 1 the embeddings."""
    name, stack = layer_stack(model)
    depth_of, outside = {}, len(stack) + 1  # modules come in the order of the forward pass
    for parameter, _ in model.named_parameters():
        if parameter.startswith(f"{name}."):
            depth_of[parameter], outside = len(stack) - int(parameter.removeprefix(f"{name}.").partition(".")[0]), 0
        else:
            depth_of[parameter] = outside
    return depth_of


def layer_stack(model: PreTrainedModel) -> tuple[str, nn.ModuleList]:
    """The name of the module with the encoder layers, and the layers; an empty list if the model has none."""
    depth = getattr(model.config, "num_hidden_layers", 0)
    lists = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.ModuleList)]
    return next(((name, module) for name, module in lists if len(module) == depth), ("", nn.ModuleList()))


def _keep_layers(model: PreTrainedModel, layers: list[int], encoder: Encoder) -> None:
    name, stack = layer_stack(model)
    if not layers or not all(1 <= number <= len(stack) for number in layers):
        raise UserError(f"layers={layers} (of {encoder.name}): {encoder.model} has encoder layers 1 to {len(stack)}.")
    model.set_submodule(name, nn.ModuleList([stack[number - 1] for number in layers]))
    model.config.num_hidden_layers = len(layers)


def save(
    folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, names: Sequence[str], max_length: int,
    thresholds: Thresholds | None = None,
) -> None:  # fmt: skip
    """Write model and tokenizer to `folder`, completely or not at all (an older folder is replaced).

    The tokenizer stores `max_length`, so that `tokenizer(texts, truncation=True)` truncates as in training.
    """
    note_code(model)
    tokenizer.model_max_length = max_length
    # As in `encode_plain`, for anyone who loads the folder; only what is in `init_kwargs` is saved.
    tokenizer.split_special_tokens = tokenizer.init_kwargs["split_special_tokens"] = True
    if thresholds is not None:
        setattr(model.config, LABELS, list(names))
        setattr(model.config, THRESHOLDS, asdict(thresholds))
    with replacing_folder(folder) as aside:
        with quiet():
            model.save_pretrained(aside)
            tokenizer.save_pretrained(aside)
        if thresholds is not None:
            (aside / "thresholds.json").write_text(json.dumps(asdict(thresholds), indent=2) + "\n", encoding="utf-8")


def open_trained(model: str | Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A trained text classifier, in float32 and evaluation mode, and its tokenizer.

    Raises UserError if it cannot be loaded or is not a complete text classifier, see `models.folder`.
    """
    return _opened(model, "classifier", AutoModelForSequenceClassification)


def open_tagger(model: str | Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A trained token classifier, like `open_trained` for text classifiers."""
    return _opened(model, "token classifier", AutoModelForTokenClassification)


def _opened(model: str | Path, use: str, auto: Any) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    where = locate(str(model))
    check_folder(str(model), where, use)
    import_code(where)
    check_code(str(model), where)
    advice = "\nGive a model folder (such as runs/<study>/<job>/model) or a hub id that this machine can reach."
    with loading(f"the model {model} cannot be loaded", advice):
        loaded, info = auto.from_pretrained(where, dtype=torch.float32, output_loading_info=True, **NO_CODE)
        tokenizer = AutoTokenizer.from_pretrained(where, **NO_CODE)
    check_opened(str(model), loaded, tokenizer, info)
    return loaded.eval(), tokenizer
