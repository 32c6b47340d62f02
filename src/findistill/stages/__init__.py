"""The verbs of the pipeline, one module each, imported when they run.

A stage module has `READS`, the sections of the configuration that determine its result, and `run(job)`, which reads
artifacts through the job and leaves its files in the job's folder. `report` works on a whole study instead.
"""

import importlib
from types import ModuleType

STAGES = ("annotate", "fewshot", "teacher", "student", "evaluate", "report")


def load(name: str) -> ModuleType:
    return importlib.import_module(f"findistill.stages.{name}")
