"""How fast each layer learns, and when: FinBERT's fine-tuning recipe (Araci 2019, after ULMFiT, Howard & Ruder 2018).

Discriminative rates: a layer learns at `layer_decay` times the rate of the one above it. Slanted triangles: the rate rises
over the warm-up and falls to 1/32. Gradual unfreezing: the head and the top layer learn first, the others join from the top.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
import torch
from torch.nn import Parameter
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from findistill.learning.encoders import depths

if TYPE_CHECKING:
    from torch.optim import Optimizer
    from transformers import PreTrainedModel

LOWEST = 1 / 32  # of the rate, where a slanted schedule ends (ULMFiT's ratio)
FREE_BY = 0.75  # share of the steps after which nothing is frozen: four of FinBERT's releases an epoch, 12 layers, 4 epochs


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

    @property
    def fused(self) -> bool:
        """One kernel for the whole AdamW step; it does not go with the gradient scaling of fp16 and clipping."""
        return self.precision != "16-mixed"


class RecipeModule(pl.LightningModule):
    """What every training has in common: a model, and an optimiser as its recipe says."""

    def __init__(self, model: "PreTrainedModel", recipe: Recipe) -> None:
        super().__init__()
        self.model, self.recipe = model, recipe
        if recipe.freeze_embeddings:
            model.get_input_embeddings().requires_grad_(False)

    def configure_optimizers(self) -> dict[str, Any]:
        """AdamW over all that learns, and its schedule over the real number of optimizer steps."""
        recipe = self.recipe
        groups = parameter_groups(
            [(name.removeprefix("model."), value) for name, value in self.named_parameters() if value.requires_grad],
            depths(self.model) if recipe.layer_decay < 1 else {},
            rate=recipe.learning_rate, layer_decay=recipe.layer_decay, weight_decay=recipe.weight_decay,
        )  # fmt: skip
        optimizer = torch.optim.AdamW(groups, fused=recipe.fused)
        steps = int(self.trainer.estimated_stepping_batches)  # optimizer steps: accumulation and devices counted in
        rate = schedule(optimizer, recipe.schedule, recipe.warmup, steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": rate, "interval": "step"}}

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the norm over all gradients."""
        if not gradient_clip_val:
            return
        if self.recipe.fused:  # Lightning refuses a fused optimizer in bf16 too, where gradients are not scaled
            torch.nn.utils.clip_grad_norm_(self.parameters(), gradient_clip_val)
        else:
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)


def parameter_groups(
    parameters: Iterable[tuple[str, Parameter]], depths: dict[str, int], *, rate: float, layer_decay: float, weight_decay: float
) -> list[dict[str, Any]]:
    """AdamW's groups: rate * layer_decay^depth, and no decay on biases and LayerNorm weights; the head's come first.

    `depths` as of `encoders.depths`; a parameter that it does not name counts as part of the head.
    """
    groups: dict[tuple[float, float], list[Parameter]] = defaultdict(list)
    for name, parameter in parameters:
        decay = weight_decay if parameter.ndim > 1 else 0.0
        groups[rate * layer_decay ** depths.get(name, 0), decay].append(parameter)
    ordered = sorted(groups.items(), key=lambda group: (-group[0][0], -group[0][1]))
    return [{"params": params, "lr": lr, "weight_decay": decay} for (lr, decay), params in ordered]


def schedule(optimizer: "Optimizer", kind: str, warmup: float, steps: int) -> LRScheduler:
    """The rate over `steps` optimizer steps: it rises over the share `warmup`, then does what `kind` says.

    `linear` falls to 0 (what FinBERT's code does too), `slanted` to 1/32, `constant` stays.
    """
    from transformers import get_constant_schedule_with_warmup, get_linear_schedule_with_warmup

    rising = round(warmup * steps)
    if kind == "linear":
        return get_linear_schedule_with_warmup(optimizer, rising, steps)
    if kind == "constant":
        return get_constant_schedule_with_warmup(optimizer, rising)
    return LambdaLR(optimizer, partial(slant, rising=rising, steps=steps))


def slant(step: int, *, rising: int, steps: int) -> float:
    """ULMFiT's triangle: the share of the rate at `step`, from 1/32 up to 1 and back."""
    share = step / max(1, rising) if step < rising else (steps - step) / max(1, steps - rising)
    return LOWEST + (1 - LOWEST) * max(0.0, share)


def released(step: int, steps: int, layers: int) -> int:
    """How many layers from the top learn at `step`; `layers` + 1 means the embeddings too.

    The top one from the start, one more at even distances, the embeddings after three quarters of the steps.
    """
    return min(1 + int(step * layers / max(1, FREE_BY * steps)), layers + 1)


class Unfreezing(pl.Callback):
    """Gradual unfreezing, by parameter name and depth, of what learns when this is made. Frozen layers cost no gradient and
    get no weight decay."""

    def __init__(self, parameters: Iterable[tuple[str, Parameter]], depths: dict[str, int]) -> None:
        self.depth = {parameter: depths.get(name, 0) for name, parameter in parameters if parameter.requires_grad}
        self.layers = max(self.depth.values(), default=1) - 1

    def on_train_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, batch: Any, batch_idx: int) -> None:
        free = released(trainer.global_step, int(trainer.estimated_stepping_batches), self.layers)
        for parameter, depth in self.depth.items():
            parameter.requires_grad_(depth <= free)

    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        for parameter in self.depth:
            parameter.requires_grad_(True)
