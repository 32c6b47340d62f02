"""Rules of `stage=annotate`, and those shared by all stages that annotate."""

from collections.abc import Iterator
from functools import partial
from typing import Any

from findistill.config.validate import rule
from findistill.llm.config import MEASURED
from findistill.llm.identity import TUNED
from findistill.llm.rules import annotator, of_each
from findistill.methods.qlora.rules import tuned_first

PREVIEWS = ("annotate", "augment")


@rule("annotate")
def annotates(config: Any) -> Iterator[str]:
    yield from annotator(config)
    yield from of_each(config, partial(_tuned, combine=config.annotate.combine))


def _tuned(config: Any, combine: str) -> Iterator[str]:
    if getattr(config.llm, "adapter", "") != TUNED:
        return
    yield from tuned_first(config)
    if combine in MEASURED:
        yield (
            f"llm.adapter=tune trains on the labelled rows, on which annotate.combine={combine} compares annotators; "
            "use majority or dawid_skene"
        )


@rule()
def previews(config: Any) -> Iterator[str]:
    stage, annotate = config.stage.name, config.annotate
    labels_entities = stage == "entities" and config.entities.step == "label"
    if stage not in PREVIEWS and not labels_entities and (annotate.dry_run or annotate.show_prompt):
        yield (
            "annotate.dry_run and annotate.show_prompt only work with stage=annotate, stage=augment and "
            f"stage=entities entities.step=label, not with stage={stage}"
        )
