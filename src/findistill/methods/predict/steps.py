"""`stage=predict`: labels for rows, without scoring."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from findistill.core.step import Step
from findistill.data.locations import format_of, input_files
from findistill.llm.identity import llm_files, llm_identity
from findistill.methods.datasets import model_at
from findistill.methods.predict.config import LLM
from findistill.methods.stage import Stage, without
from findistill.models.files import model_files
from findistill.models.folder import adapter_base, adapter_folder


class Predict(Stage):
    """`stage=predict`: a model's answers for every row of the user's files."""

    version = 1
    implementation = "findistill.methods.predict.stage:run"

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        if config.predict.model == LLM:
            self.reads += ("llm", "prompt")

    @property
    def live(self) -> bool:  # type: ignore[override]
        """Output outside the run folder may be deleted: the job checks each time, and creates what is missing."""
        return bool(self._config.predict.out)

    def parents(self) -> dict[str, Step]:
        return {} if "llm" in self.reads else {"model": model_at(self._config.predict.model)}

    def files(self) -> Iterable[Path]:
        """The input, and weights outside the model's folder: those of `llm`, or the base of an adapter."""
        files = [*input_files(self._config.data)]
        if "llm" in self.reads:
            files += llm_files(self._config.llm)
        elif adapter := adapter_folder(Path(self._config.predict.model)):
            files += model_files(adapter_base(adapter))
        return files

    def models(self) -> Iterable[str]:
        return [self._config.llm.model] if "llm" in self.reads else []

    def settings(self) -> dict[str, Any]:
        """Without the paths of the input and the model: their content enters the key."""
        settings = super().settings()
        settings["data"] = {"format": format_of(self._config.data)} | {name: settings["data"].get(name) for name in READ}
        settings["predict"] = without(settings["predict"], "model")
        if "llm" in settings:
            settings["llm"] = llm_identity(self._config.llm)
            settings["prompt"] = without(settings["prompt"], "name")
            settings["labels"] = list(self._config.data.labels)
        return settings


READ = ("text_column", "encoding", "delimiter", "columns")  # of the `data` section
