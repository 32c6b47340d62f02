"""`stage=fewshot`: an LLM's responses to the rows of a test set."""

from typing import Any

from findistill.config.fields import declares
from findistill.core.step import Step
from findistill.methods.annotate.steps import LLMResponses
from findistill.methods.datasets import with_tests
from findistill.methods.stage import Stage


class TestResponses(LLMResponses):
    """The LLM's responses to the test set with this number, shared by jobs whose seed changes nothing, such as zero-shot ones."""

    reads = ("llm", "prompt", "shots", "annotate", "fewshot", "trainer.max_memory", "evaluate.latency", "data.seed")
    implementation = "findistill.methods.fewshot.responses:ask"
    estimate = "findistill.methods.fewshot.responses:requests"
    __test__ = False  # pytest would collect it by its name

    def __init__(self, config: Any, number: int) -> None:
        super().__init__(config)
        self.number = number

    def settings(self) -> dict[str, Any]:
        settings, config = super().settings(), self.config
        del settings["annotate"]["limit"]
        more = {"scoring": scoring_mode(config), "limit": config.fewshot.limit, "latency": config.evaluate.latency}
        return {"test_set": self.number, **more, **settings}


def scoring_mode(config: Any) -> str:
    """How labels are read: by the mean or sum of a label word's log-probabilities, or from generated text."""
    settings = config.fewshot
    likelihood = settings.scoring == "likelihood" or (settings.scoring == "auto" and declares(config.llm, "in_process"))
    return str(settings.normalise) if likelihood else "generation"


class Fewshot(Stage):
    """`stage=fewshot`: an LLM classifies the test rows with `shots.k` demonstrations in its prompt."""

    implementation = "findistill.methods.fewshot.stage:run"
    check = "findistill.methods.rows:check_test_sets"

    def parents(self) -> dict[str, Step]:
        sets = range(1 + len(self._config.evaluate.also))
        responses = {f"responses/{number}": TestResponses(self._config, number) for number in sets}
        return {**with_tests(self._config), **responses}
