"""`stage=review`: suggestions go to people, and their decisions come back."""

from pathlib import Path
from typing import Any

from findistill.config.fields import declares
from findistill.core.step import ModelFolder, Step
from findistill.methods.annotate.steps import annotations
from findistill.methods.datasets import own
from findistill.methods.extract.steps import Extractions
from findistill.methods.stage import Stage


class Review(Stage):
    """`stage=review`: people's decisions are not settings, so the job runs each time it is called."""

    implementation = "findistill.methods.review.stage:run"
    check = "findistill.methods.review.stage:check"
    live = True

    def parents(self) -> dict[str, Step]:
        return {**own(self._config), "annotations": self._suggestions()}

    def _suggestions(self) -> Step:
        if folder := self._config.review.suggestions:
            return ModelFolder(folder, [Path(folder) / "annotations.parquet"])
        return (Extractions if of_spans(self._config) else annotations)(self._config)


def of_spans(config: Any) -> bool:
    """Whether mentions of entities are reviewed instead of labels."""
    spans = config.review.spans
    return declares(config.data, "has_spans") if spans is None else bool(spans)
