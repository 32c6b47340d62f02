"""Rules of `stage=evaluate`, which needs an existing model."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from findistill.config.validate import rule
from findistill.models.folder import is_onnx, problems


@rule("evaluate")
def model(config: Any) -> Iterator[str]:
    if not config.evaluate.model:
        yield "stage=evaluate needs evaluate.model: a run folder, a model folder, a hub id or an ONNX file"
    elif not is_onnx(Path(config.evaluate.model)):
        yield from problems(config.evaluate.model, "classifier")
