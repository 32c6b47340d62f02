"""`stage=entities`: what each of its steps runs, and which artifacts it needs first."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from findistill.core.step import Step
from findistill.methods.datasets import with_tests
from findistill.methods.entities.config import LEARNT
from findistill.methods.stage import Stage, without
from findistill.models.files import model_files


class Entities(Stage):
    """`stage=entities`: a model that marks entities is trained, as far as it can be, and scored (`entities.step=train`)."""

    implementation = "findistill.methods.entities.stage:run"

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        entities = config.entities
        own = ("model", "source", "min_agreement", entities.model)  # another model's recipe is no part of the key
        self.reads += tuple(f"entities.{name}" for name in own if name in entities)

    def parents(self) -> dict[str, Step]:
        return with_tests(self._config)

    def files(self) -> Iterable[Path]:
        """The weights that a training begins with."""
        entities = self._config.entities
        if entities.model not in LEARNT:
            return ()
        section = entities[entities.model]
        return model_files(section.model or section.encoder)

    def settings(self) -> dict[str, Any]:
        settings = super().settings()
        model = self._config.entities.model
        settings["entities"] = without(settings["entities"], *(name for name in (*LEARNT, "spacy") if name != model), "step")
        return settings
