"""Rules of `stage=entities`."""

from collections.abc import Iterator
from typing import Any

from findistill.config.fields import declares
from findistill.config.validate import rule
from findistill.methods.entities.config import FROM_ANSWERS, UNTRAINED


@rule("entities")
def marks(config: Any) -> Iterator[str]:
    data, entities, trainer = config.data, config.entities, config.trainer
    if entities.step != "train":
        return
    if not declares(data, "has_spans"):
        remedy = "set data.spans_column=COLUMN, or use data=sentfin" if "spans_column" in data else "use data=sentfin"
        yield f"stage=entities needs human-annotated spans to score on; data={data.name} has none: {remedy}"
    if entities.model in UNTRAINED:
        if entities.source not in ("human", "none"):
            yield f"entities.source={entities.source}: entities.model={entities.model} is not trained; remove entities.source"
        return
    section, path = entities[entities.model], f"entities.{entities.model}"
    if entities.source == "none" and not section.model:
        yield f"entities.source=none scores a model as it is; set {path}.model to a folder or hub id"
    if entities.source not in FROM_ANSWERS and entities.min_agreement != 0.5:
        yield (
            f"entities.min_agreement={entities.min_agreement:g} only applies to an LLM's answers: it needs "
            "entities.source=llm or entities.source=mixed"
        )
    if entities.model == "gliner":
        if trainer.layer_decay != 1 or trainer.unfreeze != "none":
            yield "trainer.layer_decay and trainer.unfreeze do not work with a GLiNER, whose encoder has one learning rate"
        if trainer.devices not in ("auto", 1):
            yield f"trainer.devices={trainer.devices}: a GLiNER is trained on one device; use trainer.devices=1"
    if entities.model == "token" and section.model and section.layers is not None:
        yield "entities.token.layers selects an encoder's layers: set entities.token.encoder, and remove entities.token.model"
