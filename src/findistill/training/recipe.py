"""Learning rates by layer and step: FinBERT's fine-tuning recipe (Araci 2019, after ULMFiT, Howard & Ruder 2018).

Discriminative rates: a layer's rate is `layer_decay` times that of the one above it. Slanted triangles: the rate rises
over the warm-up and falls to 1/32. Gradual unfreezing (`callbacks.Unfreezing`): the head and the top layer are trained
first, the others join from the top.
"""

import inspect
import logging
import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any, Protocol, Self, TypeVar

import pytorch_lightning as pl
import torch
from omegaconf import OmegaConf
from pytorch_lightning.strategies import FSDPStrategy
from torch.nn import Parameter
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler
from transformers import PreTrainedModel

from findistill.config.compose import plain
from findistill.config.instantiate import build
from findistill.core import hardware
from findistill.errors import UserError
from findistill.models.config import Encoder
from findistill.models.encoders import depths
from findistill.training.config import QLoRA, Trainer

log = logging.getLogger(__name__)


class Repeatable(Protocol):
    """Rows that may be repeated within an epoch."""

    def __len__(self) -> int: ...

    def repeated(self, times: int) -> Self:
        """The same, `times` times."""
        ...


RepeatableT = TypeVar("RepeatableT", bound=Repeatable)

LOWEST = 1 / 32  # share of the rate at which a slanted schedule ends (ULMFiT's ratio)
COMMON = ("weight_decay", "warmup", "monitor", "schedule", "layer_decay", "unfreeze")  # taken from `trainer` as they are
LIGHTNING_PRECISION = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}


@dataclass(frozen=True)
class Recipe:
    """The hyperparameters of one training run, all set."""

    epochs: int
    batch_size: int
    learning_rate: float
    max_length: int
    weight_decay: float
    warmup: float  # share of the optimizer steps
    monitor: str
    precision: str  # Lightning's name: 32-true, bf16-mixed, 16-mixed
    schedule: str = "linear"  # see `schedule`, `parameter_groups` and `Unfreezing`
    layer_decay: float = 1.0
    unfreeze: str = "none"
    freeze_embeddings: bool = False
    min_steps: int | None = None  # minimum of optimizer steps in the whole training, see `over`
    head_learning_rate: float | None = None  # of a module's heads (`is_head`); None: as all else
    optimizer: Mapping[str, Any] = field(default_factory=lambda: {"_target_": "torch.optim.AdamW", "_partial_": True})
    scheduler: Mapping[str, Any] | None = None  # instead of `schedule`

    @classmethod
    def of(cls, section: Encoder | QLoRA, trainer: Trainer, **settings: Any) -> "Recipe":
        """What `trainer` leaves unset is taken from `section`; `settings` take precedence over both."""
        values: dict[str, Any] = {name: getattr(trainer, name) for name in COMMON}
        for name in ("epochs", "batch_size", "learning_rate", "max_length"):
            value = getattr(trainer, "max_epochs" if name == "epochs" else name)
            values[name] = getattr(section, name, None) if value is None else value
        values["precision"] = LIGHTNING_PRECISION[hardware.precision(trainer.precision, trainer.accelerator)]
        values["freeze_embeddings"] = getattr(section, "freeze_embeddings", False)
        values["min_steps"] = getattr(section, "min_steps", None) if trainer.max_epochs is None else None
        values |= {"optimizer": plain(trainer.optimizer), "scheduler": plain(trainer.scheduler) if trainer.scheduler else None}
        return cls(**values | settings)

    def over(self, rows: RepeatableT, accumulate: int = 1) -> tuple["Recipe", RepeatableT]:
        """This recipe and the rows of an epoch, with enough epochs and repeats for at least `min_steps` optimizer steps.

        A few rows are repeated within an epoch, so that there is no checkpoint every handful of steps; of the two nearest
        numbers of passes, the one with fewer steps in all is used.
        """

        def shape(passes: int) -> tuple[int, int, int]:
            steps = math.ceil(math.ceil(passes * len(rows) / self.batch_size) / accumulate)
            epochs = max(self.epochs, math.ceil(minimum / steps))
            return epochs * steps, passes, epochs

        minimum = self.min_steps or 0
        share = minimum * self.batch_size * accumulate / (self.epochs * len(rows))
        _, passes, epochs = min(shape(max(1, math.floor(share))), shape(max(1, math.ceil(share))))
        if (passes, epochs) != (1, self.epochs):
            log.info("%d texts: %d epochs of %d passes over them, for at least %d steps", len(rows), epochs, passes, minimum)
        return replace(self, epochs=epochs), rows.repeated(passes)

    @property
    def fused(self) -> bool:
        """Whether to use one kernel for the whole optimizer step, if there is one.

        It cannot be combined with fp16 gradient scaling and clipping.
        """
        return self.precision != "16-mixed"


class RecipeModule(pl.LightningModule):
    """The base of every training: a model, and the optimiser of its recipe.

    `load_from_checkpoint(path, model=...)` recreates a module from a checkpoint of `folder/checkpoints`, which has the recipe
    and the module's own hyperparameters; the model (and an objective or terms) is passed.
    """

    def __init__(self, model: PreTrainedModel, recipe: Recipe | Mapping[str, Any]) -> None:
        super().__init__()
        self.model, self.recipe = model, recipe if isinstance(recipe, Recipe) else Recipe(**recipe)
        self.save_hyperparameters({"recipe": asdict(self.recipe)}, logger=False)  # plain values: checkpoints hold no code
        if self.recipe.freeze_embeddings:
            model.get_input_embeddings().requires_grad_(False)

    def configure_model(self) -> None:
        """Record what the optimizer's groups depend on while parameters are whole; a sharded model has flat pieces of them."""
        self._matrices = {_plain_name(name) for name, value in self.named_parameters() if value.ndim > 1}
        self._depths = depths(self.model) if self.recipe.layer_decay < 1 else {}
        self._heads = {name for name in map(_plain_name, dict(self.named_parameters())) if self.is_head(name)}

    def is_head(self, name: str) -> bool:
        """Whether a parameter of the model is trained at `recipe.head_learning_rate`."""
        return False

    def configure_optimizers(self) -> dict[str, Any]:
        """The recipe's optimizer over all trainable parameters, and its schedule over the actual number of optimizer steps."""
        recipe = self.recipe
        learning = [(_plain_name(name), value) for name, value in self.named_parameters() if value.requires_grad]
        groups = parameter_groups(learning, self._depths, self._matrices, recipe, self._heads)
        optimizer = call_node(recipe.optimizer, "optimizer", groups, fused=recipe.fused)
        steps = int(self.trainer.estimated_stepping_batches)  # optimizer steps, after accumulation and over devices
        if recipe.scheduler:
            counts = dict.fromkeys(("num_training_steps", "total_steps", "T_max"), steps)
            rate = call_node(recipe.scheduler, "scheduler", optimizer, **counts, num_warmup_steps=round(recipe.warmup * steps))
        else:
            rate = schedule(optimizer, recipe.schedule, recipe.warmup, steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": rate, "interval": "step"}}

    def configure_gradient_clipping(
        self, optimizer: Optimizer, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        """Clip the norm over all gradients."""
        if not gradient_clip_val:
            return
        if isinstance(self.trainer.strategy, FSDPStrategy):
            norm = gradient_norm(self.trainer, self)
            torch.nn.utils.clip_grads_with_norm_(self.parameters(), gradient_clip_val, norm)
        elif self.recipe.fused:  # Lightning refuses a fused optimizer in bf16 too, where gradients are not scaled
            torch.nn.utils.clip_grad_norm_(self.parameters(), gradient_clip_val)
        else:
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)


def _plain_name(name: str) -> str:
    """A parameter's name in the model without that of any wrapper; names outside the model are unchanged."""
    return name.replace("_fsdp_wrapped_module.", "").removeprefix("model.")


def gradient_norm(trainer: pl.Trainer, module: pl.LightningModule) -> torch.Tensor:
    """The norm over all gradients, combined if the processes have pieces of them."""
    gradients = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients).to(module.device)
    if not isinstance(trainer.strategy, FSDPStrategy):
        return norm
    return trainer.strategy.reduce(norm.square(), reduce_op="sum").sqrt()


def call_node(node: Mapping[str, Any], name: str, subject: Any, **optional: Any) -> Any:
    """Call the node's function with `subject` and those `optional` arguments that it accepts and the node does not set.

    Raises:
        UserError: it does not accept what the node sets, or needs more.
    """
    make = build(OmegaConf.create({"_partial_": True, **node}), f"trainer.{name}")
    try:
        accepted = inspect.signature(make).parameters
        return make(subject, **{key: value for key, value in optional.items() if key in accepted and key not in node})
    except (TypeError, ValueError) as error:
        raise UserError(f"trainer.{name}={node['_target_']}: {str(error).splitlines()[0]}") from error


def parameter_groups(
    parameters: Iterable[tuple[str, Parameter]], depths: dict[str, int], matrices: Collection[str], recipe: Recipe,
    heads: Collection[str] = (),
) -> list[dict[str, Any]]:  # fmt: skip
    """The optimizer's groups: rate * layer_decay^depth, and decay only on `matrices`, not on biases and LayerNorm weights.

    The head's come first. `depths` as of `encoders.depths`; a parameter that it does not name counts as part of the head.
    `heads` have the rate `recipe.head_learning_rate`, if it is set.
    """
    groups: dict[tuple[float, float], list[Parameter]] = defaultdict(list)
    for name, parameter in parameters:
        decay = recipe.weight_decay if name in matrices else 0.0
        rate = recipe.learning_rate * recipe.layer_decay ** depths.get(name, 0)
        groups[recipe.head_learning_rate or rate if name in heads else rate, decay].append(parameter)
    ordered = sorted(groups.items(), key=lambda group: (-group[0][0], -group[0][1]))
    return [{"params": params, "lr": lr, "weight_decay": decay} for (lr, decay), params in ordered]


def schedule(optimizer: Optimizer, kind: str, warmup: float, steps: int) -> LRScheduler:
    """The rate over `steps` optimizer steps: it rises over the share `warmup`, then follows `kind`.

    `linear` falls to 0 (as in FinBERT's code), `slanted` to 1/32, `constant` stays.
    """
    lowest = LOWEST if kind == "slanted" else 0.0
    share = partial(rate_at, rising=round(warmup * steps), steps=steps, lowest=lowest, falls=kind != "constant")
    return LambdaLR(optimizer, share)


def rate_at(step: int, *, rising: int, steps: int, lowest: float, falls: bool) -> float:
    """The share of the rate at `step`: from `lowest` up to 1, and back (ULMFiT's triangle) or staying there.

    Like transformers' `get_linear_schedule_with_warmup` etc., whose module imports peft and bitsandbytes, in two seconds.
    """
    share = step / max(1, rising) if step < rising else (steps - step) / max(1, steps - rising) if falls else 1.0
    return lowest + (1 - lowest) * max(0.0, share)
