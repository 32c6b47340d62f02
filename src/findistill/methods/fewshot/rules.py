"""Rules of `stage=fewshot`."""

from collections.abc import Iterator
from typing import Any

from findistill.config.fields import declares
from findistill.config.validate import rule
from findistill.llm.rules import FITTED
from findistill.methods.annotate.rules import annotates


@rule("fewshot")
def scores(config: Any) -> Iterator[str]:
    annotate, generation = config.annotate, config.fewshot.scoring == "generation"
    yield from annotates(config)
    if annotate.ensemble:
        yield "annotate.ensemble is only for stage=annotate: stage=fewshot scores one llm with one prompt"
    if annotate.limit is not None:
        yield f"annotate.limit={annotate.limit} limits training rows; stage=fewshot scores test rows: set fewshot.limit=..."
    if generation and (annotate.temperature or annotate.samples > 1) and declares(config.llm, "in_process"):
        yield "fewshot.scoring=generation decodes greedily in this process: set annotate.samples=1 annotate.temperature=0"
    if generation and annotate.calibration in FITTED:
        yield f"annotate.calibration={annotate.calibration} needs label probabilities: set fewshot.scoring=likelihood"
    if config.fewshot.scoring == "likelihood" and not declares(config.llm, "in_process"):
        yield "fewshot.scoring=likelihood needs label probabilities; servers return text: set fewshot.scoring=generation or auto"
