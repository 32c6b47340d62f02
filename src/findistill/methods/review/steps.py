"""`stage=review`: suggestions go to people, and their decisions come back."""

from pathlib import Path

from findistill.core.step import ModelFolder, Step
from findistill.methods.annotate.steps import annotations
from findistill.methods.datasets import own
from findistill.methods.stage import Stage


class Review(Stage):
    """`stage=review`: what people decide on is nobody's setting, so the job runs each time it is called."""

    implementation = "findistill.methods.review.stage:run"
    check = "findistill.methods.review.stage:check"
    live = True

    def parents(self) -> dict[str, Step]:
        return {**own(self._config), "annotations": self._suggestions()}

    def _suggestions(self) -> Step:
        if folder := self._config.review.suggestions:
            return ModelFolder(folder, [Path(folder) / "annotations.parquet"])
        return annotations(self._config)
