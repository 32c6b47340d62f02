"""Adapters: a language model tuned once on human labels, which `stage=qlora` scores and `llm.adapter=tune` uses."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from findistill.core.step import Step
from findistill.llm.identity import TUNED, llm_identity
from findistill.methods.datasets import with_tests
from findistill.methods.stage import Stage, without
from findistill.methods.trainer_settings import active_callbacks, loop
from findistill.models.files import model_files


def tuned_first(llm: Any) -> bool:
    """Whether this annotator is tuned on the labelled rows before it annotates."""
    return "adapter" in llm and llm.adapter == TUNED


class Adapter(Step):
    """A LoRA adapter for `llm`, tuned on the labelled rows as configured in `qlora`.

    Attributes:
        form: the section of the prompts that it learns to answer.
    """

    name = "qlora"
    version = 3  # its prompt is saved beside it
    implementation = "findistill.methods.qlora.adapters:tune_adapter"
    resumable = True
    estimate = "findistill.methods.qlora.memory:estimate"
    form = "prompt"

    def __init__(self, config: Any, seed: int, *, own_trainer: bool = False) -> None:
        super().__init__(config)
        self.seed = seed
        # As an intermediate step it takes epochs, batch, rate and length from `qlora`; `stage=qlora` reads the whole trainer.
        rates = ("trainer.warmup", "trainer.schedule", "trainer.scheduler", "trainer.monitor")
        on_the_way = (*(name for name in loop(config) if name != "trainer.precision"), *rates)
        trainer = ("trainer", "callbacks") if own_trainer else on_the_way
        self.reads = ("llm", self.form, "qlora", "data.validation", "data.seed", *trainer)

    def parents(self) -> dict[str, Step]:
        return with_tests(self._config)

    def files(self) -> Iterable[Path]:
        return model_files(self._config.llm.model)

    def models(self) -> Iterable[str]:
        return [self._config.llm.model]

    def settings(self) -> dict[str, Any]:
        settings = super().settings()
        callbacks = active_callbacks(settings.get("callbacks", {}))
        return {
            "seed": self.seed,
            "llm": llm_identity(self._config.llm),
            self.form: without(settings[self.form], "name"),
            "qlora": without(settings["qlora"], "merge"),
            "trainer": settings["trainer"],
            # One that only observes must not give the adapter of `stage=qlora` a key other than the annotator's.
            **({"callbacks": callbacks} if callbacks else {}),
        }


class Qlora(Stage):
    """`stage=qlora`: tune an in-process language model on human labels, and score it."""

    implementation = "findistill.methods.qlora.stage:run"
    check = "findistill.methods.rows:check_test_sets"

    def parents(self) -> dict[str, Step]:
        return {**with_tests(self._config), "adapter": Adapter(self._config, self._config.seed, own_trainer=True)}
