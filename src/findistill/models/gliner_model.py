"""GLiNER models (Zaratiana et al. 2023): creating one on an encoder, loading, saving and predicting.

This module needs the package gliner, so only code that needs a GLiNER imports it.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gliner import GLiNER
from gliner.config import GLiNERConfig
from huggingface_hub import snapshot_download
from transformers import AutoConfig, PretrainedConfig

from findistill.core.files import read_json, replacing_folder, write_json
from findistill.data.span_counts import validation_scores
from findistill.data.spans import Marked
from findistill.errors import UserError
from findistill.models.folder import GLINER_CONFIG as CONFIG
from findistill.models.folder import check_folder, only_pickle
from findistill.models.weights import NO_CODE, loading, locate
from findistill.models.windows import Predicted, WordWindows

log = logging.getLogger(__name__)

COMPANION = "findistill.json"  # in a model's folder: how it is used
THRESHOLD = 0.5  # of an untrained model
LOWEST = 0.05  # thresholds tried: from this value up, in steps of this size
ADVICE = "\nGive a GLiNER folder (such as runs/<study>/<job>/model) or a hub id that this machine can reach."


@dataclass(frozen=True)
class Use:
    """How a model is used.

    Attributes:
        labels: the types of entities.
        prompts: the wording of each for the model, in the same order.
        threshold: the probability above which a span counts.
        max_length: words of a window.
    """

    labels: tuple[str, ...]
    prompts: tuple[str, ...]
    threshold: float
    max_length: int

    @classmethod
    def of(cls, labels: Sequence[str], wording: Mapping[str, str] | None, threshold: float | None, max_length: int) -> "Use":
        """Types without an entry in `wording` are their own prompts.

        Raises:
            UserError: `wording` has an entry that is not a type.
        """
        wording = dict(wording or {})
        if unknown := sorted(set(wording) - set(labels)):
            raise UserError(f"entities.gliner.prompts: {unknown[0]!r} is not one of the data's types, {', '.join(labels)}")
        prompts = tuple(str(wording.get(label, label)) for label in labels)
        return cls(tuple(labels), prompts, THRESHOLD if threshold is None else threshold, max_length)


def begin(encoder: str, *, max_width: int, max_length: int) -> Any:
    """A new GLiNER on a pretrained encoder; its own layers are drawn from torch's generator.

    Raises:
        UserError: the encoder cannot be loaded, or needs custom code.
    """
    where = locate(encoder)
    check_folder(encoder, where)
    _check_encoder(encoder, where)
    with loading(f"entities.gliner.encoder={encoder} cannot be loaded", "\nGive embedded:minilm_l6, a folder or a hub id."):
        width = AutoConfig.from_pretrained(where, **NO_CODE).hidden_size  # fails if the encoder needs custom code
        config = GLiNERConfig(model_name=where, hidden_size=width, max_width=max_width, max_len=max_length, dropout=0.1)
        return GLiNER.from_config(config, backbone_from_pretrained=True, local_files_only=Path(where).exists())


def folder_of(reference: str | Path) -> Path:
    """The local folder with the files of a model folder, a run folder or a hub id.

    Raises:
        UserError: the hub has no such model, or cannot be reached.
    """
    folder = Path(reference)
    folder = folder / "model" if (folder / "model" / CONFIG).exists() else folder
    if not folder.exists():
        locate(str(reference))  # whether the hub can be reached
        with loading(f"the model {reference} cannot be loaded", ADVICE):
            folder = Path(snapshot_download(str(reference)))
    return folder


def open_gliner(reference: str | Path, *, onnx_file: str | None = None) -> Any:
    """A GLiNER folder (or run folder) or hub id, in evaluation mode; with `onnx_file`, that file of the folder instead of torch.

    Raises:
        UserError: it is not a GLiNER, its weights are a pickle, or it needs custom code.
    """
    folder = folder_of(reference)
    if not (folder / CONFIG).is_file():
        raise UserError(f"the model {reference} is not a GLiNER model: it has no {CONFIG}.{ADVICE}")
    if not onnx_file and not any(folder.glob("*.safetensors")):
        raise UserError(_no_weights(reference, folder))
    try:
        settings = read_json(folder / CONFIG)
    except ValueError as error:
        raise UserError(f"the model {reference}: {CONFIG} cannot be read ({error})") from error
    if any(isinstance(nested, Mapping) and nested.get("auto_map") for nested in settings.values()):
        raise UserError(f"the model {reference} needs its own code (auto_map in its {CONFIG}), which findistill does not run")
    for config, name in (("encoder_config", "model_name"), ("labels_encoder_config", "labels_encoder")):
        if settings.get(name) and not settings.get(config):
            _check_encoder(reference, settings[name])
    runtime = {"runtime": "onnxruntime", "runtime_model_file": onnx_file} if onnx_file else {}
    with loading(f"the model {reference} cannot be loaded", ADVICE):
        return GLiNER.from_pretrained(str(folder), local_files_only=True, **runtime).eval()


def _check_encoder(reference: str | Path, where: str | Path) -> None:
    """Refuse an encoder with custom code: gliner loads encoders with `trust_remote_code`, whatever their architecture.

    Raises:
        UserError: it needs custom code, or its configuration cannot be read.
    """
    with loading(f"the model {reference} cannot be loaded", ADVICE):
        config, _ = PretrainedConfig.get_config_dict(str(where))
    if config.get("auto_map"):
        raise UserError(f"the model {reference}: its encoder has its own code (auto_map), which findistill does not run")


def _no_weights(reference: str | Path, folder: Path) -> str:
    pickle = folder / "pytorch_model.bin"
    if not pickle.exists():
        return f"the model {reference} has no weights (model.safetensors)"
    return only_pickle(str(reference), pickle)


def save(folder: Path, model: Any, use: Use) -> None:
    """Write model, tokenizer and `use` to `folder`, completely or not at all; the gliner package can load it."""
    config = model.config
    place, config.model_name = config.model_name, Path(config.model_name).name  # no local path
    inner = config.encoder_config
    named, inner._name_or_path = inner._name_or_path, ""
    try:
        with replacing_folder(folder) as aside:
            model.save_pretrained(aside, safe_serialization=True)
            write_json(aside / COMPANION, {**vars(use)})
    finally:
        config.model_name, inner._name_or_path = place, named


def use_of(folder: Path) -> Use | None:
    """How to use a model that `save` wrote; None for any other."""
    path = folder / COMPANION
    if not path.exists():
        return None
    stored = read_json(path)
    return Use(tuple(stored["labels"]), tuple(stored["prompts"]), stored["threshold"], stored["max_length"])


def collate(model: Any, examples: Sequence[dict[str, Any]], prompts: Sequence[str], *, labels: bool) -> dict[str, Any]:
    """A batch as the model and `predict` take it; with `labels`, including the training targets."""
    collator = model.data_collator_class(
        model.config, data_processor=model.data_processor, return_tokens=True, return_id_to_classes=True, prepare_labels=labels
    )
    batch: dict[str, Any] = collator(list(examples), entity_types=[list(prompts)] * len(examples))
    return batch


@torch.inference_mode()
def predict(model: Any, batch: dict[str, Any], use: Use, floor: float, **loss: Any) -> tuple[list[Predicted], float]:
    """The spans of each row above `floor`, without overlaps; and the batch's loss, 0 if it has no labels.

    Overlaps are resolved from the most probable down, so that the spans above a higher threshold are a subset of these.

    Args:
        loss: settings of the loss.
    """
    label = dict(zip(use.prompts, use.labels, strict=True))
    output = model.run_batch(batch, threshold=floor, move_to_device=True, **loss)
    loss_of_batch = float(output.loss) if "labels" in batch else 0.0
    output = type(output)(**{name: value for name, value in output.items() if name != "loss"})  # the first value is decoded
    decoded = model.decode_batch(output, batch, threshold=floor, flat_ner=True)
    rows = [[(span.start, span.end, label[span.entity_type], float(span.score)) for span in row] for row in decoded]
    return rows, loss_of_batch


def choose_threshold(
    cut: WordWindows, predicted: Sequence[Predicted], gold: Marked, use: Use, fixed: float | None
) -> dict[str, float]:
    """Validation scores with the `fixed` threshold, or with that of the best exact F1 (among equals, the nearest to 0.5), which
    is `val/threshold`."""
    steps = np.arange(LOWEST, 1, LOWEST).round(2).tolist() if fixed is None else [fixed]
    best: dict[str, float] = {}
    for threshold in sorted(steps, key=lambda each: abs(each - THRESHOLD)):
        scores = validation_scores(gold.spans, cut.spans(predicted, threshold), use.labels)
        if not best or scores["val/f1"] > best["val/f1"]:
            best = {**scores, "val/threshold": threshold}
    return best
