"""findistill: distil large language models' labels of financial text into small models, and measure every step.

The public API is `__all__`; everything else may change between versions. It composes the same configuration as the command
line, runs the same steps and shares their artifacts. Nothing heavy is imported before one of these names is used.
"""

import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any

from findistill.errors import UserError

if TYPE_CHECKING:
    from findistill.api import AnnotationSet, Annotator, Classifier, Distiller, Run, TextSet, load_annotations, load_dataset

__version__ = "0.2.0.dev0"

# peft imports bitsandbytes, which logs every cast and kernels it could download: silenced here, before the first import.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)

__all__ = [
    "AnnotationSet",
    "Annotator",
    "Classifier",
    "Distiller",
    "Run",
    "TextSet",
    "UserError",
    "__version__",
    "load_annotations",
    "load_dataset",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("findistill.api"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
