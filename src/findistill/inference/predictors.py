"""Any model that labels texts, opened from a description that can be sent to any process: texts in, a table of answers out.

An ONNX file is opened without importing model code, which would take most of a process's memory and start-up time.

A classifier returns `label`, `confidence` and `p_<label>`; an entity model returns `entities`, a list of {start, end, label,
text} with character offsets.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from findistill.core.step import load
from findistill.data.spans import Span
from findistill.inference import onnx_model, tagging
from findistill.inference.spans import SpanModel
from findistill.models.heads import refuse_no_numbers
from findistill.models.tokens import Tokens, tokenise
from findistill.models.training_profile import TrainingProfile, added_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from findistill.models.portable_tokenizer import PortableTokenizer

ENTITIES = pa.list_(pa.struct({"start": pa.int32(), "end": pa.int32(), "label": pa.string(), "text": pa.string()}))


@dataclass(frozen=True)
class Spec:
    """How to open a predictor.

    Attributes:
        kind: classifier, linear, token or gliner, or what `opener` opens.
        model: a folder, an ONNX file or a hub id.
        max_length: tokens at which a classifier's texts are truncated; None: the model's limit.
        threads: CPU threads; None: all cores.
        types: entity types, for a GLiNER that findistill did not train.
        opener: `package.module:function` of another kind; `settings` are its own, as JSON.
        whole_machine: it uses all cores itself, so further processes would only take memory.
    """

    kind: str
    model: str
    accelerator: str = "cpu"
    batch_size: int = 64
    max_length: int | None = None
    threads: int | None = None
    types: tuple[str, ...] = ()
    opener: str = ""
    settings: str = ""
    whole_machine: bool = False


@dataclass(frozen=True)
class Classifier:
    """An open text classifier, whatever runs it.

    Attributes:
        longest: tokens at which texts are truncated.
        folder: where the model's files are.
        probabilities: from the tokens of n texts to label probabilities, (n, n_labels) float64.
    """

    tokenizer: "PreTrainedTokenizerBase | PortableTokenizer"
    longest: int
    labels: tuple[str, ...]
    folder: Path
    probabilities: Callable[[Tokens], np.ndarray]


@dataclass(frozen=True)
class Answers:
    """One row per text, the number of word pieces in the texts, and how many of these occur in no training text."""

    table: pa.Table
    pieces: int = 0
    unseen: int = 0


@dataclass(frozen=True)
class Predictor:
    """An open model. `labels` are a classifier's, or the entity types if known."""

    labels: tuple[str, ...]
    columns: tuple[str, ...]
    answer: Callable[[Sequence[str]], Answers]
    profile: TrainingProfile | None = None


def open_predictor(spec: Spec) -> Predictor:
    """Open the model in this process. Raises UserError if it cannot be opened."""
    if spec.threads:
        if not spec.model.endswith(".onnx"):
            load("torch:set_num_threads")(spec.threads)
        os.environ["TOKENIZERS_PARALLELISM"] = str(spec.threads > 1).lower()
    if spec.opener:
        opened: Predictor = load(spec.opener)(spec)
        return opened
    return {"classifier": _classifier, "linear": _linear, "token": _entities, "gliner": _entities}[spec.kind](spec)


def _classifier(spec: Spec) -> Predictor:
    opener = _onnx_classifier if spec.model.endswith(".onnx") else load("findistill.inference.predict:classifier_of")
    model: Classifier = opener(spec)
    tokenizer, labels, profile = model.tokenizer, model.labels, TrainingProfile.read(model.folder)
    of_text = np.ones(len(tokenizer), bool)
    of_text[added_tokens(tokenizer)] = False
    unseen = of_text & profile.is_unseen(len(tokenizer)) if profile else np.zeros(len(tokenizer), bool)

    def answer(texts: Sequence[str]) -> Answers:
        tokens = tokenise(tokenizer, texts, model.longest)
        shares = model.probabilities(tokens)
        refuse_no_numbers(shares, texts)
        return Answers(label_table(shares, labels), int(of_text[tokens.flat].sum()), int(unseen[tokens.flat].sum()))

    return Predictor(labels, label_columns(labels), answer, profile)


def _onnx_classifier(spec: Spec) -> Classifier:
    path = Path(spec.model)
    opened = onnx_model.open_onnx(path, spec.threads)
    tokenizer = opened.portable

    def probabilities(tokens: Tokens) -> np.ndarray:
        return onnx_model.outputs(opened.run, tokens, spec.batch_size)[1]

    return Classifier(tokenizer, spec.max_length or tokenizer.longest, opened.labels, path.parent, probabilities)


def _linear(spec: Spec) -> Predictor:
    model = load("findistill.models.linear:LinearClassifier").find(spec.model)
    return Predictor(
        model.labels, label_columns(model.labels), lambda texts: Answers(label_table(model.probabilities(texts), model.labels))
    )


def _entities(spec: Spec) -> Predictor:
    model: SpanModel
    if spec.kind == "gliner":
        model = load("findistill.inference.gliner:open_trained")(spec.model, spec.types, spec.accelerator)
    elif spec.model.endswith(".onnx"):
        model = tagging.open_onnx(Path(spec.model), spec.threads)
    else:
        model = tagging.open_model(spec.model, spec.accelerator)
    types = spec.types or tuple(dict.fromkeys(tag.partition("-")[2] for tag in getattr(model, "tags", ()) if "-" in tag))

    def answer(texts: Sequence[str]) -> Answers:
        cells = [[_cell(span, text) for span in spans] for text, spans in zip(texts, model.spans(texts), strict=True)]
        return Answers(pa.table({"entities": pa.array(cells, ENTITIES)}))

    return Predictor(types, ("entities",), answer)


def _cell(span: Span, text: str) -> dict[str, Any]:
    return {"start": span.start, "end": span.end, "label": span.label, "text": text[span.start : span.end]}


def label_columns(labels: Sequence[str]) -> tuple[str, ...]:
    """The column names of a classifier's answers."""
    return ("label", "confidence", *(f"p_{label}" for label in labels))


def label_table(shares: np.ndarray, labels: Sequence[str]) -> pa.Table:
    """A classifier's answers, from its label probabilities (n, n_labels)."""
    best, small = shares.argmax(axis=1), shares.astype(np.float32)
    names = pa.array(list(labels), pa.string()).take(pa.array(best))
    return pa.table([names, pa.array(small.max(axis=1)), *map(pa.array, small.T)], list(label_columns(labels)))
