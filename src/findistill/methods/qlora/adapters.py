"""Tuning an adapter on the labelled rows of a data set."""

import logging
from typing import cast

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
from findistill.training.lora import Prompts, tune
from findistill.training.trainer import Examples

log = logging.getLogger(__name__)

SUMMARY = "tuned.json"  # beside the adapter: what tuning took, and its epochs


def tune_adapter(work: Work) -> None:
    """Leave `model/` (the adapter) and `tuned.json`. No text that it learns from is in a test set.

    Raises:
        UserError: there are no labelled rows of two classes to learn from; the model cannot be loaded or tuned.
    """
    config, data = work.config, reading.dataset(work)
    rows, validation = reading.supervision(work, data, reading.test_sets(work, required=False))
    if (classes := rows["label"].nunique()) < 2:
        raise UserError(f"tuning needs labels of at least two classes; data={data.card.name} has {classes} in {len(rows)} rows")
    llm, trainer = cast(InProcessLLM, config.llm), cast(Trainer, OmegaConf.to_object(config.trainer))
    log.info("tuning %s on %s human labels", llm.name, f"{len(rows):,}")
    engine = cast(InProcessEngine, build(llm, "llm", adapter=""))  # type: ignore[arg-type]
    form = template(config.prompt, data.labels)

    def prompts(frame: pd.DataFrame) -> tuple[Prompts, list[list[int]]]:
        examples = Examples.from_frame(frame, data.labels)
        ids, words = engine.encode(examples.texts, form)
        return Prompts.of(ids, examples.hard, len(data.labels.names), engine.pad_id), words

    train, words = prompts(rows)
    longest = int(max(train.tokens.lengths))
    memory.check_tuning_memory(llm, config.qlora, trainer.batch_size or config.qlora.batch_size, longest, trainer.max_memory)
    result = tune(
        llm.model, config.qlora, train, prompts(validation)[0], words, engine.tokenizer.eos_token_id,
        Session(trainer, work.folder, work.step.seed, work.loggers, config.callbacks if "callbacks" in config else None),
        dtype=llm.dtype,
    )  # fmt: skip
    engine.tokenizer.save_pretrained(work.folder / "model")
    LabelReader.of(llm, config.prompt, data.labels.names).save(work.folder / "model")
    training_texts.write(work.folder / "model", [*rows["text"], *validation["text"]])
    write_json(work.folder / SUMMARY, {"texts": len(rows), "host_peak_mb": peak_memory_mb(), **result.as_dict()})
    write_adapter_card(work.folder / "model", work.step.whole, data.labels.names, len(rows), provenance(work), {})
