"""Tuning an adapter on the annotated entities of a data set: the LLM learns to answer with the names that people marked."""

import logging
from functools import partial

import numpy as np
import pandas as pd

from findistill.core.store import Work
from findistill.errors import UserError
from findistill.llm.extraction import demonstration_label, template
from findistill.llm.prompts import Demonstration
from findistill.methods import rows as reading
from findistill.methods.extract.extractions import types_of
from findistill.methods.provenance import provenance
from findistill.methods.qlora.adapters import engine_of, leave_adapter
from findistill.methods.qlora.card import write_adapter_card
from findistill.training.lora import AnswerWriter, Prompts

log = logging.getLogger(__name__)

UNMEASURED = "val/macro_f1"  # the default of trainer.monitor, which would require generating the spans
USE = "names the entities of short financial texts, as JSON, through the prompt that it was tuned with"


def tune_adapter(work: Work) -> None:
    """Write `model/` (the adapter) and `tuned.json`. No training text is in a test set.

    The best epoch has the lowest `val/loss` or, with `trainer.monitor=val/accuracy`, the most exactly matching answers. Texts
    that the prompt would truncate are dropped: their entities may lie beyond the cut.

    Raises:
        UserError: no labelled row has a span, or the model cannot be loaded, write JSON or be tuned.
    """
    config, data = work.config, reading.dataset(work)
    engine, types = engine_of(config.llm), types_of(data)
    form = template(config.extract, types)
    rows, validation = (
        part[[len(engine.ids(text)) <= form.max_text_tokens for text in part["text"]]]
        for part in reading.supervision(work, data, reading.test_sets(work, required=False))
    )
    if not any(len(cell) for cell in rows["spans"]):
        raise UserError(
            f"tuning needs texts with entities; none of the {len(rows):,} labelled rows of data={data.card.name} has any"
        )
    log.info("tuning %s on %s texts with %s entities", config.llm.name, f"{len(rows):,}", f"{sum(map(len, rows['spans'])):,}")
    numbers: dict[tuple[int, ...], int] = {}  # distinct answer -> its index

    def prompts(frame: pd.DataFrame) -> Prompts:
        labels = map(demonstration_label, frame["text"], frame["spans"])
        examples = [Demonstration(text, label) for text, label in zip(frame["text"], labels, strict=True)]
        ids, answers = engine.encode_answers(examples, form)
        at = [numbers.setdefault(tuple(answer), len(numbers)) for answer in answers]
        return Prompts.answered(ids, np.asarray(at, np.int64), engine.pad_id)

    train, validated = prompts(rows), prompts(validation)
    monitor = {"monitor": "val/loss"} if config.trainer.monitor == UNMEASURED else {}
    texts, longest = [*rows["text"], *validation["text"]], max(map(len, numbers))
    leave_adapter(work, engine, train, validated, partial(AnswerWriter, answers=[*numbers]), texts, longest, **monitor)
    write_adapter_card(
        work.folder / "model", work.step.whole, types, len(rows), provenance(work), {}, form="extract", use=USE
    )  # fmt: skip
