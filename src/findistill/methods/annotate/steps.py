"""Annotations: the votes of an LLM, or of several, on the rows of a data set."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from findistill.config.expand import annotators
from findistill.config.fields import declares
from findistill.core.step import Step
from findistill.llm.config import MEASURED
from findistill.llm.identity import annotator_models, llm_files, llm_identity
from findistill.methods.cross_fit.steps import OutOfFold
from findistill.methods.datasets import ALSO, demonstrations, own, with_tests
from findistill.methods.qlora.steps import Adapter, tuned_first
from findistill.methods.stage import Stage, without

# Which rows: the data's training and validation rows, the labelled ones, half of these (the other half is for
# demonstrations), or test/<number of the test set>.
TRAINING, LABELLED, HALF = "training", "labelled", "half of the labelled"


def shots_settings(shots: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of demonstrations that have an effect: k=0 makes all others irrelevant, and nearest neighbours need no seed."""
    settings = without(shots, "source")  # a separate parent
    if not settings["k"]:
        return {"k": 0}
    return settings | ({"seed": None} if settings["selection"] == "nearest" else {})


class LLMResponses(Step):
    """An LLM's responses to prompts about rows; the LLM is tuned first if `llm.adapter` says so."""

    name = "annotate"
    version = 4  # also raised with the answer parser (llm/answers.py), so that cached responses are parsed again
    resumable = True
    adapter: type[Adapter] = Adapter

    def parents(self) -> dict[str, Step]:
        adapter: dict[str, Step] = {}
        if tuned_first(self._config.llm):
            adapter["adapter"] = self.adapter(self._config, seed=0)  # students of all seeds share one annotator
        return {**with_tests(self._config), **demonstrations(self._config), **adapter}

    def files(self) -> Iterable[Path]:
        return llm_files(self._config.llm)

    def models(self) -> Iterable[str]:
        return annotator_models(self._config.llm.model)

    def llm_settings(self) -> dict[str, Any]:
        return llm_identity(self._config.llm)

    def settings(self) -> dict[str, Any]:
        settings = super().settings()
        return {
            "llm": self.llm_settings(),
            "prompt": without(settings["prompt"], "name"),
            "shots": shots_settings(settings["shots"]),
            "annotate": without(settings["annotate"], "combine", "measure_on", "next"),
        }


class Annotations(LLMResponses):
    """One annotator's votes: an artifact that every threshold, objective and seed of a student shares."""

    reads: tuple[str, ...] = ("llm", "prompt", "shots", "annotate", "trainer.max_memory", "data.seed")
    implementation = "findistill.methods.annotate.annotations:annotate_rows"
    estimate = "findistill.methods.annotate.annotations:requests"

    def __init__(self, config: Any, rows: str = TRAINING, extra: Step | None = None) -> None:
        super().__init__(config)
        self.rows, self.extra = rows, extra
        if declares(config.llm, "cross_fitted"):
            self.reads = (*self.reads, "trainer.accelerator", "trainer.max_length")

    def parents(self) -> dict[str, Step]:
        parents = super().parents()
        if self.rows in (TRAINING, LABELLED, HALF):
            parents = {role: step for role, step in parents.items() if not role.startswith(ALSO)}
        if declares(self._config.llm, "cross_fitted"):
            parents["folds"] = OutOfFold(self._config, self._config.llm.folds)
        return parents | ({"augment": self.extra} if self.extra is not None else {})

    def settings(self) -> dict[str, Any]:
        settings = super().settings()
        if self.rows != TRAINING:
            settings["annotate"]["limit"] = self.config.annotate.measure_on if self.rows in (LABELLED, HALF) else None
        if "folds" in self.inputs:
            settings["max_length"] = self.config.trainer.max_length
        return {"rows": self.rows, **settings}


class Ensemble(Step):
    """The votes of several annotators on the same rows, aggregated as `annotate.combine` says."""

    name = "annotate"
    reads = ("annotate.combine",)
    implementation = "findistill.methods.annotate.annotations:combine"

    def __init__(self, config: Any, rows: str = TRAINING, extra: Step | None = None) -> None:
        super().__init__(config)
        self.members = [Annotations(member, rows, extra) for member in annotators(config)]
        with_shots = any(member.shots.k and not declares(member.llm, "recorded") for member in annotators(config))
        labelled = annotators(config) if config.annotate.combine in MEASURED else []
        self.measured = [Annotations(member, HALF if with_shots else LABELLED) for member in labelled]

    def parents(self) -> dict[str, Step]:
        members = {f"member/{number}": member for number, member in enumerate(self.members)}
        return {**own(self._config), **members, **{f"labelled/{number}": each for number, each in enumerate(self.measured)}}

    def settings(self) -> dict[str, Any]:
        return {"combine": self.config.annotate.combine}


def annotations(config: Any, rows: str = TRAINING, extra: Step | None = None) -> Step:
    """The configured annotator's votes, or the aggregated votes of the ensemble."""
    return (Ensemble if config.annotate.ensemble else Annotations)(config, rows, extra)


class Annotate(Stage):
    """`stage=annotate`: an LLM votes on unlabelled texts."""

    implementation = "findistill.methods.annotate.stage:run"
    preview = "findistill.methods.annotate.annotations:preview"

    def parents(self) -> dict[str, Step]:
        return {**own(self._config), **demonstrations(self._config), "annotations": annotations(self._config)}
