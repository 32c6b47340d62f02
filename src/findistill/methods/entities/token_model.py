"""`entities.model=token`: a token classifier on any encoder."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from findistill.data.spans import Marked
from findistill.inference import tagging
from findistill.models.config import Encoder
from findistill.training.loop import Session
from findistill.training.tagger import fit_tagger
from findistill.training.trainer import Trained

USAGE = """from transformers import pipeline

mark = pipeline("token-classification", model="PATH_OF_THIS_FOLDER", aggregation_strategy="first")
print(mark("Shares of Acme Corp rose."))"""


def fit(section: Any, labels: Sequence[str], train: Marked, validation: Marked, session: Session) -> Trained:
    """Train it; see `training.tagger`."""
    names = ("layers", "epochs", "min_steps", "batch_size", "learning_rate", "max_length")
    recipe = {name: section[name] for name in names}
    encoder = Encoder(name="token", model=section.model or section.encoder, **recipe)
    return fit_tagger(encoder, labels, train, validation, session)


def open_model(section: Any, labels: Sequence[str], folder: Path | None, accelerator: str) -> tagging.TokenClassifier:
    """The trained model in `folder`, or `entities.token.model` as it is."""
    return tagging.open_model(folder or section.model, accelerator)
