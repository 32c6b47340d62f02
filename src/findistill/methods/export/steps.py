"""`stage=export`: a trained classifier as files that run with onnxruntime alone."""

from findistill.core.step import Step
from findistill.methods.datasets import model_at, with_tests
from findistill.methods.stage import Stage


class Export(Stage):
    """`stage=export`: write ONNX files, check them against torch, time them."""

    implementation = "findistill.methods.export.stage:run"

    def parents(self) -> dict[str, Step]:
        references = {"model": self._config.evaluate.model, "reference": self._config.export.against}
        models = {role: model_at(name) for role, name in references.items() if name}
        return {**with_tests(self._config), **models}
