"""Token classifiers that mark entities, with torch or as ONNX files: texts in, spans out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from findistill.core.step import load
from findistill.data.spans import Span, from_bio
from findistill.inference import onnx_model
from findistill.models.heads import no_numbers
from findistill.models.portable_tokenizer import PortableTokenizer
from findistill.models.tokens import padded, sorted_batches
from findistill.models.windows import windows

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BATCH = 64

# input_ids, attention_mask (batch, length) int64 -> logits (batch, length, tags) float32
Run = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class TokenClassifier:
    """An open model: its run function, tags, tokenizer and tokens per window."""

    run: Run
    tags: tuple[str, ...]
    tokenizer: "PreTrainedTokenizerBase"
    max_length: int

    def spans(self, texts: Sequence[str]) -> list[list[Span]]:
        """As `SpanModel.spans`. Raises UserError if the model's outputs are not finite."""
        cut = windows(self.tokenizer, texts, self.max_length)
        at_words: list[np.ndarray] = [np.empty(0)] * len(cut)
        for rows in sorted_batches(cut.tokens.lengths, BATCH):
            logits = self.run(*padded(cut.tokens, rows).values())
            for at, row in enumerate(rows):
                at_words[row] = logits[at, cut.place[row]]
        by_text = cut.by_text(at_words)
        for text, own in zip(texts, by_text, strict=True):
            if not np.isfinite(own).all():
                raise no_numbers(text)
        return [
            from_bio([self.tags[tag] for tag in own.argmax(1)], words) if len(words) else []
            for own, words in zip(by_text, cut.words, strict=True)
        ]


def open_model(model: str | Path, accelerator: str = "auto") -> TokenClassifier:
    """Open a token classifier: a folder or hub id in torch, or an ONNX file."""
    if Path(model).suffix == ".onnx":
        return open_onnx(Path(model))
    opened: TokenClassifier = load("findistill.inference.token_model:open_model")(model, accelerator)
    return opened


def open_onnx(path: Path, threads: int | None = None) -> TokenClassifier:
    """Open an ONNX file with the tags and the tokenizer beside it, on this many threads (None: all cores)."""
    tags, alone = onnx_model.companions(path)
    _, compute = onnx_model.open_graph(path, threads)
    one = np.ones((1, 1), np.int64)
    onnx_model.check_outputs(path, compute(["logits"], one, one)[0].shape[-1], tags)
    tokenizer = PortableTokenizer(alone)
    return TokenClassifier(lambda ids, mask: compute(["logits"], ids, mask)[0], tags, tokenizer, tokenizer.longest)


def export(model: str | Path, folder: Path, opset: int, variants: Sequence[str] = ("fp32", "int8_dynamic")) -> dict[str, Path]:
    """Write a token classifier as ONNX files into `folder`, with their companion files; returns the files by variant."""
    files: dict[str, Path] = load("findistill.inference.token_model:export")(model, folder, opset, variants)
    return files
