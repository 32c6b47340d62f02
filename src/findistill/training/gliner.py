"""Training a GLiNER with its own loss in our training loop: validation texts choose epoch and threshold, by exact F1."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch

from findistill.data import training_texts
from findistill.data.spans import Marked, to_words
from findistill.models import gliner_model
from findistill.models.batches import BatchedRows
from findistill.models.gliner_model import LOWEST, Use
from findistill.models.windows import Predicted, WordWindows
from findistill.training.loop import Session, Training, freeing
from findistill.training.measured import MeasuredModule
from findistill.training.recipe import Recipe
from findistill.training.trainer import Trained

log = logging.getLogger(__name__)

ENCODER = "token_rep_layer"  # the part of a GLiNER with a separate learning rate in published recipes


@dataclass(frozen=True)
class Focal:
    """The focal loss: the weight of positives, and how much easy examples are down-weighted."""

    alpha: float
    gamma: float

    def settings(self) -> dict[str, Any]:
        """As arguments of GLiNER models."""
        return {**vars(self), "reduction": "sum", "masking": "none", "negatives": 1.0, "loss_type": "focal"}


@dataclass(frozen=True)
class WindowRows(BatchedRows):
    """Windows of texts with their spans; batches are in GLiNER's format, with `rows`, the indexes of their windows."""

    gliner: Any
    cut: WordWindows
    marked: Marked
    use: Use

    @classmethod
    def of(cls, gliner: Any, marked: Marked, use: Use) -> "WindowRows":
        return cls(gliner, WordWindows.of(marked.texts, use.max_length), marked, use)

    @property
    def lengths(self) -> np.ndarray:
        return self.cut.lengths

    def __getitem__(self, indexes: list[int]) -> dict[str, Any]:
        wording = dict(zip(self.use.labels, self.use.prompts, strict=True))
        spans = self.marked.spans
        examples = [self.cut.example(at, self.marked.texts, spans[self.cut.text[at]], wording) for at in indexes]
        batch = gliner_model.collate(self.gliner, examples, self.use.prompts, labels=True)
        return batch | {"rows": torch.tensor(indexes)}

    def wider_than(self, width: int) -> int:
        """How many spans have more than `width` words."""
        pairs = zip(self.marked.spans, self.cut.words, strict=True)
        return sum(last - first >= width for spans, words in pairs for first, last, _ in to_words(spans, words))


class GlinerModule(MeasuredModule):
    """Trains a GLiNER with its focal loss; evaluated by exact F1 with the best threshold, which is in the history."""

    def __init__(
        self, model: Any, recipe: Recipe | Mapping[str, Any], focal: Focal, validation: WindowRows, threshold: float | None
    ) -> None:
        super().__init__(model, recipe)
        self.focal, self.validation, self.threshold = focal.settings(), validation, threshold
        self._predicted: dict[int, Predicted] = {}  # of each window
        self._loss = 0.0

    def is_head(self, name: str) -> bool:
        return ENCODER not in name

    def training_loss(self, batch: dict[str, Any]) -> torch.Tensor:
        inputs = {name: value for name, value in batch.items() if name not in ("tokens", "id_to_classes", "rows")}
        loss: torch.Tensor = self.model(**inputs, **self.focal).loss
        return loss

    def validation_step(self, batch: dict[str, Any], index: int) -> None:
        rows = batch.pop("rows").tolist()
        predicted, loss = gliner_model.predict(self.model, batch, self.validation.use, LOWEST, **self.focal)
        self._loss += loss
        self._predicted |= dict(zip(rows, predicted, strict=True))

    def on_validation_epoch_end(self) -> None:
        predicted, total = self._predicted, self._loss
        self._predicted, self._loss = {}, 0.0
        if self.trainer.sanity_checking:
            return
        rows = self.validation
        scores = gliner_model.choose_threshold(
            rows.cut, [predicted[row] for row in range(len(rows))], rows.marked, rows.use, self.threshold
        )
        measured = {"val/loss": total / len(rows) * self.recipe.batch_size, **scores}  # in training, it is a sum over a batch
        self.log_dict(measured, batch_size=len(rows))
        self._end_epoch(measured)


@freeing()
def fit_gliner(
    begin: Callable[[], Any], recipe: Recipe, focal: Focal, use: Use, threshold: float | None, train: Marked, validation: Marked,
    session: Session, start: str,
) -> Trained:  # fmt: skip
    """Train a GLiNER and save `model` in the session's folder: the weights of the best validation epoch, which the gliner
    package can load, and in `findistill.json` how it is used, with the threshold chosen on validation texts.

    Args:
        begin: returns the initial model; torch's generator is seeded before.
        threshold: the one to use; None: the best on the validation texts or, without any, that of `use`.
        start: the folder or hub id of the initial model.
    """
    pl.seed_everything(session.seed, workers=True, verbose=False)
    model = begin().train()
    recipe, epoch = recipe.over(train, session.trainer.accumulate_grad_batches)
    rows, validation_rows = (WindowRows.of(model, part, use) for part in (epoch, validation))
    if wide := WindowRows.of(model, train, use).wider_than(model.config.max_width):
        log.warning(
            "%d of %d spans have more than %d words, which this GLiNER cannot mark; entities.gliner.max_width sets the limit "
            "of a new one", wide, sum(map(len, train.spans)), model.config.max_width,
        )  # fmt: skip
    module = GlinerModule(model, recipe, focal, validation_rows, threshold)
    times = Training(module, rows, validation_rows, recipe, session).run()
    chosen = module.history[module.best_epoch - 1].get("val/threshold", use.threshold)
    gliner_model.save(session.folder / "model", model, replace(use, threshold=chosen))
    training_texts.write(session.folder / "model", [*train.texts, *validation.texts], [start])
    return Trained.of(model, session.folder, module.history, module.best_epoch, times)
