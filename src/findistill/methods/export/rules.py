"""Rules of `stage=export`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from findistill.config.validate import rule
from findistill.errors import UserError
from findistill.methods.export.sources import annotations_at
from findistill.models.folder import is_linear, problems


@rule("export")
def exported(config: Any) -> Iterator[str]:
    model, export = config.evaluate.model, config.export
    if export.annotations:
        if model:
            yield f"evaluate.model={model} and export.annotations={export.annotations}: export one of them, remove the other"
        try:
            annotations_at(export.annotations)
        except UserError as error:
            yield str(error)
    elif not model:
        yield "stage=export needs evaluate.model (a run folder, a model folder or a hub id) or export.annotations (a run)"
    elif export.format == "onnx":
        if is_linear(model):
            yield (
                f"evaluate.model={model} is logistic regression, which cannot be exported as ONNX: choose a student, "
                "or add export.format=torch"
            )
        else:
            yield from problems(model, "classifier")
    elif not Path(model).is_dir():
        yield f"the model {model}: no such folder; export.format=torch needs one written by a findistill training"
    elif not any((folder / "README.md").is_file() for folder in (Path(model) / "model", Path(model))):
        yield (
            f"evaluate.model={model}: export.format=torch needs a run folder or a model folder with a card (README.md), "
            "as every findistill training writes it"
        )
    if export.texts is not None and not export.annotations:
        yield f"export.texts={str(export.texts).lower()} only works with export.annotations: a model's folder has no texts"


@rule("export")
def publishing(config: Any) -> Iterator[str]:
    export = config.export
    if export.push_to_hub is None and not export.dry_run:
        yield "export.dry_run=false: no destination is set; add export.push_to_hub=OWNER/NAME"
