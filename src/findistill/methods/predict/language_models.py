"""Language models in this process as predictors: an adapter of `stage=qlora` with its own prompt, or the `llm` section."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from findistill.inference.predictors import Answers, Predictor, Spec, label_columns, label_table
from findistill.llm.label_reader import LabelReader, label_probabilities


def of_section(config: Any) -> Spec:
    """How to open the model of the `llm` section, with the prompt of the `prompt` section and `data.labels`."""
    return _spec(LabelReader.of(config.llm, config.prompt, config.data.labels))


def of_adapter(folder: Path) -> Spec:
    """How to open the adapter in a folder with the prompt that it was tuned on."""
    return _spec(LabelReader.beside(folder))


def _spec(reader: LabelReader) -> Spec:
    settings = json.dumps(asdict(reader))
    return Spec("language model", reader.llm["model"], opener=f"{__name__}:open_reader", settings=settings, whole_machine=True)


def open_reader(spec: Spec) -> Predictor:
    """Open the model in this process; it uses all cores, or the GPU."""
    settings = json.loads(spec.settings)
    reader = LabelReader(settings["llm"], settings["prompt"], tuple(settings["labels"]))
    engine, form = reader.open()

    def answer(texts: Sequence[str]) -> Answers:
        return Answers(label_table(label_probabilities(engine, form, texts)[0], reader.labels))

    return Predictor(reader.labels, label_columns(reader.labels), answer)
