"""Rules of `stage=evaluate` and `stage=export`, which take a model that is there."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from findistill.config.validate import rule
from findistill.models.folder import is_linear, is_onnx, problems


@rule("evaluate", "export")
def model(config: Any) -> Iterator[str]:
    stage = config.stage.name
    if not config.evaluate.model:
        onnx = ", or an ONNX file" if stage == "evaluate" else ""
        yield f"stage={stage} needs evaluate.model: a run folder, a model folder or a hub id{onnx}"
    elif stage == "export" and is_linear(config.evaluate.model):
        yield f"evaluate.model={config.evaluate.model} is logistic regression, which is not exported: name a student"
    elif stage == "export" or not is_onnx(Path(config.evaluate.model)):
        yield from problems(config.evaluate.model, "classifier")
