"""Rules for jobs in which an LLM names entities."""

from collections.abc import Iterator
from typing import Any

from omegaconf import OmegaConf

from findistill.config.fields import declares
from findistill.config.validate import missing, rule
from findistill.llm.identity import TUNED
from findistill.llm.rules import FITTED, requests
from findistill.methods.entities.config import FROM_ANSWERS
from findistill.methods.qlora.rules import tuned_to_extract


@rule("entities")
def extracts(config: Any) -> Iterator[str]:
    entities = config.entities
    if entities.step != "train" or entities.source in FROM_ANSWERS:
        yield from extraction(config)


def extraction(config: Any) -> Iterator[str]:
    """Rules for a job that extracts with `llm`."""
    annotate, shots, llm = config.annotate, config.shots, config.llm
    if not declares(llm, "writes"):
        yield f"llm={llm.name} returns labels, but entities need generated text: use an LLM, or llm=recorded"
        return
    yield from missing(config, "llm", "extract")
    yield from requests(config)
    for setting in ("label_column", "label_columns"):
        if OmegaConf.select(llm, setting, default=None):
            yield f"llm.{setting} is for labels of texts; leave it out: recorded entities are in llm.answer_column"
    if annotate.ensemble:
        yield "annotate.ensemble combines votes on labels; entities come from one LLM: leave it out"
    if annotate.calibration in FITTED:
        yield f"annotate.calibration={annotate.calibration} is for label probabilities; leave it out"
    if OmegaConf.select(llm, "adapter", default="") == TUNED:
        yield from tuned_to_extract(config)
    if shots.k and shots.selection == "balanced":
        yield "shots.selection=balanced: only labels can be balanced, not entities; use nearest or random"
    if shots.rationales != "none":
        yield f"shots.rationales={shots.rationales} is for prompts with steps before a label; leave it out"
    recorded = declares(llm, "recorded")
    source = shots.source or config.data
    if shots.k and not recorded and not declares(source, "has_spans"):
        yield (
            f"data={source.name} has no rows with spans, which shots.k={shots.k} demonstrations need; set shots.k=0, or name a "
            "data set with spans, such as shots.source=sentfin"
        )
