"""Rules of `stage=augment`, and of stages that train on its texts (`augment.use=true`)."""

from collections.abc import Iterator
from typing import Any

from findistill.config.validate import missing, rule
from findistill.data.rules import human_labels
from findistill.methods.annotate.rules import annotates
from findistill.methods.augment.config import WRITTEN


@rule("augment", "teacher", "student")
def augments(config: Any) -> Iterator[str]:
    stage, augment = config.stage.name, config.augment
    if stage != "augment" and not augment.use:
        return
    if stage == "augment":
        yield from missing(config, "teacher")
    yield from human_labels(config, "augmentation")
    if not augment.methods:
        return
    several = [method for method in augment.methods if method in WRITTEN and augment.per_text[method] > 1]
    if several and augment.temperature == 0:
        yield (
            f"augment.temperature=0 makes all augment.per_text.{several[0]}={augment.per_text[several[0]]} texts of a source "
            "identical; raise it"
        )
    if augment.min_words > augment.max_words:
        yield f"augment.min_words={augment.min_words} is above augment.max_words={augment.max_words}: no text would pass"
    if stage == "student" and config.distill.source == "human":
        yield "augment.use=true with distill.source=human: nobody voted on the new texts; use distill.source=annotator"
    if stage == "teacher" and config.teacher.objective == "regression":
        yield "augment.use=true with teacher.objective=regression: new texts have labels, not scores"
    asks_llm = augment.relabel == "llm" or set(WRITTEN) & set(augment.methods)
    if asks_llm and not (stage == "student" and config.distill.source == "annotator"):  # whose own rules check the annotator
        yield from annotates(config)
