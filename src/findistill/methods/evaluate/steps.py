"""`stage=evaluate`: score any model on the test rows of any data set."""

from findistill.core.step import Step
from findistill.methods.datasets import DATA, model_at, only_tested, with_tests
from findistill.methods.stage import Stage


class Evaluate(Stage):
    """`stage=evaluate`: score a trained classifier."""

    version = 3  # counts the test rows that the model was trained on
    implementation = "findistill.methods.evaluate.stage:run"

    def parents(self) -> dict[str, Step]:
        return {**with_tests(self._config), DATA: only_tested(self._config.data), "model": model_at(self._config.evaluate.model)}
