"""Classify texts with a model folder or hub id, and measure its latency."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from findistill.inference.latency import latency as measure_latency
from findistill.inference.prediction import Prediction
from findistill.inference.predictors import Classifier, Spec
from findistill.models.batches import pad
from findistill.models.encoders import open_trained
from findistill.models.forward import device_of, logits_of
from findistill.models.heads import label_head, probabilities, refuse_no_numbers, text_length
from findistill.models.linear import LinearClassifier
from findistill.models.tokens import Tokens, tokenise
from findistill.models.weights import locate

if TYPE_CHECKING:
    from findistill.training.config import Trainer


def predict(model: str | Path, texts: Sequence[str], trainer: "Trainer", **settings: Any) -> Prediction:
    """Classify `texts` with a model folder or hub id, in float32 whatever `trainer.precision` says.

    So plain `from_pretrained` gives the same predictions. Label names are the model's own; texts are truncated at
    `trainer.max_length` or else at the model's limit. `settings` are those of `classify`.
    """
    return open_classifier(model)(texts, trainer, **settings)


@dataclass(frozen=True)
class OpenClassifier:
    """An open classifier, of transformers or linear, called with texts and a `trainer` section as `predict` is."""

    labels: tuple[str, ...]
    parameters: int
    classify: Callable[..., Prediction]

    def __call__(self, texts: Sequence[str], trainer: "Trainer", **settings: Any) -> Prediction:
        return self.classify(texts, trainer, **settings)


def open_classifier(model: str | Path) -> OpenClassifier:
    """Open a run folder, a model folder or a hub id; raises UserError as `open_trained` does."""
    if linear := LinearClassifier.find(model):
        return OpenClassifier(linear.labels, linear.parameters, partial(_classify_linear, linear))
    loaded, tokenizer = open_trained(model)
    return OpenClassifier(label_head(loaded)[0], loaded.num_parameters(), partial(classify, loaded, tokenizer))


def classifier_of(spec: Spec) -> Classifier:
    """A classifier in torch, as `predictors` needs it."""
    model, tokenizer = open_trained(spec.model)
    labels, scale, thresholds = label_head(model)
    device = device_of(spec.accelerator)

    def of_tokens(tokens: Tokens) -> np.ndarray:
        return probabilities(logits_of(model, tokens, spec.batch_size, device), scale, thresholds)

    return Classifier(tokenizer, text_length(spec, model, tokenizer), labels, Path(locate(spec.model)), of_tokens)


def _classify_linear(model: LinearClassifier, texts: Sequence[str], trainer: "Trainer", **_: Any) -> Prediction:
    shares = model.probabilities(texts)
    return Prediction(shares, model.labels, [model.labels[i] for i in shares.argmax(axis=1)])


def classify(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], trainer: "Trainer",
    *, batch_size: int = 128, tokens_cache: Path | None = None,
) -> Prediction:  # fmt: skip
    """`predict` with an open model, as from `open_trained`, in batches of texts of similar length."""
    names, scale, thresholds = label_head(model)
    tokens = tokenise(tokenizer, texts, text_length(trainer, model, tokenizer), tokens_cache)
    logits = logits_of(model, tokens, batch_size, device_of(trainer.accelerator))
    refuse_no_numbers(logits, texts)
    shares = probabilities(logits, scale, thresholds)
    scores = np.tanh(logits[:, 0].astype(np.float64)) if scale else None
    return Prediction(shares, names, [names[i] for i in shares.argmax(axis=1)], scores)


def latency(model: str | Path, texts: Sequence[str], trainer: "Trainer") -> dict[str, float]:
    """Text in, logits out, tokenising included, float32: milliseconds at batch 1 (median, 95%), texts per second at 32."""
    if linear := LinearClassifier.find(model):
        return measure_latency(linear.logits, texts)
    loaded, tokenizer = open_trained(model)
    device = device_of(trainer.accelerator)
    loaded.to(device)
    max_length = text_length(trainer, loaded, tokenizer)

    @torch.inference_mode()
    def classify(batch: Sequence[str]) -> torch.Tensor:
        tokens = tokenise(tokenizer, batch, max_length)
        inputs = {name: value.to(device) for name, value in pad(tokens, range(len(tokens))).items()}
        return loaded(**inputs).logits.cpu()  # waits for the device

    return measure_latency(classify, texts)
