"""`Training`: Lightning's loop as every training here runs it, on the device and with the settings of `trainer`."""

import contextlib
import gc
import logging
import math
import signal
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments import LightningEnvironment
from lightning_fabric.utilities.exceptions import MisconfigurationException
from omegaconf import OmegaConf
from pytorch_lightning.loggers import Logger
from pytorch_lightning.strategies import DDPStrategy, FSDPStrategy, Strategy

from findistill.core import termination
from findistill.errors import UserError
from findistill.models.batches import BatchedRows
from findistill.models.encoders import depths, layer_stack
from findistill.models.features import admit
from findistill.training import callbacks, checkpoints
from findistill.training.config import Trainer, lightning_extras
from findistill.training.datamodule import TrainingData
from findistill.training.measured import MeasuredModule
from findistill.training.processes import count_of, run_in_processes
from findistill.training.recipe import Recipe, RecipeModule

log = logging.getLogger(__name__)

LOGGED_EVERY = 10  # optimizer steps


@contextlib.contextmanager
def freeing() -> Iterator[None]:
    """Free the memory of a training: jobs share one process, and Lightning's objects form reference cycles.

    For use as a decorator, so that the function's own variables are gone by then.
    """
    try:
        yield
    finally:
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


@dataclass(frozen=True)
class Session:
    """The environment of a training.

    Attributes:
        trainer: the `trainer` section.
        folder: where the model, and during training the checkpoints, are saved.
        callbacks: the `callbacks` section; None: only a progress bar.
        tokens_cache: where token ids are cached, if anywhere.
    """

    trainer: Trainer
    folder: Path
    seed: int = 0
    loggers: Sequence[Logger] = ()
    callbacks: Mapping[str, Any] | None = None
    tokens_cache: Path | None = None


@dataclass(frozen=True)
class Training:
    """Lightning's loop over length-grouped batches of `rows`, with an evaluation on `validation` rows, if any, every epoch.

    A `MeasuredModule` ends with the weights of its best validation, or those of the last epoch without validation. A killed
    run resumes from its last checkpoint in `folder/checkpoints/<part>` and, on the same CPU and number of threads, reaches the
    same weights, bit for bit. The caller removes the checkpoints when the model is saved. Several devices have a process each,
    which share every batch; in the end `module`, on the CPU, has the trained weights.

    Attributes:
        check_every: validate after this many batches instead (or an epoch, if that is shorter).
        part: name of one of several trainings in `session.folder`.
    """

    module: RecipeModule
    rows: BatchedRows
    validation: BatchedRows | None
    recipe: Recipe
    session: Session
    check_every: int | None = None
    part: str = ""

    @property
    def checkpoints(self) -> Path:
        """The folder of its checkpoints."""
        return self.session.folder / checkpoints.FOLDER / self.part

    def run(self) -> dict[str, float]:
        """Train `module`; return the seconds taken by all parts of a resumed run: `train_s`, and `cpu_s` of all processes.

        Raises:
            UserError: this machine does not have the devices, or the training cannot be shared between them.
        """
        trainer, session = self.session.trainer, self.session
        count = count_of(trainer)
        strategy = trainer.strategy if count == 1 or trainer.strategy == "fsdp" else "ddp"
        strategy = "auto" if count == 1 and strategy == "ddp" else strategy
        checkpoints.set_damaged_aside(self.checkpoints)
        if strategy == "auto":
            times = self.fit(strategy, session.loggers)
        else:
            _check_shared(self.recipe, count, strategy)
            alone = replace(self, session=replace(session, loggers=()))  # loggers stay in this process
            parts = run_in_processes(partial(alone.fit, strategy), count, session.seed, session.loggers)
            times = {"train_s": max(part["train_s"] for part in parts), "cpu_s": sum(part["cpu_s"] for part in parts)}
            checkpoints.load_end(self.module, self.checkpoints)
        if isinstance(self.module, MeasuredModule):
            self.module.load_best(self.checkpoints / "best.ckpt")
        return times

    def fit(self, strategy: str, loggers: Sequence[Logger]) -> dict[str, float]:
        """Run the loop in this process. One of several processes also writes `end.ckpt`."""
        module, rows, recipe, session, check_every = self.module, self.rows, self.recipe, self.session, self.check_every
        last = checkpoints.Last(self.checkpoints, session.trainer.checkpoint_every or checkpoints.EVERY, rows)
        used = [*callbacks.make(session.callbacks, validates=bool(self.validation), logs=bool(loggers)), last]
        if self.validation and isinstance(module, MeasuredModule):
            used += [checkpoints.best_of(self.checkpoints, recipe.monitor), callbacks.Judged(recipe.monitor)]
        if recipe.unfreeze == "gradual":
            used.append(callbacks.Unfreezing(module.model.named_parameters(), depths(module.model)))
        if strategy != "auto":
            admit(module.model)
            used.append(checkpoints.End(self.checkpoints))
        with _quiet_lightning(), _interruptible():
            lightning = _lightning(
                session.trainer, strategy=strategy_of(strategy, module), precision=recipe.precision, max_epochs=recipe.epochs,
                val_check_interval=min(check_every, math.ceil(len(rows) / recipe.batch_size)) if check_every else None,
                logger=list(loggers) or False, callbacks=used, default_root_dir=session.folder,
                plugins=[checkpoints.WholeFiles(), LightningEnvironment()],  # in a Slurm job, too: the processes are ours
                use_distributed_sampler=False,  # ours knows the ranks
                enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
                log_every_n_steps=min(LOGGED_EVERY, math.ceil(len(rows) / recipe.batch_size)),  # short epochs are logged, too
            )  # fmt: skip
            data = TrainingData(rows, self.validation, recipe.batch_size, session.seed)
            lightning.fit(module, datamodule=data, ckpt_path=last.resume, weights_only=True if last.resume else None)
            if "profiler" in lightning_extras(session.trainer):
                log.info("%s", lightning.profiler.summary())  # Lightning's own line is silenced
            return last.took()


def _check_shared(recipe: Recipe, count: int, strategy: str) -> None:
    """Raise UserError for a training that `count` devices cannot share."""
    if recipe.unfreeze == "gradual":
        raise UserError("trainer.unfreeze=gradual trains on one device: set trainer.devices=1, or trainer.unfreeze=none.")
    if recipe.batch_size % count:
        near = math.ceil(recipe.batch_size / count) * count
        raise UserError(
            f"trainer.batch_size={recipe.batch_size} cannot be divided evenly among trainer.devices={count}: each step"
            f" splits one batch over the devices.\nSet trainer.batch_size={near}."
        )
    if strategy == "fsdp" and not torch.cuda.is_available():
        raise UserError("trainer.strategy=fsdp shards a model over GPUs, and this machine has none: use trainer=ddp.")


def strategy_of(name: str, module: RecipeModule) -> str | Strategy:
    """Lightning's strategy for a name, `auto` on one device; `fsdp` wraps each layer of the model."""
    if name == "ddp":
        return DDPStrategy(find_unused_parameters=True)  # heads that no term of a stage uses, BERT's next-sentence head
    if name == "fsdp":
        layers = {type(layer) for layer in layer_stack(module.model)[1]}
        return FSDPStrategy(auto_wrap_policy=layers, state_dict_type="full")
    return "auto"


def _lightning(trainer: Trainer, **settings: Any) -> pl.Trainer:
    """Lightning's trainer on the configured device; further keys of `trainer` override `settings`.

    Raises:
        UserError: this machine does not have the device, or Lightning refuses a value.
    """
    own = {name: getattr(trainer, name) for name in ("accelerator", "accumulate_grad_batches", "gradient_clip_val")}
    devices = list(trainer.devices) if OmegaConf.is_config(trainer.devices) else trainer.devices
    own["devices"] = 1 if devices == "auto" and settings["strategy"] == "auto" else devices
    further = lightning_extras(trainer)
    try:
        return pl.Trainer(**{**settings, **own, **further})
    except (MisconfigurationException, ValueError, TypeError) as error:
        where = {"accelerator": trainer.accelerator, "devices": devices, "strategy": trainer.strategy} | further
        chosen = ", ".join(f"trainer.{name}={value}" for name, value in where.items())
        raise UserError(f"{chosen}: {str(error).splitlines()[0]}\nChoose what this machine has, or leave them auto.") from error


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Turn the SystemExit with which Lightning ends an interrupted fit back into the interrupt, for the caller to handle.

    Its code is 1 after Ctrl-C, and 0 after a SIGTERM whose interrupt Python dropped: Lightning's loops see that one, too.
    """
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as stopped:
        termination.check(stopped)
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
        warnings.filterwarnings("ignore", module="(pytorch_lightning|lightning_fabric).*")
        warnings.filterwarnings("ignore", module="torch.optim.lr_scheduler")
        yield
