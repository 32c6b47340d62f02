"""`entities.model=spacy`: a spaCy pipeline, off the shelf."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from findistill.inference.spacy_model import Pipeline, open_pipeline


def open_model(section: Any, labels: Sequence[str], folder: Path | None, accelerator: str) -> Pipeline:
    """The pipeline of `entities.spacy`; its entities get the data's first type."""
    return open_pipeline(section.model, list(section.types), labels[0])
