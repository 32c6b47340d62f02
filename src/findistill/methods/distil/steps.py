"""`stage=student`: what a student learns from, as parents."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from findistill.core.step import ModelFolder, Step
from findistill.data.dataset import Dataset
from findistill.methods.annotate.steps import annotations
from findistill.methods.augment.steps import augmented
from findistill.methods.datasets import with_tests
from findistill.methods.finetune.steps import pretrained, teachers
from findistill.methods.stage import Stage
from findistill.models.files import model_files, weights_of
from findistill.training.config import asks_teacher


class Distil(Stage):
    """`stage=student`: train a small model on votes, or on the outputs of a teacher model."""

    implementation = "findistill.methods.distil.stage:run"
    check = "findistill.methods.rows:check_test_sets"

    def parents(self) -> dict[str, Step]:
        config = self._config
        parents = {**with_tests(config), **pretrained(config, "student"), **augmented(config)}
        if config.distill.source == "annotator":
            parents["annotations"] = annotations(config, extra=parents.get("augment"))
        elif config.distill.source == "folder":
            folder = config.distill.annotations
            parents["annotations"] = ModelFolder(folder, [Path(folder) / "annotations.parquet"])
        elif config.distill.source == "teacher" and asks_teacher(config.distill):
            parents |= teachers(config)
            if config.distill.unlabelled:
                parents["unlabelled"] = Dataset(config.distill.unlabelled)
        return parents

    def files(self) -> Iterable[Path]:
        return model_files(self._config.student.model)

    def models(self) -> Iterable[str]:
        return weights_of(self._config.student)

    def settings(self) -> dict[str, Any]:
        settings = super().settings()
        del settings["distill"]["annotations"]  # its content is a parent
        return settings
