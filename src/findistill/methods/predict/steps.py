"""`stage=predict`: labels for rows that nobody scores."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from findistill.core.step import Step
from findistill.data.locations import format_of, input_files
from findistill.methods.datasets import model_at
from findistill.methods.stage import Stage


class Predict(Stage):
    """`stage=predict`: a model's answers beside every row of one's own files."""

    version = 1
    implementation = "findistill.methods.predict.stage:run"

    @property
    def live(self) -> bool:  # type: ignore[override]
        """What is written outside the run folder may be gone: the job looks each time, and makes what lacks."""
        return bool(self._config.predict.out)

    def parents(self) -> dict[str, Step]:
        return {"model": model_at(self._config.predict.model)}

    def files(self) -> Iterable[Path]:
        return input_files(self._config.data)

    def settings(self) -> dict[str, Any]:
        """Without where the input and the model lie: their content enters."""
        settings = super().settings()
        settings["data"] = {"format": format_of(self._config.data)} | {name: settings["data"].get(name) for name in READ}
        settings["predict"] = {name: value for name, value in settings["predict"].items() if name != "model"}
        return settings


READ = ("text_column", "encoding", "delimiter", "columns")  # of the `data` section
