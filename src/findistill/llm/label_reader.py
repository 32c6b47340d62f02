"""A language model, a prompt and labels as a classifier: label probabilities from one forward pass per text, without sampling."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import OmegaConf

from findistill.config.compose import plain
from findistill.core.files import write_json
from findistill.data.labels import LabelSet
from findistill.errors import UserError
from findistill.llm.config import Prompt
from findistill.llm.engine import Request, Sampling
from findistill.llm.in_process import InProcessEngine
from findistill.llm.prompts import Template, template
from findistill.models.folder import ADAPTER_PROMPT, adapter_prompt

ENGINE = ("name", "model", "dtype", "batch_tokens", "max_prompt_tokens", "chat", "adapter")  # of the `llm` section


@dataclass(frozen=True)
class LabelReader:
    """A language model, its prompt (without demonstrations) and the labels.

    Attributes:
        llm: settings of `InProcessEngine`.
        prompt: settings of `Prompt`.
    """

    llm: dict[str, Any]
    prompt: dict[str, Any]
    labels: tuple[str, ...]

    @classmethod
    def of(cls, llm: Any, prompt: Any, labels: Sequence[str]) -> "LabelReader":
        """From the sections of a configuration."""
        settings = plain(llm)
        return cls({name: settings[name] for name in ENGINE}, plain(prompt), tuple(labels))

    @classmethod
    def beside(cls, adapter: Path) -> "LabelReader":
        """The prompt that an adapter was tuned on, read from the adapter's folder, with that adapter.

        Raises:
            UserError: it cannot be read, or has a setting that this version does not know, so that the prompt would differ.
        """
        saved = adapter_prompt(adapter)
        settings = {field.name for field in fields(Prompt)}
        if unknown := sorted({*saved["prompt"]} - settings) + sorted({*saved["llm"]} - {*ENGINE}):
            raise UserError(
                f"the adapter {adapter}: {ADAPTER_PROMPT} sets {', '.join(unknown)}, which this version does not know.\n"
                "Install the version that tuned it, or newer: pip install --upgrade findistill"
            )
        return cls(saved["llm"] | {"adapter": str(adapter)}, saved["prompt"], tuple(saved["labels"]))

    def save(self, adapter: Path) -> None:
        """Save it in an adapter's folder, for labelling texts with the adapter."""
        llm = {name: value for name, value in self.llm.items() if name != "adapter"}
        write_json(adapter / ADAPTER_PROMPT, {"llm": llm, "prompt": self.prompt, "labels": list(self.labels)})

    def open(self) -> tuple[InProcessEngine, Template]:
        """The engine, which loads its weights at the first request, and the prompt template."""
        prompt: Any = OmegaConf.merge(Prompt, self.prompt)
        engine = InProcessEngine(_target_="", **{name: self.llm[name] for name in ENGINE if name in self.llm})
        return engine, template(prompt, LabelSet(self.labels))


def label_probabilities(engine: InProcessEngine, form: Template, texts: Sequence[str]) -> tuple[np.ndarray, float]:
    """(n, n_labels) probabilities of the label words, and the seconds that this took, excluding loading."""
    requests = [Request(str(number), text, (), (0,)) for number, text in enumerate(texts)]
    scores, seconds = np.zeros((len(texts), len(form.words))), 0.0
    for batch in engine.responses(requests, form, Sampling(0.0, 0)):
        for answer in batch:
            scores[int(answer.id)] = list((answer.log_probabilities or {}).values())
            seconds += answer.seconds
    return np.exp(scores), seconds
