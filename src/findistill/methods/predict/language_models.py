"""Language models in this process as predictors: an adapter of `stage=qlora` with its own prompt, or the `llm` section."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from findistill.inference.predictors import Answers, Predictor, Spec, label_columns, label_table
from findistill.llm.label_reader import LabelReader, label_probabilities
from findistill.models.folder import adapter_folder

KIND = "language model"


def of_section(config: Any, accelerator: str) -> Spec:
    """How to open the model of the `llm` section, asked with the `prompt` section about `data.labels`."""
    return _spec(LabelReader.of(config.llm, config.prompt, config.data.labels), accelerator)


def of_adapter(model: str, accelerator: str) -> Spec | None:
    """How to open the adapter in a folder with the prompt that it was tuned on; None where there is no adapter."""
    folder = adapter_folder(Path(model))
    return _spec(LabelReader.beside(folder), accelerator) if folder else None


def _spec(reader: LabelReader, accelerator: str) -> Spec:
    return Spec(KIND, reader.llm["model"], accelerator, opener=f"{__name__}:open_reader", settings=json.dumps(asdict(reader)))


def open_reader(spec: Spec) -> Predictor:
    """The model in this process; it uses all cores, or the GPU."""
    settings = json.loads(spec.settings)
    reader = LabelReader(settings["llm"], settings["prompt"], tuple(settings["labels"]))
    engine, form = reader.open()

    def answer(texts: Sequence[str]) -> Answers:
        return Answers(label_table(label_probabilities(engine, form, texts)[0], reader.labels))

    return Predictor(reader.labels, label_columns(reader.labels), answer)
