"""GLiNER models in batches of windows of similar length, with torch or as ONNX files: texts in, spans out."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from findistill.data.spans import Span
from findistill.errors import UserError
from findistill.inference import onnx_export
from findistill.models import gliner_model
from findistill.models.forward import device_of
from findistill.models.gliner_model import Use
from findistill.models.tokens import sorted_batches
from findistill.models.windows import Predicted, WordWindows

BATCH = 32
WINDOW = 128  # words, for a model that does not say how many it was trained with


@dataclass(frozen=True)
class Gliner:
    """An open model and how it is prompted."""

    model: Any
    use: Use

    def spans(self, texts: Sequence[str]) -> list[list[Span]]:
        """As `SpanModel.spans`."""
        cut = WordWindows.of(texts, self.use.max_length)
        predicted: list[Predicted] = [[]] * len(cut)
        for rows in sorted_batches(cut.lengths, BATCH):
            examples = [cut.example(row, texts) for row in rows]
            batch = gliner_model.collate(self.model, examples, self.use.prompts, labels=False)
            batch_of, _ = gliner_model.predict(self.model, batch, self.use, self.use.threshold)
            for row, own in zip(rows, batch_of, strict=True):
                predicted[row] = own
        return cut.spans(predicted, self.use.threshold)


def open_model(reference: str | Path, use: Use, accelerator: str = "auto", onnx_file: str | None = None) -> Gliner:
    """Open a folder or hub id, to be prompted as `use` says.

    Args:
        onnx_file: a file of the folder, to run instead of the torch weights.
    """
    model = gliner_model.open_gliner(reference, onnx_file=onnx_file)
    if not onnx_file:
        model.to(device_of(accelerator))
    return Gliner(model, use)


def open_trained(reference: str, types: Sequence[str], accelerator: str = "auto") -> Gliner:
    """Open a folder or hub id, prompted as chosen when findistill trained it, or else for `types`.

    Raises:
        UserError: findistill did not train it, and `types` is empty.
    """
    folder = gliner_model.folder_of(reference)
    use = gliner_model.use_of(folder)
    if use is None and not types:
        raise UserError(f"the GLiNER {reference} does not state its entity types: set predict.types=[company] (or serve.types)")
    return open_model(folder, use or Use.of(types, None, None, WINDOW), accelerator)


def export(
    reference: str | Path, folder: Path, opset: int, variants: Sequence[str] = ("fp32", "int8_dynamic")
) -> dict[str, Path]:
    """Write a GLiNER as ONNX files into `folder`, with configuration and tokenizer beside them; returns the files by variant."""
    model = gliner_model.open_gliner(reference)

    def write(path: Path) -> None:
        with onnx_export.quietly():
            model.export_to_onnx(path.parent, onnx_filename=path.name, opset=opset)

    return onnx_export.write_variants(write, folder, variants)
