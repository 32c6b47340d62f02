"""Models that a job may need first: an encoder pretrained on the domain, and the students' teacher."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from findistill.config.compose import with_overrides
from findistill.core.step import Step
from findistill.data.dataset import Dataset
from findistill.methods.augment.steps import augmented
from findistill.methods.datasets import model_at, with_tests
from findistill.methods.stage import Stage, without
from findistill.methods.trainer_settings import SCHEDULE, loop
from findistill.models.files import model_files, weights_of


class Pretrained(Step):
    """The encoder of a role (`teacher`, `student`) after masked-language pretraining on texts of the domain."""

    name = "pretrain"
    version = 2  # special tokens in a text are encoded as text
    implementation = "findistill.methods.finetune.models:pretrain_encoder"
    resumable = True

    def __init__(self, config: Any, role: str) -> None:
        super().__init__(config)
        self.role = role
        parts = ("name", "model", "init", "layers", "shape", "pretrain", "batch_size", "max_length")
        self.reads = (*(f"{role}.{part}" for part in parts), *loop(config), "trainer.batch_size", "trainer.max_length")

    def parents(self) -> dict[str, Step]:
        return {**with_tests(self._config), "texts": Dataset(self._config[self.role].pretrain.source)}

    def files(self) -> Iterable[Path]:
        return model_files(self._config[self.role].model)

    def models(self) -> Iterable[str]:
        return weights_of(self._config[self.role])

    def settings(self) -> dict[str, Any]:
        settings = super().settings()
        return {"encoder": without(settings.pop(self.role), "name"), **settings}


def pretrained(config: Any, role: str) -> dict[str, Step]:
    """The parent `pretrained`, if this role's encoder is pretrained first."""
    return {"pretrained": Pretrained(config, role)} if config[role].pretrain.source else {}


class TeacherTraining(Step):
    """The encoder of a role's section (`teacher`) and what it is trained on."""

    role = "teacher"

    def parents(self) -> dict[str, Step]:
        return {**with_tests(self._config), **pretrained(self._config, self.role), **augmented(self._config)}

    def files(self) -> Iterable[Path]:
        return model_files(self._config[self.role].model)

    def models(self) -> Iterable[str]:
        return weights_of(self._config[self.role])


class TeacherModel(TeacherTraining):
    """The `teacher` section's encoder trained on the data's human labels, shared by all students of a sweep."""

    name = "teacher"
    version = 4  # min_steps: several passes over few texts within an epoch, or more epochs if that takes fewer steps
    implementation = "findistill.methods.finetune.models:train_teacher"
    resumable = True

    def __init__(self, config: Any, seed: int = 0) -> None:
        super().__init__(config)
        self.reads = (self.role, *loop(config), *SCHEDULE)
        self.seed = seed

    def settings(self) -> dict[str, Any]:
        return {**super().settings(), "seed": self.seed}


class LabelledStudent(TeacherModel):
    """The `student` section's encoder trained on the data's human labels: the baseline of distillation."""

    name = "labelled_student"
    role = "student"

    def __init__(self, config: Any) -> None:
        super().__init__(config, int(config.seed))
        # A job's own training settings apply to its student.
        self.reads += tuple(f"trainer.{name}" for name in ("max_epochs", "batch_size", "learning_rate", "max_length"))


def teacher(config: Any) -> Step:
    """The teacher that `distill.teacher` names, or else the one that the `teacher` section describes."""
    return model_at(config.distill.teacher) if config.distill.teacher else TeacherModel(config)


def teachers(config: Any) -> dict[str, Step]:
    """The parents `teacher`, and `teacher/1`, ..., `teacher/embeddings`, ... if there are several."""
    steps = {"teacher": teacher(config)}
    steps |= {f"teacher/{seed}": TeacherModel(config, seed) for seed in range(1, config.distill.teachers)}
    for name in config.distill.linear_teachers:
        steps[f"teacher/{name}"] = TeacherModel(with_overrides(config, f"teacher={name}", "distill.linear_teachers"))
    return steps


class Finetune(TeacherTraining, Stage):
    """`stage=teacher`: fine-tune an encoder on human labels."""

    implementation = "findistill.methods.finetune.stage:run"
    check = "findistill.methods.rows:check_test_sets"
