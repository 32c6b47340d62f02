"""How fast each layer learns, and when: FinBERT's fine-tuning recipe (Araci 2019, after ULMFiT, Howard & Ruder 2018).

Discriminative rates: a layer learns at `layer_decay` times the rate of the one above it. Slanted triangles: the rate rises
over the warm-up and falls to 1/32. Gradual unfreezing (`callbacks.Unfreezing`): the head and the top layer learn first, the
others join from the top.
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
    """What an epoch may go through several times."""

    def __len__(self) -> int: ...

    def repeated(self, times: int) -> Self:
        """The same so many times."""
        ...


RepeatableT = TypeVar("RepeatableT", bound=Repeatable)

LOWEST = 1 / 32  # of the rate, where a slanted schedule ends (ULMFiT's ratio)
COMMON = ("weight_decay", "warmup", "monitor", "schedule", "layer_decay", "unfreeze")  # taken from `trainer` as they are
LIGHTNING_PRECISION = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}


@dataclass(frozen=True)
class Recipe:
    """The numbers of one training run, all set."""

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
    min_steps: int | None = None  # optimizer steps of the whole training at least, see `over`
    head_learning_rate: float | None = None  # of what a module calls its heads; None: as all else
    optimizer: Mapping[str, Any] = field(default_factory=lambda: {"_target_": "torch.optim.AdamW", "_partial_": True})
    scheduler: Mapping[str, Any] | None = None  # in the place of `schedule`

    @classmethod
    def of(cls, section: Encoder | QLoRA, trainer: Trainer, **settings: Any) -> "Recipe":
        """What `trainer` leaves unset is as `section` says; `settings` go before both."""
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
        """This recipe with as many epochs, and the rows of one of them, as give `min_steps` optimizer steps at least.

        Few rows are gone through several times an epoch, so that there is no checkpoint every handful of steps; of the two
        numbers of passes that come near, the one with fewer steps in all is taken.
        """

        def shape(passes: int) -> tuple[int, int, int]:
            steps = math.ceil(math.ceil(passes * len(rows) / self.batch_size) / accumulate)
            epochs = max(self.epochs, math.ceil(minimum / steps))
            return epochs * steps, passes, epochs

        minimum = self.min_steps or 0
        share = minimum * self.batch_size * accumulate / (self.epochs * len(rows))
        _, passes, epochs = min(shape(max(1, math.floor(share))), shape(max(1, math.ceil(share))))
        if (passes, epochs) != (1, self.epochs):
            log.info("%d texts: %d epochs of %d passes over them, for %d steps at least", len(rows), epochs, passes, minimum)
        return replace(self, epochs=epochs), rows.repeated(passes)

    @property
    def fused(self) -> bool:
        """One kernel for the whole optimizer step, where there is one.

        It does not go with the gradient scaling of fp16 and clipping.
        """
        return self.precision != "16-mixed"


class RecipeModule(pl.LightningModule):
    """What every training has in common: a model, and an optimiser as its recipe says.

    `load_from_checkpoint(path, model=...)` makes a module again from a checkpoint of `folder/checkpoints`: the recipe and
    the module's own numbers are in it, the model (and an objective or terms) is given.
    """

    def __init__(self, model: PreTrainedModel, recipe: Recipe | Mapping[str, Any]) -> None:
        super().__init__()
        self.model, self.recipe = model, recipe if isinstance(recipe, Recipe) else Recipe(**recipe)
        self.save_hyperparameters({"recipe": asdict(self.recipe)}, logger=False)  # plain values: checkpoints hold no code
        if self.recipe.freeze_embeddings:
            model.get_input_embeddings().requires_grad_(False)

    def configure_model(self) -> None:
        """Note what the optimizer's groups depend on while parameters are whole; a sharded model has flat pieces of them."""
        self._matrices = {_plain_name(name) for name, value in self.named_parameters() if value.ndim > 1}
        self._depths = depths(self.model) if self.recipe.layer_decay < 1 else {}
        self._heads = {name for name in map(_plain_name, dict(self.named_parameters())) if self.is_head(name)}

    def is_head(self, name: str) -> bool:
        """Whether a parameter of the model learns at `recipe.head_learning_rate`."""
        return False

    def configure_optimizers(self) -> dict[str, Any]:
        """The recipe's optimizer over all that learns, and its schedule over the real number of optimizer steps."""
        recipe = self.recipe
        learning = [(_plain_name(name), value) for name, value in self.named_parameters() if value.requires_grad]
        groups = parameter_groups(learning, self._depths, self._matrices, recipe, self._heads)
        optimizer = call_node(recipe.optimizer, "optimizer", groups, fused=recipe.fused)
        steps = int(self.trainer.estimated_stepping_batches)  # optimizer steps: accumulation and devices counted in
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
    """A parameter's name in the model, whatever it is wrapped in; that of another part of the module stays."""
    return name.replace("_fsdp_wrapped_module.", "").removeprefix("model.")


def gradient_norm(trainer: pl.Trainer, module: pl.LightningModule) -> torch.Tensor:
    """The norm over all gradients, put together where the processes have pieces of them."""
    gradients = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients).to(module.device)
    if not isinstance(trainer.strategy, FSDPStrategy):
        return norm
    return trainer.strategy.reduce(norm.square(), reduce_op="sum").sqrt()


def call_node(node: Mapping[str, Any], name: str, subject: Any, **optional: Any) -> Any:
    """What the node's function gives for `subject`, with those `optional` arguments that it takes and the node does not set.

    Raises:
        UserError: it does not take what the node sets, or needs more.
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
    """The optimizer's groups: rate * layer_decay^depth, and decay on `matrices` alone: not on biases and LayerNorm weights.

    The head's come first. `depths` as of `encoders.depths`; a parameter that it does not name counts as part of the head.
    `heads` learn at `recipe.head_learning_rate` where there is one.
    """
    groups: dict[tuple[float, float], list[Parameter]] = defaultdict(list)
    for name, parameter in parameters:
        decay = recipe.weight_decay if name in matrices else 0.0
        rate = recipe.learning_rate * recipe.layer_decay ** depths.get(name, 0)
        groups[recipe.head_learning_rate or rate if name in heads else rate, decay].append(parameter)
    ordered = sorted(groups.items(), key=lambda group: (-group[0][0], -group[0][1]))
    return [{"params": params, "lr": lr, "weight_decay": decay} for (lr, decay), params in ordered]


def schedule(optimizer: Optimizer, kind: str, warmup: float, steps: int) -> LRScheduler:
    """The rate over `steps` optimizer steps: it rises over the share `warmup`, then does what `kind` says.

    `linear` falls to 0 (what FinBERT's code does too), `slanted` to 1/32, `constant` stays.
    """
    lowest = LOWEST if kind == "slanted" else 0.0
    share = partial(rate_at, rising=round(warmup * steps), steps=steps, lowest=lowest, falls=kind != "constant")
    return LambdaLR(optimizer, share)


def rate_at(step: int, *, rising: int, steps: int, lowest: float, falls: bool) -> float:
    """The share of the rate at `step`: from `lowest` up to 1, and back (ULMFiT's triangle) or staying there.

    As transformers' `get_linear_schedule_with_warmup` and its sisters, whose module loads peft and bitsandbytes: two seconds.
    """
    share = step / max(1, rising) if step < rising else (steps - step) / max(1, steps - rising) if falls else 1.0
    return lowest + (1 - lowest) * max(0.0, share)
