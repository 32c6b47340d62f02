"""Baselines as steps: shared by all jobs with the same test rows and labels."""

from collections.abc import Sequence
from typing import Any

from findistill.core.step import Step
from findistill.methods.annotate.steps import annotations
from findistill.methods.datasets import ALSO, DATA, demonstrations, with_tests
from findistill.methods.finetune.steps import LabelledStudent, teachers
from findistill.training.config import asks_teacher

MODELS = ("encoder", "teacher")  # kinds that are models of a parent step
NEIGHBOURS = 8  # that vote if prompts have no demonstrations
LEARNERS = ("teacher", "qlora")  # stages that learn from human labels

# Which rows a job of a stage is scored on.
TESTS, ANNOTATED, LIMITED = "test rows", "annotated rows", "limited test rows"


class Baseline(Step):
    """One baseline on the rows that the job of `config` is scored on."""

    name = "baseline"
    version = 5  # min_steps may add epochs, not only passes within each
    implementation = "findistill.methods.baselines.models:predict_test_sets"

    def __init__(self, config: Any, kind: str) -> None:
        super().__init__(config)
        self.kind = kind
        stage = config.stage.name
        limited = LIMITED if config.fewshot.limit is not None else TESTS  # without a limit, other stages use the same rows
        self.rows = {"annotate": ANNOTATED, "fewshot": limited}.get(stage, TESTS)
        self.k = config.shots.k if stage not in LEARNERS and config.shots.k else NEIGHBOURS
        limit = {ANNOTATED: ("annotate.limit",), LIMITED: ("fewshot.limit",)}.get(self.rows, ())
        self.label_map = "distill.label_map" if kind == "teacher" else "evaluate.label_map"
        self.reads = ("data.seed", "trainer.accelerator", "trainer.max_length", self.label_map, *limit)

    def parents(self) -> dict[str, Step]:
        config = self._config
        parents = with_tests(config)
        if self.kind not in MODELS and config.stage.name not in LEARNERS:
            parents |= demonstrations(config)
        if self.kind == "annotator":
            sets = [DATA, *(role for role in parents if role.startswith(ALSO))]
            parents |= {f"annotations/{number}": annotations(config, f"test/{number}") for number in range(len(sets))}
        if self.kind == "teacher":
            parents |= {role.replace("teacher", "model"): step for role, step in teachers(config).items()}
        if self.kind == "encoder":
            parents["model"] = LabelledStudent(config)
        return parents

    def settings(self) -> dict[str, Any]:
        settings = super().settings()
        return {
            "kind": self.kind,
            "rows": self.rows,
            "k": self.k if self.kind == "neighbours" else None,
            "max_length": settings["trainer"]["max_length"] if self.kind in MODELS else None,
            "limits": {name: settings[name]["limit"] for name in ("annotate", "fewshot") if name in settings},
            "label_map": settings[self.label_map.partition(".")[0]]["label_map"],
            "seed": settings["data"]["seed"],
        }

    def title(self) -> str:
        """The name in tables."""
        config = self._config
        if self.kind == "teacher":
            number = config.distill.teachers
            noun = "teacher" if number == 1 else f"{number} teachers"
            names = ([] if config.distill.teacher else [config.teacher.name]) + list(config.distill.linear_teachers)
            return f"the students' {noun}" + (f", {' and '.join(names)}" if names else "")
        return {
            "majority": "majority class",
            "neighbours": f"nearest-neighbour vote (k={self.k})",
            "tfidf": "TF-IDF and logistic regression",
            "embeddings": "frozen MiniLM and logistic regression",
            "encoder": f"{config.student.name} on human labels",
            "annotator": f"annotator ({_annotator(config)})",
        }[self.kind]


def _annotator(config: Any) -> str:
    annotate = config.annotate
    if annotate.ensemble:
        return f"{annotate.combine} of {len(annotate.ensemble)} annotators"
    return f"{config.llm.name}, {annotate.samples} samples"


def baselines(config: Any, kinds: Sequence[str]) -> list[Baseline]:
    """The baselines of these kinds that a job of this configuration can have."""
    student = config.stage.name == "student"
    from_votes = student and config.distill.source == "annotator"
    from_model = student and config.distill.source == "teacher" and asks_teacher(config.distill)
    possible = {"majority", "neighbours", "tfidf", "embeddings"}
    possible |= {"annotator", "encoder"} if from_votes else {"teacher"} if from_model else set()
    return [Baseline(config, kind) for kind in kinds if kind in possible]
