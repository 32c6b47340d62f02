"""`stage=predict`: labels for rows that nobody scores."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from findistill.core.step import Step
from findistill.data.locations import format_of, input_files
from findistill.llm.identity import llm_identity
from findistill.methods.datasets import model_at
from findistill.methods.predict.config import LLM
from findistill.methods.stage import Stage, without
from findistill.models.files import model_files


class Predict(Stage):
    """`stage=predict`: a model's answers beside every row of one's own files."""

    version = 1
    implementation = "findistill.methods.predict.stage:run"

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        if config.predict.model == LLM:
            self.reads += ("llm", "prompt")

    @property
    def live(self) -> bool:  # type: ignore[override]
        """What is written outside the run folder may be gone: the job looks each time, and makes what lacks."""
        return bool(self._config.predict.out)

    def parents(self) -> dict[str, Step]:
        model = self._config.predict.model
        return {"model": model_at(self._config.llm.model if model == LLM else model)}

    def files(self) -> Iterable[Path]:
        adapter = self._config.llm.adapter if "llm" in self.reads else ""
        return [*input_files(self._config.data), *(model_files(adapter) if adapter else [])]

    def settings(self) -> dict[str, Any]:
        """Without where the input and the model lie: their content enters."""
        settings = super().settings()
        settings["data"] = {"format": format_of(self._config.data)} | {name: settings["data"].get(name) for name in READ}
        settings["predict"] = without(settings["predict"], "model")
        if "llm" in settings:
            settings["llm"] = llm_identity(self._config.llm)
            settings["prompt"] = without(settings["prompt"], "name")
            settings["labels"] = list(self._config.data.labels)
        return settings


READ = ("text_column", "encoding", "delimiter", "columns")  # of the `data` section
