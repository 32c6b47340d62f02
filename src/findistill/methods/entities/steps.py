"""`stage=entities`: its training step, and the artifacts it needs first."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from findistill.core.step import Step, load
from findistill.data.company_list import list_files
from findistill.methods.datasets import with_tests
from findistill.methods.entities.config import FROM_ANSWERS, LEARNT
from findistill.methods.stage import Stage
from findistill.models.files import model_files


def extractions(config: Any, rows: str) -> Step:
    """The entities that an LLM names in the texts."""
    step: Step = load("findistill.methods.extract.steps:Extractions")(config, rows=rows)
    return step


def settings_of(entities: Any) -> set[str]:
    """The settings of a section `entities` that determine the result, which other models' recipes do not."""
    sections = {name for name in (entities["model"], entities["source"]) if name in entities}
    return {"step", "model", "source", *sections} | ({"min_agreement"} if entities["source"] in FROM_ANSWERS else set())


class Entities(Stage):
    """`stage=entities`: train (if it is trainable) and score a model that marks entities (`entities.step=train`)."""

    implementation = "findistill.methods.entities.stage:run"

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.own = settings_of(config.entities)
        self.reads += tuple(f"entities.{name}" for name in sorted(self.own))

    def parents(self) -> dict[str, Step]:
        parents = with_tests(self._config)
        if self._config.entities.source in FROM_ANSWERS:
            parents["extractions"] = extractions(self._config, rows="training")
        return parents

    def files(self) -> Iterable[Path]:
        """The weights to start from or to use as they are, the company list, and the spaCy pipeline."""
        entities = self._config.entities
        files: list[Path] = []
        if entities.model in LEARNT:
            section = entities[entities.model]
            files += model_files(section.model or section.encoder)
        if "company_list" in (entities.model, entities.source):
            files += list_files(entities.company_list.path)
        if "spacy" in (entities.model, entities.source):  # a folder; a package is identified by its name
            files += sorted(path for path in Path(entities.spacy.model).rglob("*") if path.is_file())
        return files

    def models(self) -> Iterable[str]:
        entities = self._config.entities
        if entities.model in LEARNT:
            yield entities[entities.model].model or entities[entities.model].encoder
        if entities.source == "spacy":
            yield entities.spacy.model

    def settings(self) -> dict[str, Any]:
        settings = super().settings()
        settings["entities"] = {name: value for name, value in settings["entities"].items() if name in self.own}
        if self._config.entities.source in FROM_ANSWERS and self._config.annotate.samples > 1:
            settings["agreement"] = "on every candidate"  # formerly only on the majority's spans
        return settings
