"""Resolve a model's name to how it is opened: its kind, and whether it is first exported to ONNX, once."""

import logging
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download

from findistill.core import hardware
from findistill.core.files import read_json
from findistill.core.hashing import content
from findistill.core.step import load
from findistill.core.store import Store
from findistill.errors import UserError
from findistill.inference import onnx_model, tagging
from findistill.inference.predictors import Spec, open_predictor
from findistill.models.files import model_files
from findistill.models.folder import GLINER_CONFIG, adapter_folder, check_folder, is_gliner, is_linear
from findistill.models.weights import HUB_ID, NO_CODE, loading, locate

log = logging.getLogger(__name__)

LANGUAGE_MODELS = "findistill.methods.predict.language_models:"  # imported only when needed: it takes a second
OPSET = 18
INT8 = "int8_dynamic"
CHECKED = 256  # texts on which 8-bit weights are compared with 32-bit ones
ALIKE = 0.98  # share of equal labels below which a warning is logged


def spec_of(model: str, section: Any, trainer: Any, store: Store, setting: str = "predict") -> Spec:
    """How to open `model`, with the weights that the section `setting` requests.

    ONNX files exported for it are artifacts of the store.

    Raises:
        UserError: it is not a model that labels texts, or is not available with these weights.
    """
    common = {"batch_size": section.batch_size, "max_length": trainer.max_length, "types": tuple(section.types)}
    on_cpu = trainer.accelerator == "cpu" or hardware.device() == "cpu"
    weights = section.weights if section.weights != "auto" else "int8" if on_cpu else "torch"
    chosen = f"{setting}.weights={section.weights}"
    if file := onnx_model.find(model, f"{setting}.model"):
        if section.weights == "torch":
            raise UserError(f"{chosen}: {model} is an ONNX file, whose weights cannot be changed: set {setting}.weights=auto")
        beside = file.with_name(onnx_model.file_name(INT8))
        if Path(model).suffix != ".onnx" and weights == "int8" and beside.is_file():
            file = beside
        return Spec(_kind_of_file(file), str(file), **common)
    accelerator = "cpu" if on_cpu else trainer.accelerator
    spec: Spec | None = None
    if is_linear(model):
        spec, noun = Spec("linear", model, **common), "logistic regression"
    elif folder := adapter_folder(Path(model)):
        spec, noun = load(LANGUAGE_MODELS + "of_adapter")(folder), "an adapter"
    elif is_gliner(Path(model)) or _is_gliner_of_hub(model):
        spec, noun = Spec("gliner", model, accelerator, **common), "a GLiNER"
    if spec:
        if section.weights in ("int8", "fp32"):
            raise UserError(f"{chosen}: {noun} is not exported to ONNX, so it has no such weights: set {setting}.weights=auto")
        return spec
    kind = "token" if _is_token_classifier(model) else "classifier"
    if weights != "torch":
        try:
            folder = exported(model, kind, trainer, store)
            return Spec(kind, str(folder / onnx_model.file_name("fp32" if weights == "fp32" else INT8)), **common)
        except UserError as error:
            if section.weights != "auto":
                raise UserError(f"{error}\n{setting}.weights=torch uses the model without exporting it") from error
            opener = load("findistill.models.encoders:open_trained") if kind == "classifier" else tagging.open_model
            opener(model)  # raises if it is broken whatever the weights
            log.info("%s; using %s", str(error).splitlines()[0], f"{setting}.weights=torch")
    return Spec(kind, model, accelerator, **common)


def exported(model: str, kind: str, trainer: Any, store: Store) -> Path:
    """The folder with the model's ONNX files, float32 and 8-bit; created if missing."""

    def make(folder: Path) -> None:
        log.info("exporting %s to ONNX, once", model)
        if kind == "token":
            tagging.export(model, folder, OPSET)
            return
        load("findistill.inference.onnx_export:write_classifier")(model, folder, OPSET, trainer)

    files = content(model_files(model)) or {"hub": model}
    return store.get("onnx", {"files": files, "kind": kind, "opset": OPSET, "max_length": trainer.max_length, "version": 1}, make)


def compare_with_float32(spec: Spec, texts: list[str], setting: str = "predict") -> dict[str, float]:
    """`int8_agreement`: the share of `CHECKED` texts on which the 8-bit file answers as the 32-bit one beside it.

    Empty if there is no such pair.
    """
    file = Path(spec.model)
    plain = file.with_name(onnx_model.file_name("fp32"))
    if "int8" not in file.name or not plain.is_file() or not texts:
        return {}
    some = texts[:CHECKED]
    first, second = (
        open_predictor(replace(spec, model=str(path))).answer(some).table.column(0).to_pylist() for path in (file, plain)
    )
    share = sum(one == other for one, other in zip(first, second, strict=True)) / len(some)
    if share < ALIKE:
        log.warning(
            "8-bit weights change the answer for %.1f%% of %d texts; %s uses 32-bit ones", 100 - 100 * share, len(some),
            f"{setting}.weights=fp32",
        )  # fmt: skip
    return {"int8_agreement": share}


def _kind_of_file(file: Path) -> str:
    """The kind of an ONNX file: `token` if its labels are BIO tags."""
    labels, _ = onnx_model.companions(file)
    others = [label for label in labels if label != "O"]
    return "token" if others and len(others) < len(labels) and all(name[:2] in ("B-", "I-") for name in others) else "classifier"


def _is_gliner_of_hub(model: str) -> bool:
    if Path(model).exists() or not HUB_ID.fullmatch(model):
        return False
    locate(model)  # falls back to the local cache if the hub is unreachable
    with suppress(OSError, ValueError):  # no such file, or an error that opening the model reports
        hf_hub_download(model, GLINER_CONFIG)
        return True
    return False


def _is_token_classifier(model: str) -> bool:
    where, classes = Path(locate(model)), None
    check_folder(model, str(where))
    if where.exists():
        with suppress(OSError, ValueError, AttributeError):  # opening it reports what is wrong
            classes = read_json(where / "config.json").get("architectures")
    else:
        with loading(f"the model {model} cannot be loaded", "\nGive a folder, or a hub id that this machine can reach."):
            classes = load("transformers:AutoConfig").from_pretrained(str(where), **NO_CODE).architectures
    return str((classes or [""])[0]).endswith("TokenClassification")
