"""Classifiers in ONNX files, run by onnxruntime on the CPU.

An exported folder is self-contained: `*.onnx`, `labels.json` (the label names in column order) and `tokenizer.json`,
which includes truncation and padding. A graph takes `input_ids` and `attention_mask`, (batch, length) int64, and
returns `logits` (batch, outputs) float32 and `probabilities` (batch, n_labels) float64, whatever head the model has.
Graphs of other exporters, which return `logits` only, are read as softmax over the labels.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as reasons
from tokenizers import Tokenizer

from findistill.errors import UserError
from findistill.inference.latency import Classify
from findistill.inference.latency import latency as measure_latency
from findistill.inference.prediction import Prediction
from findistill.models.heads import probabilities
from findistill.models.portable_tokenizer import PortableTokenizer
from findistill.models.tokens import Tokens, padded, sorted_batches, tokenise

if TYPE_CHECKING:
    from findistill.training.config import Trainer

# input_ids, attention_mask (batch, length) int64 -> logits (batch, outputs) float32, probabilities (batch, n_labels) float64
Run = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]

UNREADABLE = (
    reasons.Fail, reasons.InvalidArgument, reasons.InvalidGraph, reasons.InvalidProtobuf, reasons.NoModel,
    reasons.NotImplemented, reasons.RuntimeException,
)  # fmt: skip


@dataclass(frozen=True)
class OnnxModel:
    """An open file: its run function, label names and tokenizer (which truncates and pads)."""

    run: Run
    labels: tuple[str, ...]
    tokenizer: Tokenizer

    def tokens(self, texts: Sequence[str], max_length: int | None = None, cache: Path | None = None) -> Tokens:
        """Token ids of the texts, truncated at `max_length` or else at the tokenizer's limit."""
        return tokenise(self.portable, texts, max_length or self.portable.longest, cache)

    @cached_property
    def portable(self) -> PortableTokenizer:
        """The tokenizer as `tokenise` needs it."""
        return PortableTokenizer(self.tokenizer)

    def single_inputs(self, texts: Sequence[str]) -> Iterator[dict[str, np.ndarray]]:
        """The graph's inputs for one text at a time, without padding."""
        for row in map(self.tokenizer.encode, texts):
            yield {"input_ids": np.asarray([row.ids]), "attention_mask": np.asarray([row.attention_mask])}


def file_name(variant: str) -> str:
    """The name of a variant's ONNX file in an export folder."""
    return "model.onnx" if variant == "fp32" else f"model_{variant}.onnx"


def find(model: str, setting: str = "evaluate.model") -> Path | None:
    """The ONNX file that `model` names: the file itself, or one in that folder or in its `onnx/`.

    None where `model` is something else, such as a folder of torch weights or a hub id. A folder with both is read as
    torch weights. `setting` names the model in messages.

    Raises:
        UserError: no such file, or several of them in the folder and none is `model.onnx`.
    """
    path = Path(model)
    if path.suffix == ".onnx":
        if not path.is_file():
            raise UserError(f"{setting}={model}: no such file")
        return path
    if (path / "model" / "config.json").exists() or any(path.glob("*.safetensors")) or any(path.glob("*.bin")):
        return None
    files = sorted(path.glob("onnx/*.onnx")) or sorted(path.glob("*.onnx"))
    preferred = [file for file in files if file.name == "model.onnx" or len(files) == 1]
    if files and not preferred:
        raise UserError(f"{setting}={model} holds several ONNX files; name one: {', '.join(map(str, files))}")
    return preferred[0] if files else None


def open_onnx(path: Path, threads: int | None = None) -> OnnxModel:
    """Open a file with the labels and the tokenizer beside it, on this many threads (None: all cores).

    Raises UserError if anything is missing or unreadable.
    """
    check_companions(path)
    run = load(path, threads)
    labels, tokenizer = companions(path)
    columns = run(np.ones((1, 1), dtype=np.int64), np.ones((1, 1), dtype=np.int64))[1].shape[1]
    check_outputs(path, columns, labels)
    return OnnxModel(run, labels, tokenizer)


def check_outputs(path: Path, columns: int, labels: Sequence[str]) -> None:
    """Raise UserError if the file has more or fewer outputs than labels."""
    if columns != len(labels):
        raise UserError(f"{path} returns {columns} probabilities, but labels.json beside it has {len(labels)} labels")


def check_companions(path: Path) -> None:
    """Raise UserError if labels or tokenizer are missing beside an ONNX file."""
    for name in ("labels.json", "tokenizer.json"):
        if not (path.parent / name).is_file():
            raise UserError(
                f"{path}: there is no {name} beside it.\nstage=export writes labels.json and tokenizer.json; labels.json lists "
                "the label names in the order of the outputs."
            )


def companions(path: Path) -> tuple[tuple[str, ...], Tokenizer]:
    """The labels and the tokenizer beside an ONNX file. Raises UserError if either is missing or unreadable."""
    check_companions(path)
    try:
        labels = json.loads((path.parent / "labels.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path.parent / 'labels.json'} is not JSON ({error})") from error
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise UserError(f'{path.parent / "labels.json"} must be a list of label names, such as ["negative", "positive"]')
    try:
        tokenizer = Tokenizer.from_file(str(path.parent / "tokenizer.json"))
    except Exception as error:  # the only class that tokenizers raises
        raise UserError(f"{path.parent / 'tokenizer.json'} cannot be read: {str(error)[:150]}") from error
    tokenizer.encode_special_tokens = True  # `[SEP]` in a text is text
    return tuple(labels), tokenizer


def load(path: Path, threads: int | None = None) -> Run:
    """The graph of `path` as a function, on this many threads (None: all cores).

    Raises:
        UserError: it is not an ONNX file, or its inputs or outputs are not those of a text classifier.
    """
    gives, compute = open_graph(path, threads)
    names = ["logits", "probabilities"] if "probabilities" in gives else ["logits"]

    def run(input_ids: np.ndarray, attention_mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        logits, *shares = compute(names, input_ids, attention_mask)
        return logits, shares[0] if shares else probabilities(logits, None, None)

    return run


def open_graph(path: Path, threads: int | None = None) -> tuple[set[str], Callable[..., list[np.ndarray]]]:
    """The output names of the graph of `path`, and a function (names, input_ids, attention_mask) that returns these outputs.

    Raises:
        UserError: as `load`.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except UNREADABLE as error:
        raise UserError(f"{path} cannot be read as ONNX: {str(error).splitlines()[0][:150]}") from error
    takes = {each.name for each in session.get_inputs()}
    gives = {each.name for each in session.get_outputs()}
    if not {"input_ids"} <= takes <= {"input_ids", "attention_mask", "token_type_ids"} or "logits" not in gives:
        raise UserError(
            f"{path} has the inputs {', '.join(sorted(takes))} and outputs {', '.join(sorted(gives))}; a text classifier has the"
            " inputs input_ids, attention_mask and the output logits"
        )

    def compute(names: list[str], input_ids: np.ndarray, attention_mask: np.ndarray) -> list[np.ndarray]:
        arrays = {"input_ids": input_ids, "attention_mask": attention_mask, "token_type_ids": np.zeros_like(input_ids)}
        try:
            outputs: list[np.ndarray] = session.run(names, {name: arrays[name] for name in takes})
        except UNREADABLE as error:
            raise UserError(
                f"{path} cannot run on the tokens of tokenizer.json beside it, which may be another model's: "
                f"{str(error).splitlines()[0][:150]}"
            ) from error
        return outputs

    return gives, compute


def outputs(run: Run, tokens: Tokens, batch_size: int = 128) -> tuple[np.ndarray, np.ndarray]:
    """Logits (n, outputs) float32 and probabilities (n, n_labels) float64 of every text, in batches of similar length."""
    batches, one = sorted_batches(tokens.lengths, batch_size), np.ones((1, 1), dtype=np.int64)
    parts = [run(*padded(tokens, indexes).values()) for indexes in batches]
    back = np.argsort([index for indexes in batches for index in indexes])
    logits, shares = (np.concatenate(each)[back] for each in zip(*parts or [run(one, one)], strict=True))
    return logits, shares


def predict(model: str | Path, texts: Sequence[str], trainer: "Trainer", **settings: Any) -> Prediction:
    """Classify `texts` with an ONNX file, as `inference.predict` does with torch weights; `settings` are those of `classify`."""
    return classify(open_onnx(Path(model)), texts, trainer, **settings)


def classify(
    opened: OnnxModel, texts: Sequence[str], trainer: "Trainer", *, batch_size: int = 128, tokens_cache: Path | None = None
) -> Prediction:
    """`predict` with an open file."""
    _, shares = outputs(opened.run, opened.tokens(texts, trainer.max_length, tokens_cache), batch_size)
    return Prediction(shares, opened.labels, [opened.labels[i] for i in shares.argmax(axis=1)])


def latency(model: str | Path, texts: Sequence[str], trainer: "Trainer") -> dict[str, float]:
    """Text in, probabilities out, on all cores: milliseconds at batch 1 (median, 95%), texts per second at batch 32."""
    opened = open_onnx(Path(model))
    return measure_latency(classifier(opened.run, opened.tokenizer), texts)


def classifier(run: Run, tokenizer: Tokenizer) -> Classify:
    """From texts to outputs; `tokenizer` truncates and pads."""

    def classify(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        rows = tokenizer.encode_batch(list(texts))
        return run(np.asarray([row.ids for row in rows]), np.asarray([row.attention_mask for row in rows]))

    return classify
