"""Export a trained classifier to files that need only onnxruntime and tokenizers: float32 ONNX, and 8-bit in two ways.

8-bit weights: one scale per row of an embedding table, one per column of any other matrix. In a tiny model the word embeddings
are nearly all there is to store, and a single scale for 30,000 rows would be set by the largest of them.
Activations: `dynamic` rescales them in every call, `static` uses the ranges seen on calibration texts.
"""

import json
import logging
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static
from tokenizers import Tokenizer
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from findistill.data import training_texts
from findistill.errors import UserError
from findistill.inference.onnx_model import file_name, open_onnx
from findistill.models import training_profile
from findistill.models.encoders import open_trained
from findistill.models.heads import Scale, Thresholds, label_head, text_length
from findistill.models.weights import locate

VARIANTS = {"none": "fp32", "dynamic": "int8_dynamic", "static": "int8_static"}  # by value of `export.quantize`

TABLE_ROWS = 16  # an embedding table of fewer rows stays float32: it would save nothing


class Classifier(nn.Module):
    """A model with its head applied: token ids in, logits and label probabilities out. Exported, and compared with.

    Raises UserError for a model with fewer than two labels.
    """

    outputs = ("logits", "probabilities")

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model
        self.labels, self.scale, self.thresholds = label_head(model)
        if len(self.labels) < 2:
            raise UserError(
                f"{type(model).__name__} has one output and no thresholds: it is not a classifier and cannot be exported"
            )

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(batch, length) int64 twice -> logits (batch, outputs) float32, probabilities (batch, n_labels) float64."""
        logits = self.model(input_ids=input_ids, attention_mask=attention_mask).logits
        wide = logits.double()  # as `heads.probabilities` computes them
        if self.scale is None or self.thresholds is None:
            return logits, wide.softmax(dim=-1)
        return logits, shares(wide[:, 0].tanh(), self.scale, self.thresholds)

    @torch.inference_mode()
    def run(self, input_ids: np.ndarray, attention_mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """`forward` on arrays, with the signature of an ONNX session (`onnx_model.Run`)."""
        logits, probabilities = self(torch.from_numpy(input_ids), torch.from_numpy(attention_mask))
        return logits.numpy(), probabilities.numpy()


class TokenClassifier(nn.Module):
    """A model that labels tokens: token ids in, logits of the labels out."""

    outputs = ("logits",)

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """(batch, length) int64 twice -> logits (batch, length, labels) float32."""
        logits: torch.Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask).logits
        return logits


def shares(scores: torch.Tensor, scale: Scale, thresholds: Thresholds) -> torch.Tensor:
    """`Scale.shares` in torch: scores (n,) in [-1, 1] to label shares (n, n_labels), with operations that ONNX supports."""
    line = torch.full_like(scores, -1.0)
    for (x, y), (next_x, next_y) in pairwise(zip(*scale.knots(thresholds), strict=True)):
        line = line + (scores - x).clamp(0.0, next_x - x) * ((next_y - y) / (next_x - x))
    return torch.stack(scale.columns(line), dim=-1)


def exported_tokenizer(tokenizer: PreTrainedTokenizerBase, max_length: int) -> Tokenizer:
    """A standalone tokenizer, truncating at `max_length` and padding to the longest text of a batch.

    Raises:
        UserError: it is not from the tokenizers library, so it cannot run outside transformers.
    """
    if not tokenizer.is_fast:
        raise UserError(
            f"the model's tokenizer, {type(tokenizer).__name__}, is written in Python and has no tokenizer.json;"
            " stage=export needs a fast one (of the tokenizers library), as BERT-like students have"
        )
    alone = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    alone.enable_truncation(max_length)
    alone.encode_special_tokens = True  # not saved in tokenizer.json
    alone.enable_padding(pad_id=tokenizer.pad_token_id or 0, pad_token=tokenizer.pad_token or "[PAD]")
    return alone


def save_companions(folder: Path, tokenizer: Tokenizer, labels: Sequence[str], model: str) -> None:
    """Write the companion files of the folder's ONNX files: tokenizer, labels, and the records of `model`'s training texts."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "labels.json").write_text(json.dumps(list(labels)) + "\n", encoding="utf-8")
    training_texts.write(folder, [], [locate(model)])
    training_profile.copy(Path(locate(model)), folder)


def to_onnx(classifier: Classifier | TokenClassifier, path: Path, opset: int) -> None:
    """Write the classifier as one float32 ONNX file; batch and length are dynamic.

    Raises:
        UserError: torch cannot export this architecture, or not to this opset.
    """
    model = classifier.model
    ids, mask = torch.full((2, 8), 5), torch.tensor([[1] * 8, [1] * 5 + [0] * 3])
    free = {0: "batch", 1: "length"}
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")  # fewer operations in the graph than the fused attention unfolds to
    try:
        with quietly():
            program = torch.onnx.export(
                classifier.eval(), (ids, mask), input_names=["input_ids", "attention_mask"], verbose=False, dynamo=True,
                output_names=list(classifier.outputs), dynamic_shapes={"input_ids": free, "attention_mask": free},
                opset_version=opset,
            )  # fmt: skip
    except torch.onnx.OnnxExporterError as error:
        why = str(error.__cause__ or error).strip().splitlines()[0]
        raise UserError(f"{type(model).__name__} cannot be exported to ONNX with export.opset={opset}: {why[:200]}") from error
    finally:
        model.set_attn_implementation(before)
    assert program is not None
    graph = program.model_proto
    # Drop the exporter's metadata: source lines, paths of this machine, and shapes that quantising changes.
    del graph.graph.value_info[:]
    for part in (graph, graph.graph, *graph.graph.node, *graph.graph.input, *graph.graph.output, *graph.graph.initializer):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    onnx.save(graph, path)


def quantise(source: Path, target: Path, calibration: Iterable[dict[str, np.ndarray]] | None = None) -> None:
    """Write the float32 file `source` with 8-bit weights: dynamic, or static with the ranges on `calibration` inputs."""
    graph = quantise_tables(onnx.load(source))
    shared: dict[str, Any] = {"op_types_to_quantize": ["MatMul", "Gemm"], "weight_type": QuantType.QInt8, "per_channel": True}
    shared["extra_options"] = {"MatMulConstBOnly": True}
    with quietly():
        if calibration is None:
            quantize_dynamic(graph, target, **shared)
        else:
            form = {"quant_format": QuantFormat.QDQ, "activation_type": QuantType.QUInt8}
            quantize_static(graph, target, _Reader(calibration), **form, **shared)


def quantise_tables(graph: onnx.ModelProto) -> onnx.ModelProto:
    """Turn float32 tables whose rows a Gather looks up into int8 with one float32 scale per row; changes `graph`.

    A row is off by at most half its scale, which is its largest absolute value / 127.
    """
    weights = {each.name: each for each in graph.graph.initializer}
    nodes: list[onnx.NodeProto] = []
    replaced: set[str] = set()
    for node in graph.graph.node:
        table = weights.get(node.input[0]) if node.op_type == "Gather" else None
        axis = next((each.i for each in node.attribute if each.name == "axis"), 0)
        if table is None or axis or table.data_type != TensorProto.FLOAT or len(table.dims) != 2 or table.dims[0] < TABLE_ROWS:
            nodes.append(node)
            continue
        rows, scales, out = f"{table.name}_int8", f"{table.name}_scale", node.output[0]
        if table.name not in replaced:
            replaced.add(table.name)
            values = numpy_helper.to_array(table)
            scale = np.maximum(np.abs(values).max(axis=1, keepdims=True) / 127, np.finfo(np.float32).tiny)
            graph.graph.initializer.append(numpy_helper.from_array(np.rint(values / scale).astype(np.int8), rows))
            graph.graph.initializer.append(numpy_helper.from_array(scale.astype(np.float32), scales))
        nodes += [
            helper.make_node("Gather", [rows, node.input[1]], [f"{out}_int8"]),
            helper.make_node("Cast", [f"{out}_int8"], [f"{out}_float"], to=TensorProto.FLOAT),
            helper.make_node("Gather", [scales, node.input[1]], [f"{out}_scale"]),
            helper.make_node("Mul", [f"{out}_float", f"{out}_scale"], [out]),
        ]
    still_read = {name for node in nodes for name in node.input}
    for name in replaced - still_read:
        graph.graph.initializer.remove(weights[name])
    del graph.graph.node[:]
    graph.graph.node.extend(nodes)
    return graph


class _Reader(CalibrationDataReader):
    def __init__(self, inputs: Iterable[dict[str, np.ndarray]]) -> None:
        self._inputs = iter(inputs)

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._inputs, None)


@contextmanager
def quietly() -> Iterator[None]:
    """Keep the exporter's and the quantiser's advice off the terminal: it is about operators that no text model has."""
    root, silent = logging.getLogger(), logging.NullHandler()
    root.addHandler(silent)  # the quantiser logs to the root logger, which would otherwise add a printing handler
    level = logging.root.manager.disable
    logging.disable(logging.ERROR)  # failures are raised as well
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
        root.removeHandler(silent)


def write_variants(
    write: Callable[[Path], None], folder: Path, variants: Sequence[str], texts: Sequence[str] = ()
) -> dict[str, Path]:
    """Write a model's ONNX files into `folder`, beside their companion files; returns the files by variant.

    Args:
        write: writes the float32 file, from which the others are quantised.
        variants: of fp32, int8_dynamic and int8_static.
        texts: calibration texts of int8_static.
    """
    files = {variant: folder / file_name(variant) for variant in variants}
    plain = folder / file_name("fp32")
    write(plain)
    if "int8_dynamic" in files:
        quantise(plain, files["int8_dynamic"])
    if "int8_static" in files:
        quantise(plain, files["int8_static"], open_onnx(plain).single_inputs(texts))
    if "fp32" not in files:
        plain.unlink()
    return files


def write_classifier(model: str, folder: Path, opset: int, trainer: Any) -> None:
    """Write a classifier's ONNX files, float32 and 8-bit, into `folder`, with their companion files."""
    loaded, tokenizer = open_trained(model)
    classifier = Classifier(loaded)
    save_companions(folder, exported_tokenizer(tokenizer, text_length(trainer, loaded, tokenizer)), classifier.labels, model)
    write_variants(partial(to_onnx, classifier, opset=opset), folder, ("fp32", "int8_dynamic"))
