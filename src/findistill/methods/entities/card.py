"""The model card of every trained entity model."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from findistill.config.compose import plain
from findistill.report.licences import Provenance
from findistill.report.model_card import write_model_card

WHAT = {  # a model's description, its library's name on the hub, and a usage example
    "token": ("A token classifier", "transformers", """from transformers import pipeline

mark = pipeline("token-classification", model="PATH_OF_THIS_FOLDER", aggregation_strategy="first")
print(mark("Shares of Acme Corp rose."))"""),
    "gliner": ("A GLiNER model", "gliner", """from gliner import GLiNER

model = GLiNER.from_pretrained("PATH_OF_THIS_FOLDER", local_files_only=True)
print(model.inference(["Shares of Acme Corp rose."], {prompts}, threshold={threshold:g}))"""),
    "span_marker": ("A SpanMarker model", "span-marker", """from span_marker import SpanMarkerModel

model = SpanMarkerModel.from_pretrained("PATH_OF_THIS_FOLDER")
print(model.predict("Shares of Acme Corp rose."))"""),
}  # fmt: skip
SOURCES = {
    "human": "human annotators",
    "llm": "a language model's answers",
    "mixed": "a language model's answers where they agree, human annotators elsewhere",
    "company_list": "a list of companies",
    "spacy": "a spaCy pipeline",
}


def write_entities_card(
    folder: Path, config: Any, labels: Sequence[str], rows: int, learnt: Provenance, metrics: Mapping[str, float], **usage: Any
) -> Path:
    """What the model is, whose spans it learnt from, its scores, and how to use it.

    Args:
        rows: number of training texts.
        learnt: its provenance.
        metrics: of the job, after scoring.
        usage: values for the usage example, such as a threshold.
    """
    name = config.entities.model
    section, (what, library, example) = config.entities[name], WHAT[name]
    return write_model_card(
        folder, "entities", name=f"{name}-{config.data.name}", data=config.data, learnt=learnt, library=library,
        tags=["entities", name], base_model=section.model or section.encoder, metrics=metrics, task="token-classification",
        labels=list(labels), rows=rows, config=plain(config), what=what, seed=config.seed,
        sources=SOURCES, usage=example.format(**usage) if usage else example,
    )  # fmt: skip
