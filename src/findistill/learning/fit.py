"""`fit` trains an encoder and leaves a model folder, `predict` reads one, `latency` times one."""

import contextlib
import gc
import logging
import math
import signal
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import numpy as np
import torch

from findistill.errors import UserError
from findistill.learning.batches import LengthGroupedBatches, Rows, pad, sorted_batches, tokenise
from findistill.learning.classify import MONITORS, EncoderClassifier, Progress
from findistill.learning.encoders import LABELS, THRESHOLDS, depths, load, open_trained, save
from findistill.learning.objectives import Objective, Scale, Thresholds, probabilities
from findistill.learning.recipe import Recipe, RecipeModule, Unfreezing
from findistill.learning.vocabulary import trim
from findistill.runs import hardware

if TYPE_CHECKING:
    import pandas as pd
    import pytorch_lightning as pl
    from pytorch_lightning.loggers import Logger
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from findistill.data.labels import LabelSet
    from findistill.learning.lora import Prompts
    from findistill.learning.pretrain import MaskedRows
    from findistill.settings.schema import Distill, Encoder, Trainer

P = ParamSpec("P")
T = TypeVar("T")

LONGEST = 512  # tokens, for a model that names no limit of its own
TIMED = 100  # texts timed one at a time
BULK = 512  # texts timed in batches
LARGE = 4  # batches at once where no gradients are kept


@dataclass(frozen=True)
class Examples:
    """What to learn from: n texts with vote shares `targets` (n, n_labels) float32 and `hard` labels (n,) int64.

    Columns are in LabelSet order. `hard` is kept apart from the shares because a tie among votes has a rule of its own.
    """

    ids: list[str]
    texts: list[str]
    targets: np.ndarray
    hard: np.ndarray

    def __len__(self) -> int:
        return len(self.texts)

    @classmethod
    def from_frame(cls, frame: "pd.DataFrame", labels: "LabelSet") -> "Examples":
        """Rows with the columns id, text, label, and soft_<label> where votes exist (one-hot of the label otherwise).

        Raises UserError for a row without a label or with an unknown one.
        """
        missing = frame["label"].isna()
        if missing.any():
            raise UserError(
                f"column label: {int(missing.sum())} of {len(frame)} rows have none, first id={frame['id'][missing].iloc[0]}."
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
    def from_scores(cls, frame: "pd.DataFrame", labels: "LabelSet") -> "Examples":
        """Rows with a `score` in [-1, 1]: the shares whose positive less negative one is that score.

        Raises UserError for a frame without scores, or labels that are no scale.
        """
        if "score" not in frame or frame["score"].isna().any():
            raise UserError("teacher.objective=regression needs a score in every row: use data=fiqa_news or data=fiqa_posts.")
        shares = Scale.of(labels.names).from_scores(frame["score"].to_numpy(dtype=np.float64))
        return replace(cls.from_frame(frame, labels), targets=shares.astype(np.float32))


@dataclass(frozen=True)
class Trained:
    """What `fit` left behind and what it took."""

    model_dir: Path
    history: list[dict[str, float]]  # an epoch a row: epoch, train/loss, val/{loss,macro_f1,accuracy}, lr, seconds
    best_epoch: int  # counted from 1
    train_s: float  # wall time of the training loop, validation included
    cpu_s: float  # processor time of the same, all threads
    parameters: int
    megabytes: float  # of the weights
    thresholds: dict[str, float] | None = None  # scalar head only


@dataclass(frozen=True)
class Prediction:
    """Label probabilities (n, n_labels) float64, columns named by `labels`; the most probable label of each text.

    A model with a scalar head also gives `scores`, (n,) float64 in [-1, 1].
    """

    probabilities: np.ndarray
    labels: tuple[str, ...]
    predicted: list[str]
    scores: np.ndarray | None = None


def freeing(train: Callable[P, T]) -> Callable[P, T]:
    """Collect what a training leaves in memory: jobs share one process, and Lightning's objects refer to each other."""

    @wraps(train)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return train(*args, **kwargs)
        finally:  # with the training's own variables gone
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    return run


@freeing
def fit(
    encoder: "Encoder",
    distill: "Distill | None",
    trainer: "Trainer",
    labels: "LabelSet",
    train: Examples,
    validation: Examples,
    *,
    seed: int,
    folder: Path,
    loggers: "list[Logger]",
    tokens_cache: Path | None = None,
    corpus: Sequence[str] = (),
) -> Trained:
    """Train `encoder` and leave `folder/model`, the weights of the best validation epoch, as a Hugging Face folder.

    `distill` says what is learnt from the votes (None: human labels, as a `Teacher` encoder says). What `trainer`
    leaves unset is the encoder's. Validation rows may be none: the last epoch is kept then. The same seed on the same
    CPU and number of threads gives the same weights, bit for bit. With `encoder.trim_vocabulary` the pieces of the
    training texts and of `corpus`, further unlabelled texts, are kept.

    Raises UserError for settings that cannot be trained with, and when the loss stops being finite.
    """
    if not len(train):
        raise UserError("no training rows are left: lower distill.min_agreement or raise data.limit.")
    if trainer.monitor not in MONITORS:
        raise UserError(f"trainer.monitor={trainer.monitor}: choose one of {', '.join(MONITORS)}.")
    recipe = recipe_of(encoder, trainer)
    objective = Objective.of(distill, labels.names, train.hard, encoder)
    if objective.scale and not len(validation):
        raise UserError(
            "distill.target=scalar and teacher.objective=regression choose thresholds on validation rows:"
            " set data.validation above 0."
        )
    names = labels.names
    import pytorch_lightning as pl

    pl.seed_everything(seed, workers=True, verbose=False)
    model, tokenizer = load(encoder, names, scalar=objective.scale is not None, seed=seed)
    longest = getattr(model.config, "max_position_embeddings", recipe.max_length)
    if recipe.max_length > longest:
        raise UserError(f"trainer.max_length={recipe.max_length}: {encoder.model} reads at most {longest} tokens.")
    if encoder.trim_vocabulary:
        tokenizer = trim(model, tokenizer, [*train.texts, *corpus], recipe.max_length)
    rows = Rows(tokenise(tokenizer, train.texts, recipe.max_length, tokens_cache), train.targets, train.hard)
    held_tokens = tokenise(tokenizer, validation.texts, recipe.max_length, tokens_cache)
    held = Rows(held_tokens, validation.targets, validation.hard)

    model.train()  # from_pretrained gives evaluation mode, and Lightning leaves modes as they are
    module = EncoderClassifier(model, objective, recipe, len(names))
    ran = train_loop(module, rows, held, recipe, trainer, seed=seed, folder=folder, loggers=loggers)

    model.load_state_dict(module.best_state)
    thresholds = None
    if objective.scale:  # chosen in float32, the precision they are used in
        scores = _logits(model.eval(), held, LARGE * recipe.batch_size, device_of(trainer.accelerator))
        thresholds = objective.scale.choose(np.tanh(scores[:, 0].astype(np.float64)), held.hard)
    if ran.writes:
        save(folder / "model", model, tokenizer, names, recipe.max_length, thresholds)
    return Trained(
        model_dir=folder / "model",
        history=module.history,
        best_epoch=module.best_epoch,
        train_s=ran.train_s,
        cpu_s=ran.cpu_s,
        parameters=model.num_parameters(),
        megabytes=sum(p.numel() * p.element_size() for p in model.parameters()) / 1e6,
        thresholds=thresholds.as_dict() if thresholds else None,
    )


def recipe_of(encoder: "Encoder", trainer: "Trainer") -> Recipe:
    """The numbers of a run: what `trainer` leaves unset is the encoder's."""
    return Recipe(
        epochs=_first(trainer.max_epochs, encoder.epochs),
        batch_size=_first(trainer.batch_size, encoder.batch_size),
        learning_rate=_first(trainer.learning_rate, encoder.learning_rate),
        max_length=_first(trainer.max_length, encoder.max_length),
        weight_decay=trainer.weight_decay,
        warmup=trainer.warmup,
        monitor=trainer.monitor,
        precision=_lightning_precision(trainer),
        schedule=trainer.schedule,
        layer_decay=trainer.layer_decay,
        unfreeze=trainer.unfreeze,
        freeze_embeddings=encoder.freeze_embeddings,
    )


@dataclass(frozen=True)
class Ran:
    """What a training loop took; `writes` tells the one process that saves."""

    train_s: float
    cpu_s: float
    writes: bool


def train_loop(
    module: RecipeModule,
    rows: "Rows | MaskedRows | Prompts",
    held: "Rows | Prompts | None",
    recipe: Recipe,
    trainer: "Trainer",
    *,
    seed: int,
    folder: Path,
    loggers: "list[Logger]",
    check_every: int | None = None,
    callbacks: "Sequence[pl.Callback]" = (),
    resume: Path | None = None,
) -> Ran:
    """Run Lightning's loop over length-grouped batches; `held` rows, if any, are measured after every epoch.

    `check_every` measures them after so many batches instead (or an epoch, if that is shorter). `resume`: a checkpoint of
    Lightning's to go on from.
    """
    from pytorch_lightning.callbacks import EarlyStopping
    from torch.utils.data import DataLoader

    callbacks = [Progress(), *callbacks]
    if trainer.patience is not None and held:
        mode = "min" if recipe.monitor == "val/loss" else "max"
        callbacks.append(EarlyStopping(recipe.monitor, mode=mode, patience=trainer.patience))
    if recipe.unfreeze == "gradual":
        callbacks.append(Unfreezing(module.model.named_parameters(), depths(module.model)))
    with _quiet_lightning(), _interruptible():
        lightning = _lightning(
            trainer,
            precision=recipe.precision,
            max_epochs=recipe.epochs,
            accumulate_grad_batches=trainer.accumulate,
            gradient_clip_val=trainer.gradient_clip or None,
            val_check_interval=min(check_every, math.ceil(len(rows) / recipe.batch_size)) if check_every else None,
            logger=loggers or False,
            callbacks=callbacks,
            default_root_dir=folder,
            use_distributed_sampler=False,  # ours knows the ranks
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            log_every_n_steps=10,
        )
        if recipe.unfreeze == "gradual" and lightning.world_size > 1:
            raise UserError("trainer.unfreeze=gradual trains on one device: set trainer.devices=1, or trainer.unfreeze=none.")
        lengths, rank, world = rows.tokens.lengths, lightning.global_rank, lightning.world_size
        batches = DataLoader(rows, batch_size=None, sampler=LengthGroupedBatches(lengths, recipe.batch_size, seed, rank, world))
        held_batches = None
        if held:
            sampler = sorted_batches(held.tokens.lengths, LARGE * recipe.batch_size)
            held_batches = DataLoader(held, batch_size=None, sampler=sampler)
        wall, cpu = time.perf_counter(), time.process_time()
        lightning.fit(module, batches, held_batches, ckpt_path=resume, weights_only=True if resume else None)
        return Ran(time.perf_counter() - wall, time.process_time() - cpu, lightning.is_global_zero)


def predict(
    model: str | Path,
    texts: Sequence[str],
    trainer: "Trainer",
    *,
    batch_size: int = 128,
    tokens_cache: Path | None = None,
) -> Prediction:
    """Classify `texts` with a model folder or hub id, in float32 whatever `trainer.precision` says.

    So plain `from_pretrained` gives the same predictions. Label names are the model's own; texts are truncated at
    `trainer.max_length`, or where the model's tokenizer says it was trained to.
    """
    loaded, tokenizer = open_trained(model)
    names, scale, thresholds = reading(loaded)
    tokens = tokenise(tokenizer, texts, text_length(trainer, loaded, tokenizer), tokens_cache)
    empty = np.zeros((len(tokens), 0), dtype=np.float32)
    rows = Rows(tokens, empty, np.zeros(len(tokens), dtype=np.int64))
    logits = _logits(loaded, rows, batch_size, device_of(trainer.accelerator))
    shares = probabilities(logits, scale, thresholds)
    scores = np.tanh(logits[:, 0].astype(np.float64)) if scale else None
    return Prediction(shares, names, [names[i] for i in shares.argmax(axis=1)], scores)


def latency(model: str | Path, texts: Sequence[str], trainer: "Trainer") -> dict[str, float]:
    """Text in, logits out, tokenising included, float32: milliseconds at batch 1 (median, 95%), texts a second at 32.

    Times 100 texts one by one and 512 in batches (those given are repeated if there are fewer), after a warm-up.
    """
    loaded, tokenizer = open_trained(model)
    device = device_of(trainer.accelerator)
    loaded.to(device)
    max_length = text_length(trainer, loaded, tokenizer)

    @torch.inference_mode()
    def run(batch: Sequence[str]) -> float:
        started = time.perf_counter()
        tokens = tokenise(tokenizer, batch, max_length)
        inputs = {name: value.to(device) for name, value in pad(tokens, range(len(tokens))).items()}
        loaded(**inputs).logits.cpu()  # waits for the device
        return time.perf_counter() - started

    many = [texts[i % len(texts)] for i in range(BULK)]
    for text in many[:5]:
        run([text])
    single = [run([text]) for text in many[:TIMED]]
    run(many[:32])
    bulk = sum(run(many[i : i + 32]) for i in range(0, BULK, 32))
    return {
        "latency/p50_ms": 1000 * float(np.percentile(single, 50)),
        "latency/p95_ms": 1000 * float(np.percentile(single, 95)),
        "throughput/texts_per_s": BULK / bulk,
    }


@torch.inference_mode()
def _logits(model: "PreTrainedModel", rows: Rows, batch_size: int, device: torch.device) -> np.ndarray:
    """(n, outputs) float32 logits of every row, in the rows' order."""
    model.to(device)
    logits = np.zeros((len(rows), model.config.num_labels), dtype=np.float32)
    for indexes in sorted_batches(rows.tokens.lengths, batch_size):
        inputs = {name: value.to(device) for name, value in pad(rows.tokens, indexes).items()}
        logits[indexes] = model(**inputs).logits.float().cpu().numpy()
    return logits


def reading(model: "PreTrainedModel") -> tuple[tuple[str, ...], Scale | None, Thresholds | None]:
    """Label names of a trained model, with scale and thresholds where its head is a scalar one."""
    config = model.config
    if getattr(config, THRESHOLDS, None):
        names = tuple(getattr(config, LABELS))
        return names, Scale.of(names), Thresholds(**getattr(config, THRESHOLDS))
    return tuple(config.id2label[i] for i in range(config.num_labels)), None, None


def text_length(trainer: "Trainer", model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase") -> int:
    """Where texts are truncated, in tokens: `trainer.max_length`, or what the tokenizer and the positions allow."""
    limit = min(tokenizer.model_max_length, getattr(model.config, "max_position_embeddings", LONGEST))
    return int(_first(trainer.max_length, limit))


def _first(chosen: T | None, default: T) -> T:
    return default if chosen is None else chosen


def device_of(accelerator: str) -> torch.device:
    """The device that `trainer.accelerator` means on this machine."""
    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        return torch.device("cuda")
    if accelerator in ("auto", "gpu", "mps") and torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def _lightning_precision(trainer: "Trainer") -> str:
    """Lightning's name for the precision at hand; on a CPU `auto` is bf16 only where the processor gains."""
    chosen = hardware.precision(trainer.precision, trainer.accelerator)
    return {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}[chosen]


def _lightning(trainer: "Trainer", **settings: Any) -> "pl.Trainer":
    """Lightning's trainer on the configured device. Raises UserError where this machine does not have it."""
    import pytorch_lightning as pl
    from lightning_fabric.utilities.exceptions import MisconfigurationException

    where = {"accelerator": trainer.accelerator, "devices": trainer.devices, "strategy": trainer.strategy}
    try:
        return pl.Trainer(**where, **settings)
    except (MisconfigurationException, ValueError) as error:
        chosen = ", ".join(f"trainer.{name}={value}" for name, value in where.items())
        raise UserError(f"{chosen}: {str(error).splitlines()[0]}\nChoose what this machine has, or leave them auto.") from error


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Lightning answers Ctrl-C by ignoring further ones and exiting with code 1; whoever called decides that here."""
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as stopped:
        if isinstance(stopped.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from stopped
        raise
    finally:
        if signal.getsignal(signal.SIGINT) is not before:
            signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Keeps Lightning's advice (loader workers, logging interval, available devices) off the terminal."""
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="pytorch_lightning.*")
        warnings.filterwarnings("ignore", module="torch.optim.lr_scheduler")
        yield
