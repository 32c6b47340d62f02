"""`stage=export`: a trained classifier for onnxruntime alone, or a model's folder or annotations to share."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from findistill.core.step import Step
from findistill.methods.datasets import model_at, with_tests
from findistill.methods.export.sources import annotations_at
from findistill.methods.stage import Stage, without

# The folder of the exported files in a run folder, also in RESULTS of `core.run_folder`.
FOLDERS = {"onnx": "onnx", "torch": "model", "annotations": "annotations"}


def what(config: Any) -> str:
    """`onnx`, `torch` or `annotations`."""
    return "annotations" if config.export.annotations else str(config.export.format)


class Export(Stage):
    """`stage=export`: write files to share, and upload them if `export.push_to_hub` is set.

    ONNX files are compared with torch and timed; the others are copies, and do not read the data.
    """

    afterwards = "findistill.methods.export.publish:publish"

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        modules = {"onnx": "stage", "torch": "folder", "annotations": "annotations"}
        self.what = what(config)
        self.implementation = f"findistill.methods.export.{modules[self.what]}:run"
        if self.what != "onnx":
            self.reads = ("evaluate.model", "export")

    def parents(self) -> dict[str, Step]:
        if self.what == "annotations":
            return {}
        model: dict[str, Step] = {"model": model_at(self._config.evaluate.model)}
        if self.what == "torch":
            return model
        against = self._config.export.against
        return {**with_tests(self._config), **model, **({"reference": model_at(against)} if against else {})}

    def files(self) -> Iterable[Path]:
        """What is copied besides weights and tokenizer: the card; for annotations, all files."""
        if self.what == "annotations":
            folder = annotations_at(self._config.export.annotations)
            return [
                path for name in ("annotations.parquet", "samples.jsonl", "summary.json") if (path := folder / name).is_file()
            ]
        model = Path(self._config.evaluate.model)
        cards = [folder / "README.md" for folder in (model / "model", model)]
        return [card for card in cards if self.what == "torch" and card.is_file()][:1]

    def settings(self) -> dict[str, Any]:
        settings = super().settings()
        if self.what == "onnx":
            return {**settings, "export": without(settings["export"], "format", "annotations", "texts")}
        return {"what": self.what, "texts": self._config.export.texts if self.what == "annotations" else None}

    def acts_afterwards(self) -> bool:
        return self._config.export.push_to_hub is not None
