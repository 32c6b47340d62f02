"""Extractions: the entities that an LLM names in the rows of a data set, with the votes of its samples."""

from typing import Any

from findistill.core.step import Step
from findistill.methods.annotate.steps import TRAINING, LLMResponses, shots_settings
from findistill.methods.datasets import ALSO, demonstrations, own, with_tests
from findistill.methods.qlora.steps import Adapter
from findistill.methods.stage import Stage, without


class ExtractionAdapter(Adapter):
    """A LoRA adapter for `llm`, tuned to name the entities of the labelled rows."""

    version = 1
    implementation = "findistill.methods.extract.adapters:tune_adapter"
    form = "extract"


class Extractions(LLMResponses):
    """One LLM's mentions: one artifact that all models, agreements and seeds share.

    Args:
        rows: `training` (training and validation rows), `labelled`, or `test/<number of the test set>`.
    """

    name = "extract"
    version = 1  # also of the response parser (llm/mentions.py, llm/tagged.py): cached responses are parsed again
    reads = ("llm", "extract", "shots", "annotate", "trainer.max_memory", "data.seed")
    implementation = "findistill.methods.extract.extractions:extract_rows"
    estimate = "findistill.methods.extract.extractions:requests"
    adapter = ExtractionAdapter

    def __init__(self, config: Any, rows: str = TRAINING) -> None:
        super().__init__(config)
        self.rows = rows

    def parents(self) -> dict[str, Step]:
        parents = super().parents()
        return parents if self.rows.startswith("test/") else {r: step for r, step in parents.items() if not r.startswith(ALSO)}

    def settings(self) -> dict[str, Any]:
        settings = self.config.results()
        annotate = without(settings["annotate"], "combine", "measure_on", "next", "calibration", "ensemble")
        if self.rows != TRAINING:
            annotate["limit"] = None
        return {
            "rows": self.rows,
            "llm": self.llm_settings(),
            "extract": without(settings["extract"], "name"),
            "shots": shots_settings(settings["shots"]),
            "annotate": annotate,
        }


class Label(Stage):
    """`stage=entities entities.step=label`: an LLM names the entities of training or test rows (`extract.rows`)."""

    implementation = "findistill.methods.extract.stage:run"
    preview = "findistill.methods.extract.extractions:preview"

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.reads = ("evaluate.resamples",)

    def parents(self) -> dict[str, Step]:
        parents = {**with_tests(self._config), **demonstrations(self._config)}
        if self._config.extract.rows == "training":
            parents = {**own(self._config), **demonstrations(self._config)}
            return {**parents, "extractions": Extractions(self._config)}
        numbers = range(1 + len(self._config.evaluate.also))
        return {**parents, **{f"extractions/{at}": Extractions(self._config, f"test/{at}") for at in numbers}}
