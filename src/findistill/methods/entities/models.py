"""Training and loading the models of `entities.model` by name. A library is imported only for the model that needs it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from findistill.core.step import load
from findistill.data.spans import Marked
from findistill.errors import UserError
from findistill.inference.spans import SpanModel
from findistill.training.loop import Session
from findistill.training.trainer import Trained

HOME = "findistill.methods.entities"
INSTALL = {  # a model's optional package -> the command that installs it
    "gliner": "pip install 'findistill[gliner]'",
    "spacy": "pip install 'findistill[spacy]'",
}


def train(name: str, entities: Any, labels: Sequence[str], texts: Marked, validation: Marked, session: Session) -> Trained:
    """Train the model `name` with its section of `entities`, and write `model/` to the session's folder."""
    trained: Trained = _part(name, "fit")(entities[name], labels, texts, validation, session)
    return trained


def open_model(
    name: str, entities: Any, labels: Sequence[str], folder: Path | None = None, accelerator: str = "auto"
) -> SpanModel:
    """The model in `folder` or, if nothing was trained (None), the one named in its section of `entities`.

    Raises:
        UserError: its library is not installed, or the model cannot be opened.
    """
    section = entities.get(name)
    model: SpanModel = _part(name, "open_model")(section, labels, folder, accelerator)
    return model


def _part(name: str, function: str) -> Any:
    try:
        return load(f"{HOME}.{name}_model:{function}")
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in INSTALL:
            raise
        raise UserError(f"entities.model={name} needs the package {package}.\nInstall it: {INSTALL[package]}") from error
