"""Tuning an adapter on the labelled rows of a data set."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, cast

import pandas as pd
from omegaconf import OmegaConf

from findistill.config.instantiate import build
from findistill.core.files import write_json
from findistill.core.hardware import peak_memory_mb
from findistill.core.store import Work
from findistill.data import training_texts
from findistill.errors import UserError
from findistill.llm.config import InProcessLLM
from findistill.llm.in_process import InProcessEngine
from findistill.llm.label_reader import LabelReader
from findistill.llm.prompts import template
from findistill.methods import rows as reading
from findistill.methods.provenance import provenance
from findistill.methods.qlora.card import write_adapter_card
from findistill.models import memory
from findistill.training.config import Trainer
from findistill.training.loop import Session
from findistill.training.lora import AnswerModule, Prompts, WordClassifier, tune
from findistill.training.trainer import Examples

log = logging.getLogger(__name__)

SUMMARY = "tuned.json"  # beside the adapter: time and memory of the tuning, and its epochs


def tune_adapter(work: Work) -> None:
    """Write `model/` (the adapter) and `tuned.json`. No training text is in a test set.

    Raises:
        UserError: the labelled rows have fewer than two classes, or the model cannot be loaded or tuned.
    """
    config, data = work.config, reading.dataset(work)
    rows, validation = reading.supervision(work, data, reading.test_sets(work, required=False))
    if (classes := rows["label"].nunique()) < 2:
        raise UserError(f"tuning needs labels of at least two classes; data={data.card.name} has {classes} in {len(rows)} rows")
    log.info("tuning %s on %s human labels", config.llm.name, f"{len(rows):,}")
    engine, form = engine_of(config.llm), template(config.prompt, data.labels)

    def prompts(frame: pd.DataFrame) -> tuple[Prompts, list[list[int]]]:
        examples = Examples.from_frame(frame, data.labels)
        ids, words = engine.encode(examples.texts, form)
        return Prompts.of(ids, examples.hard, len(data.labels.names), engine.pad_id), words

    train, words = prompts(rows)
    answering = partial(WordClassifier, words=words, end=engine.tokenizer.eos_token_id)
    leave_adapter(work, engine, train, prompts(validation)[0], answering, [*rows["text"], *validation["text"]])
    LabelReader.of(config.llm, config.prompt, data.labels.names).save(work.folder / "model")
    write_adapter_card(work.folder / "model", work.step.whole, data.labels.names, len(rows), provenance(work), {})


def engine_of(llm: Any) -> InProcessEngine:
    """The language model to tune; its weights are not loaded yet."""
    return cast(InProcessEngine, build(llm, "llm", adapter=""))


def leave_adapter(
    work: Work, engine: InProcessEngine, train: Prompts, validation: Prompts, answering: Callable[..., AnswerModule],
    texts: Sequence[str], answer: int = memory.LABEL, **trainer_settings: Any,
) -> None:  # fmt: skip
    """Tune, and write `model/` and `tuned.json`; `texts` are all training and validation texts.

    Args:
        answer: tokens of the longest answer.
        trainer_settings: override the configured ones.

    Raises:
        UserError: as `tune`, or a step needs more memory than is available.
    """
    config, llm = work.config, cast(InProcessLLM, work.config.llm)
    trainer = replace(cast(Trainer, OmegaConf.to_object(config.trainer)), **trainer_settings)
    longest = int(max(train.tokens.lengths))
    batch = trainer.batch_size or config.qlora.batch_size
    memory.check_tuning_memory(llm, config.qlora, batch, longest, trainer.max_memory, answer)
    result = tune(
        llm.model, config.qlora, train, validation, answering,
        Session(trainer, work.folder, work.step.seed, work.loggers, config.callbacks if "callbacks" in config else None),
        dtype=llm.dtype,
    )  # fmt: skip
    engine.tokenizer.save_pretrained(work.folder / "model")
    training_texts.write(work.folder / "model", texts)
    write_json(work.folder / SUMMARY, {"texts": len(train), "host_peak_mb": peak_memory_mb(), **result.as_dict()})
