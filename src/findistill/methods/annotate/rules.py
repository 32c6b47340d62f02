"""Rules of `stage=annotate`, and those shared by all stages that annotate."""

from collections.abc import Iterator
from typing import Any

from omegaconf import OmegaConf

from findistill.config.validate import rule
from findistill.llm.rules import annotator
from findistill.methods.qlora.rules import tuned_first

PREVIEWS = ("annotate", "augment")


@rule("annotate")
def annotates(config: Any) -> Iterator[str]:
    yield from annotator(config)
    if OmegaConf.select(config, "llm.adapter") == "tune":
        yield from tuned_first(config)


@rule()
def previews(config: Any) -> Iterator[str]:
    stage, annotate = config.stage.name, config.annotate
    labels_entities = stage == "entities" and config.entities.step == "label"
    if stage not in PREVIEWS and not labels_entities and (annotate.dry_run or annotate.show_prompt):
        yield (
            "annotate.dry_run and annotate.show_prompt only work with stage=annotate, stage=augment and "
            f"stage=entities entities.step=label, not with stage={stage}"
        )
