"""Rules of `stage=evaluate` and `stage=export`, which take a model that is there."""

from collections.abc import Iterator
from typing import Any

from findistill.config.validate import rule


@rule("evaluate", "export")
def model(config: Any) -> Iterator[str]:
    stage = config.stage.name
    if not config.evaluate.model:
        onnx = ", or an ONNX file" if stage == "evaluate" else ""
        yield f"stage={stage} needs evaluate.model: a run folder, a model folder or a hub id{onnx}"
