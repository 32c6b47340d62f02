"""`fit` trains an encoder and saves a model folder."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytorch_lightning as pl
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from findistill.config.fields import declares
from findistill.data import training_texts
from findistill.data.labels import LabelSet
from findistill.errors import UserError
from findistill.models.batches import Rows
from findistill.models.config import Encoder
from findistill.models.encoders import load, save
from findistill.models.forward import device_of, logits_of
from findistill.models.heads import Scale, Thresholds
from findistill.models.linear import fit_linear
from findistill.models.tokens import tokenise
from findistill.models.training_profile import TrainingProfile
from findistill.models.vocabulary import trim
from findistill.models.weights import locate
from findistill.training import checkpoints
from findistill.training.classifier import EncoderClassifier
from findistill.training.config import Distill
from findistill.training.datamodule import LARGE
from findistill.training.loop import Session, Training, freeing
from findistill.training.objectives import Objective
from findistill.training.recipe import Recipe

log = logging.getLogger(__name__)

MANY_CUT = 0.05  # a share of the training texts


@dataclass(frozen=True)
class Examples:
    """Training examples: n texts with vote shares `targets` (n, n_labels) float32 and `hard` labels (n,) int64.

    Columns are in LabelSet order. `hard` does not follow from the shares, because ties among votes have their own rule.
    """

    ids: list[str]
    texts: list[str]
    targets: np.ndarray
    hard: np.ndarray

    def __len__(self) -> int:
        return len(self.texts)

    def rows(self, tokenizer: PreTrainedTokenizerBase, max_length: int, cache: Path | None) -> Rows:
        """The same, tokenised."""
        return Rows(tokenise(tokenizer, self.texts, max_length, cache), self.targets, self.hard)

    @classmethod
    def from_frame(cls, frame: pd.DataFrame, labels: LabelSet) -> "Examples":
        """Rows with the columns id, text, label, and soft_<label> where votes exist (one-hot of the label otherwise).

        Raises UserError for a row without a label or with an unknown one.
        """
        missing = frame["label"].isna()
        if missing.any():
            raise UserError(
                f"column label: {int(missing.sum())} of {len(frame)} rows have no label, first id={frame['id'][missing].iloc[0]}."
                "\nOnly labelled rows can be trained on; label them first (stage=annotate)."
            )
        hard = np.asarray([labels.index(name) for name in frame["label"]], dtype=np.int64)
        columns = [f"soft_{name}" for name in labels.names]
        if set(columns) <= set(frame.columns):
            targets = frame[columns].to_numpy(dtype=np.float32)
        else:
            targets = np.eye(len(labels.names), dtype=np.float32)[hard]
        return cls(frame["id"].tolist(), frame["text"].tolist(), targets, hard)

    @classmethod
    def from_scores(cls, frame: pd.DataFrame, labels: LabelSet) -> "Examples":
        """Rows with a `score` in [-1, 1]: label shares of which positive minus negative is that score.

        Raises UserError for a frame without scores, or labels that do not form a scale.
        """
        if "score" not in frame or frame["score"].isna().any():
            raise UserError("teacher.objective=regression needs a score in every row: use data=fiqa_news or data=fiqa_posts.")
        shares = Scale.of(labels.names).from_scores(frame["score"].to_numpy(dtype=np.float64))
        return replace(cls.from_frame(frame, labels), targets=shares.astype(np.float32))


@dataclass(frozen=True)
class Trained:
    """What `fit` saved, and its cost."""

    model_dir: Path
    history: list[dict[str, float]]  # one row per epoch: epoch, train/loss, val/{loss,macro_f1,accuracy}, lr, seconds
    best_epoch: int  # counted from 1
    train_s: float  # wall time of the training loop, validation included
    cpu_s: float  # processor time of the same, all threads
    parameters: int
    megabytes: float  # of the weights
    thresholds: dict[str, float] | None = None  # scalar head only

    @classmethod
    def of(
        cls, model: nn.Module, folder: Path, history: list[dict[str, float]], best_epoch: int, times: dict[str, float],
        thresholds: Thresholds | None = None,
    ) -> "Trained":  # fmt: skip
        """For a model that is saved in `folder`; removes its checkpoints."""
        checkpoints.remove(folder)
        megabytes = sum(value.numel() * value.element_size() for value in model.parameters()) / 1e6
        cuts = asdict(thresholds) if thresholds else None
        return cls(
            folder / "model",
            history,
            best_epoch,
            **times,
            parameters=sum(value.numel() for value in model.parameters()),
            megabytes=megabytes,
            thresholds=cuts,
        )


def untrained(
    encoder: Encoder, recipe: Recipe, texts: Sequence[str], begin: Callable[[], tuple[PreTrainedModel, PreTrainedTokenizerBase]],
    *, seed: int,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:  # fmt: skip
    """The initial model of a training, from `begin`, with all generators seeded.

    `encoder.trim_vocabulary` keeps the pieces of `texts`.

    Raises:
        UserError: the model reads fewer tokens than `recipe.max_length`.
    """
    pl.seed_everything(seed, workers=True, verbose=False)
    model, tokenizer = begin()
    if recipe.max_length > (longest := longest_of(model) or recipe.max_length):
        raise UserError(f"trainer.max_length={recipe.max_length}: {encoder.model} reads at most {longest} tokens.")
    if encoder.trim_vocabulary:
        tokenizer = trim(model, tokenizer, texts, recipe.max_length)
    model.train()  # from_pretrained sets evaluation mode, and Lightning leaves modes as they are
    return model, tokenizer


def starting_folder(encoder: Encoder) -> str:
    """The folder, or hub id, of the weights that a training starts from; empty for new ones."""
    return "" if encoder._target_ or encoder.init == "random" else locate(encoder.model)


def longest_of(model: PreTrainedModel) -> int | None:
    """The most tokens that a model reads, if its configuration says so."""
    return getattr(model.config, "max_position_embeddings", None)


def note_cut(lengths: np.ndarray, max_length: int, longest: int | None) -> None:
    """Warn if more than `MANY_CUT` of the texts fill `max_length` tokens: their ends are cut off."""
    cut = int((lengths >= max_length).sum())
    if cut > MANY_CUT * len(lengths):
        longer = min(2 * max_length, longest or 2 * max_length)
        remedy = f"; trainer.max_length={longer} reads more of them" if longer > max_length else ""
        log.warning("%d of %d training texts (%.0f%%) reach %d tokens and are truncated%s",
                    cut, len(lengths), 100 * cut / len(lengths), max_length, remedy)  # fmt: skip


def _fit_linear(kind: str, labels: LabelSet, train: Examples, session: Session) -> Trained:
    """`fit` of a linear classifier, which has no epochs."""
    start, processor = time.perf_counter(), time.process_time()
    model = fit_linear(kind, train.texts, [labels.names[label] for label in train.hard], seed=session.seed)
    wall, cpu = time.perf_counter() - start, time.process_time() - processor
    model.save(session.folder / "model")
    training_texts.write(session.folder / "model", train.texts, [])
    return Trained(session.folder / "model", [], 0, wall, cpu, model.parameters, megabytes=8 * model.parameters / 1e6)


@freeing()
def fit(
    encoder: Encoder, distill: Distill | None, labels: LabelSet, train: Examples, validation: Examples, session: Session,
    corpus: Sequence[str] = (),
) -> Trained:  # fmt: skip
    """Train `encoder` and save `model` in the session's folder, a Hugging Face model of the best validation epoch.

    `distill` says what is learnt from the votes (None: human labels, as set in a `Teacher` encoder). What `trainer`
    leaves unset is taken from the encoder. Without validation rows, the last epoch is kept. The same seed on the same
    CPU and number of threads gives the same weights, bit for bit. With `encoder.trim_vocabulary`, the pieces of the
    training texts and of `corpus`, further unlabelled texts, are kept.

    Raises UserError for settings that cannot be trained with, and if the loss is not finite.
    """
    trainer, names = session.trainer, labels.names
    if not len(train):
        raise UserError("no training rows are left: lower distill.min_agreement or raise data.limit.")
    if declares(encoder, "linear"):
        return _fit_linear(encoder.model, labels, train, session)
    recipe = Recipe.of(encoder, trainer)
    objective = Objective.of(distill, names, train.hard, encoder)
    if objective.scale and not len(validation):
        raise UserError(
            "distill.target=scalar and teacher.objective=regression choose thresholds on validation rows:"
            " set data.validation above 0."
        )
    texts = [*train.texts, *corpus]
    begin = partial(load, encoder, names, scalar=objective.scale is not None, seed=session.seed)
    model, tokenizer = untrained(encoder, recipe, texts, begin, seed=session.seed)
    rows, validation_rows = (part.rows(tokenizer, recipe.max_length, session.tokens_cache) for part in (train, validation))
    note_cut(rows.tokens.lengths, recipe.max_length, longest_of(model))
    profile = TrainingProfile.of(rows.tokens.flat, tokenizer, [names[label] for label in train.hard])
    recipe, rows = recipe.over(rows, trainer.accumulate_grad_batches)
    module = EncoderClassifier(model, objective, recipe, len(names))
    times = Training(module, rows, validation_rows, recipe, session).run()
    thresholds = None
    if objective.scale:  # chosen in float32, the precision they are used in
        scores = logits_of(model.eval(), validation_rows.tokens, LARGE * recipe.batch_size, device_of(trainer.accelerator))
        thresholds = objective.scale.choose(np.tanh(scores[:, 0].astype(np.float64)), validation_rows.hard)
    save(session.folder / "model", model, tokenizer, names, recipe.max_length, thresholds)
    training_texts.write(session.folder / "model", [*train.texts, *validation.texts], [starting_folder(encoder)])
    profile.write(session.folder / "model")
    return Trained.of(model, session.folder, module.history, module.best_epoch, times, thresholds)
