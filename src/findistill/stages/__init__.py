"""The verbs of the pipeline, one module each, imported when they run.

A stage module has `READS`, the sections of the configuration that determine its result, and `run(job)`, which reads
artifacts through the job and leaves its files in the job's folder. `report` works on a whole study instead.
"""

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from findistill.settings.schema import Config

STAGES = ("annotate", "fewshot", "augment", "teacher", "student", "qlora", "evaluate", "export", "report")


def reads(config: "Config") -> tuple[str, ...]:
    """The sections that determine a job of this configuration: its stage's `READS`, or what its `reads(config)` says."""
    stage = load(config.stage.name)
    return stage.reads(config) if hasattr(stage, "reads") else stage.READS


def load(name: str) -> ModuleType:
    return importlib.import_module(f"findistill.stages.{name}")
