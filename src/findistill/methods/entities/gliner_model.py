"""`entities.model=gliner`: a GLiNER trained from an encoder, fine-tuned from a published one, or used as it is."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from findistill.config.overrides import mapping_of
from findistill.data.spans import Marked
from findistill.errors import UserError
from findistill.inference import gliner as inference
from findistill.models import gliner_model
from findistill.models.gliner_model import Use
from findistill.training.gliner import Focal, fit_gliner
from findistill.training.loop import Session
from findistill.training.recipe import Recipe
from findistill.training.trainer import Trained


def fit(section: Any, labels: Sequence[str], train: Marked, validation: Marked, session: Session) -> Trained:
    """Train it; see `training.gliner`."""
    recipe = Recipe.of(section, session.trainer, head_learning_rate=section.head_learning_rate)
    if section.model:
        begin = partial(gliner_model.open_gliner, section.model)
    else:
        begin = partial(gliner_model.begin, section.encoder, max_width=section.max_width, max_length=recipe.max_length)
    use = Use.of(labels, mapping_of(section.prompts), section.threshold, recipe.max_length)
    focal = Focal(section.focal_alpha, section.focal_gamma)
    start = section.model or section.encoder
    return fit_gliner(begin, recipe, focal, use, section.threshold, train, validation, session, start)


def open_model(section: Any, labels: Sequence[str], folder: Path | None, accelerator: str) -> inference.Gliner:
    """The trained model in `folder`, or `entities.gliner.model` as it is, with its own threshold or 0.5."""
    if folder is None and not section.model:
        raise UserError("entities.source=none uses a GLiNER as it is; set entities.gliner.model to a folder or hub id")
    stored = gliner_model.use_of(gliner_model.folder_of(folder or section.model))
    if folder is None and (stored is None or set(stored.labels) != set(labels)):
        stored = Use.of(labels, mapping_of(section.prompts), section.threshold, section.max_length)
    assert stored is not None
    return inference.open_model(folder or section.model, stored, accelerator)
