"""New training texts, as steps."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from findistill.config.expand import annotators
from findistill.core.step import Step
from findistill.llm.identity import llm_files, llm_identity
from findistill.methods.augment.config import WRITTEN
from findistill.methods.cross_fit.steps import OutOfFold
from findistill.methods.datasets import demonstrations, model_at, with_tests
from findistill.methods.qlora.steps import Adapter, tuned_first
from findistill.methods.stage import Stage, without

OF_ERRORS = ("generate", "rephrase", "similar")  # start from the teacher's errors


class Augmented(Step):
    """The new texts that `augment` asks for, screened, with the provenance of every row."""

    name = "augment"
    version = 2  # special tokens in a text are treated as text
    reads = ("augment", "llm", "prompt", "shots", "annotate", "data.seed", "trainer.accelerator", "trainer.max_memory")
    implementation = "findistill.methods.augment.making:make"
    estimate = "findistill.methods.augment.making:requests"

    def parents(self) -> dict[str, Step]:
        config = self._config
        parents: dict[str, Step] = with_tests(config)
        if needs_teacher(config):
            augment = config.augment
            cross_fitted = OutOfFold(config, augment.folds, augment.seed)
            parents["teacher"] = model_at(augment.teacher) if augment.teacher else cross_fitted
        if config.augment.relabel == "llm":
            parents |= demonstrations(config)
            members = enumerate(annotators(config))
            parents |= {f"adapter/{number}": Adapter(member, seed=0) for number, member in members if tuned_first(member.llm)}
        return parents

    def files(self) -> Iterable[Path]:
        return llm_files(self._config.llm) if asks_llm(self._config) else ()

    def models(self) -> Iterable[str]:
        return [self._config.llm.model] if asks_llm(self._config) else ()

    def settings(self) -> dict[str, Any]:
        settings = super().settings()
        parts: dict[str, Any] = {"augment": without(settings["augment"], "name", "use", "teacher", "folds")}
        if asks_llm(self._config):
            parts |= {"llm": llm_identity(self._config.llm), "prompt": settings["prompt"]}
        if self._config.augment.relabel == "llm":
            parts |= {"shots": settings["shots"], "annotate": settings["annotate"]}
        return parts


def needs_teacher(config: Any) -> bool:
    """Whether new texts start from a teacher's errors or are relabelled by it."""
    return bool(set(OF_ERRORS) & set(config.augment.methods)) or config.augment.relabel == "teacher"


def asks_llm(config: Any) -> bool:
    """Whether an LLM writes new texts or relabels them."""
    return bool(set(WRITTEN) & set(config.augment.methods)) or config.augment.relabel == "llm"


def augmented(config: Any) -> dict[str, Step]:
    """The parent `augment` of a training, if `augment.use` is set."""
    return {"augment": Augmented(config)} if config.augment.use else {}


class Augment(Stage):
    """`stage=augment`: new training texts, created from the labelled ones and filtered."""

    implementation = "findistill.methods.augment.stage:run"
    preview = "findistill.methods.augment.making:preview"

    def parents(self) -> dict[str, Step]:
        return {"augment": Augmented(self._config)}
