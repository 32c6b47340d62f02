"""Encoders with an architecture that transformers lacks: how a new one is created, and how a saved one is loaded."""

from importlib import import_module
from pathlib import Path
from typing import NamedTuple, cast

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from findistill.config.targets import Slot, check_name, slot_of
from findistill.core.files import read_json
from findistill.errors import UserError
from findistill.models.folder import CODE


class NewEncoder(NamedTuple):
    """What the function behind `student._target_` returns: an untrained classifier, and its tokenizer."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase


def note_code(model: PreTrainedModel) -> None:
    """Record the model's class in its configuration, if transformers does not have it."""
    kind = type(model)
    if not kind.__module__.startswith("transformers."):
        setattr(model.config, CODE, f"{kind.__module__}.{kind.__qualname__}")


def import_code(folder: str) -> None:
    """Import the module that a saved model needs, so that transformers' Auto classes know its type.

    Raises:
        UserError: the module is of a package that is not allowed, or cannot be imported.
    """
    file = Path(folder) / "config.json"
    name = read_json(file).get(CODE) if file.is_file() else None
    if name is None:
        return
    check_name(f"{file}: {CODE}", name, cast(Slot, slot_of("student")))
    try:
        import_module(name.rpartition(".")[0])
    except ImportError as error:
        raise UserError(f"{file}: the model's code, {name}, cannot be loaded: {error}") from error
