"""Rules of `stage=teacher`."""

from collections.abc import Iterator
from typing import Any

from findistill.config.fields import declares
from findistill.config.validate import rule
from findistill.data.rules import human_labels
from findistill.models.rules import encoder


@rule("teacher")
def finetunes(config: Any) -> Iterator[str]:
    yield from encoder(config, "teacher")
    yield from human_labels(config, "stage=teacher")
    if config.teacher.objective == "regression":
        if not declares(config.data, "has_scores"):
            yield f"teacher.objective=regression needs scores; data={config.data.name} has none: use fiqa_news or fiqa_posts"
        if config.teacher.class_weights != "none":
            yield "teacher.class_weights only works with teacher.objective=classification: a score has no class to weigh"
