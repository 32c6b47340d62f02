"""A language model tuned on human labels: an adapter, made once, that `stage=qlora` scores and `llm.adapter=tune` asks."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from findistill.errors import UserError
from findistill.runs.files import write_json, write_whole
from findistill.settings import rules
from findistill.settings.compose import plain, with_overrides
from findistill.settings.schema import PACE, Config, InProcessLLM, Trainer
from findistill.stages import inputs
from findistill.stages.training import learning, weights_hash

if TYPE_CHECKING:
    import pandas as pd
    from pytorch_lightning.loggers import Logger

    from findistill.data import TextData
    from findistill.data.labels import LabelSet
    from findistill.runs.job import Job

log = logging.getLogger(__name__)

TUNED = "tuned.json"  # in an adapter's artifact: what tuning took, and its epochs

# What of the sections changes no weight.
_APART = {"llm": {"_target_", "name", "adapter", *PACE["llm"]}, "prompt": {"name"}, "qlora": {"merge", *PACE["qlora"]}}


def tuned(job: "Job", data: "TextData", trainer: Trainer, seed: int, loggers: "list[Logger]") -> Path:
    """The artifact of the adapter that `qlora` makes of `llm` and these data: `model/` and `tuned.json`.

    It learns from the `pool` rows where there are some, else from the training rows; no text of it stands in a test set.
    A tuning that was killed goes on where it was.

    Raises:
        UserError: there are no labelled rows of two classes to learn from; the model cannot be loaded or tuned.
    """
    from findistill.data import fingerprint

    config = job.config
    rows, held = supervision(job, data)
    if rows["label"].nunique() < 2:
        found = f"{rows['label'].nunique()} in {len(rows)} rows"
        raise UserError(f"tuning needs labels of at least two classes; data={config.data.name} has {found}")
    key: dict[str, Any] = {
        "data": fingerprint(config.data),
        "weights": weights_hash(config.llm.model),
        "trainer": learning(trainer),
        "rows": inputs.texts_hash(rows),
        "held": inputs.texts_hash(held),
        "seed": seed,
    }
    for section, apart in _APART.items():
        key[section] = {name: value for name, value in plain(getattr(config, section)).items() if name not in apart}

    def make(folder: Path) -> None:
        log.info("tuning %s on %s human labels", config.llm.name, f"{len(rows):,}")
        _tune(config, data.labels, rows, held, trainer, seed, folder, loggers)
        _card(folder, config, data, len(rows))

    return job.artifact("qlora", key, make, resumable=True)


def supervision(job: "Job", data: "TextData") -> "tuple[pd.DataFrame, pd.DataFrame]":
    """The rows to learn from, and those that choose the epoch.

    With a pool, the other labels count as hidden, so a share of the pool is held out: `data.validation` of it.
    """
    own = len(data.split("test")) or job.config.evaluate.also
    tests = inputs.test_sets(job, data) if own else {}
    rows = inputs.drop_tested(inputs.supervised(data), tests)
    if not len(data.split("pool")):
        return rows, data.split("validation")
    held = rows.sample(frac=job.config.data.validation, random_state=job.config.data.seed).index
    return rows.drop(held).reset_index(drop=True), rows.loc[held].reset_index(drop=True)


def _tune(
    config: Config,
    labels: "LabelSet",
    rows: "pd.DataFrame",
    held: "pd.DataFrame",
    trainer: Trainer,
    seed: int,
    folder: Path,
    loggers: "list[Logger]",
) -> None:
    from findistill.learning.fit import Examples
    from findistill.learning.lora import Prompts, tune
    from findistill.llm import sizes
    from findistill.llm.in_process import InProcessEngine
    from findistill.llm.prompts import template
    from findistill.runs.job import peak_memory_mb
    from findistill.settings.build import build

    llm = cast(InProcessLLM, config.llm)
    engine = cast(InProcessEngine, build(llm, adapter=""))  # type: ignore[arg-type]
    asked = template(config.prompt, labels)
    tokenizer = engine.tokenizer

    def prompts(frame: "pd.DataFrame") -> tuple[Prompts, list[list[int]]]:
        of = Examples.from_frame(frame, labels)
        ids, words = engine.encode(of.texts, asked)
        return Prompts.of(ids, of.hard, len(labels.names), engine.pad_id), words

    train, words = prompts(rows)
    longest = int(max(train.tokens.lengths))
    sizes.foresee_tuning(llm, config.qlora, trainer.batch_size or config.qlora.batch_size, longest, trainer.max_memory)
    made = tune(
        llm.model, config.qlora, trainer, train, prompts(held)[0], words, tokenizer.eos_token_id,
        dtype=llm.dtype, seed=seed, folder=folder, loggers=loggers,
    )  # fmt: skip
    tokenizer.save_pretrained(folder / "model")
    write_json(folder / TUNED, {"texts": len(rows), "host_peak_mb": peak_memory_mb(), **made.as_dict()})


def trainer_of(config: Config) -> Trainer:
    """The trainer of `stage=qlora`, or of a tuning before an annotator: what of `trainer` is the student's is left out."""
    trainer = Trainer(**plain(config.trainer))
    if config.stage.name == "qlora":
        return trainer
    return replace(
        trainer, max_epochs=None, batch_size=None, learning_rate=None, max_length=None, patience=None, precision="auto",
        unfreeze="none", layer_decay=1.0,
    )  # fmt: skip


def with_adapter(job: "Job", data: "TextData", config: Config) -> Config:
    """The annotator's configuration with its adapter in place: `llm.adapter=tune` is tuned first, others stay as they are.

    Epochs, batch and rate of the tuning are the `qlora` section's: those of `trainer` are the student's. Its seed is 0, so
    that the students of all seeds have the same annotator.
    """
    if getattr(config.llm, "adapter", "") != "tune":
        return config
    rules.check(config)  # of a member of several annotators this was not done before
    folder = tuned(replace(job, config=config), data, trainer_of(config), 0, [])
    return with_overrides(config, f"llm.adapter='{folder / 'model'}'", "llm.adapter")


def method(quantization: str) -> str:
    """How tables call tuning over weights of this quantization: only over quantised ones is it QLoRA."""
    return {"nf4": "QLoRA", "int8": "LoRA int8", "none": "LoRA"}[quantization]


def _card(folder: Path, config: Config, data: "TextData", rows: int) -> None:
    """The model card beside the adapter."""
    from findistill import __version__
    from findistill.runs import hardware

    llm, settings = cast(InProcessLLM, config.llm), config.qlora
    task = "Seq2SeqLM" if "t5" in llm.model.lower() else "CausalLM"
    write_whole(
        folder / "model" / "README.md",
        f"""---
library_name: peft
base_model: {llm.model}
language: en
tags: [findistill, finance, lora]
---

# {method(settings.quantization)} of {llm.name}: {", ".join(data.labels.names)}

A LoRA adapter, made by findistill {__version__}. The base model's weights are not in this folder.

| | |
| --- | --- |
| base | {llm.model}, quantization {settings.quantization} |
| adapter | rank {settings.rank}, alpha {settings.alpha}, dropout {settings.dropout:g} |
| texts | {rows:,} of {config.data.name}, their human labels |
| licence of the texts | {data.card.licence} |
| prompt | {config.prompt.name}, no demonstrations |
| trained on | {hardware.describe()} |

As an annotator: `findistill llm={llm.name} llm.adapter=PATH_OF_THIS_FOLDER prompt={config.prompt.name} shots.k=0 ...`.
In Python, the base is loaded as `tuning.json` says to get the same numbers:

```python
from peft import AutoPeftModelFor{task}

model = AutoPeftModelFor{task}.from_pretrained("PATH_OF_THIS_FOLDER")
```
""",
    )
