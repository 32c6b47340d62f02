"""The models of all folds, as a step that augmentation and annotators share."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from findistill.core.step import Step
from findistill.methods.datasets import with_tests
from findistill.methods.trainer_settings import SCHEDULE, loop
from findistill.models.files import model_files, weights_of


class OutOfFold(Step):
    """The `teacher` section's encoder, cross-fitted on the labelled rows in `folds` folds: each row is predicted by a model
    that has not seen it."""

    name = "folds"
    version = 3  # min_steps may add epochs, not only passes within each
    implementation = "findistill.methods.cross_fit.folds:cross_fit_teacher"
    resumable = True

    def __init__(self, config: Any, folds: int, seed: int = 0) -> None:
        super().__init__(config)
        self.folds, self.seed = folds, seed
        self.reads = ("teacher", *loop(config), *SCHEDULE)

    def settings(self) -> dict[str, Any]:
        return {**super().settings(), "folds": self.folds, "seed": self.seed}

    def parents(self) -> dict[str, Step]:
        return with_tests(self._config)

    def files(self) -> Iterable[Path]:
        return model_files(self._config.teacher.model)

    def models(self) -> Iterable[str]:
        return weights_of(self._config.teacher)
