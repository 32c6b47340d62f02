"""Which steps `stage=entities` consists of: `entities.step`."""

from typing import Any

from findistill.config.targets import target
from findistill.core.step import load
from findistill.methods.stage import Stage

STAGES = {
    "label": "findistill.methods.extract.steps:Label",
    "sample": "findistill.methods.sampling.steps:Sample",
    "train": "findistill.methods.entities.steps:Entities",
}


@target("stage")
def stage(config: Any) -> Stage:
    """The stage that `entities.step` names. Steps before the training add their own name to the stage's."""
    step = config.entities.step
    chosen: Stage = load(STAGES[step])(config)
    chosen.name += "" if step == "train" else f" {step}"
    return chosen
