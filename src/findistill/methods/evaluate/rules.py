"""Rules of `stage=evaluate` and `stage=export`, which take a model that is there."""

from collections.abc import Iterator
from typing import Any

from findistill.config.overrides import as_typed
from findistill.config.validate import rule


@rule("evaluate", "export")
def model(config: Any) -> Iterator[str]:
    stage = config.stage.name
    if not config.evaluate.model:
        onnx = ", or an ONNX file" if stage == "evaluate" else ""
        yield f"stage={stage} needs evaluate.model: a run folder, a model folder or a hub id{onnx}"


@rule("teacher", "student", "qlora", "fewshot")
def further_sets(config: Any) -> Iterator[str]:
    """A model that learns or chooses among `data.labels` can give no other label, whatever a further test set has."""
    own = config.data.labels
    for data in config.evaluate.also if own is not None and config.evaluate.label_map is None else ():
        if data.labels and (missing := [name for name in data.labels if name.casefold() not in {one.casefold() for one in own}]):
            said = as_typed("evaluate.label_map", {name: name for name in own}, own)
            yield (
                f"evaluate.also={data.name} has the label {missing[0]}, which data.labels=[{','.join(own)}] lacks: a model of "
                f"these never gives it. Say so with {said}, or leave that set out"
            )
