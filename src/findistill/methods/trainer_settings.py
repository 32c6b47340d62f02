"""Which settings of `trainer` a training reads that happens on the way to a job's own.

Epochs, batch, rate and length are then the model's own: those of `trainer` are about the job's last training, as is the
`callbacks` section.
"""

from collections.abc import Mapping
from typing import Any

from findistill.training.config import lightning_extras

LOOP = tuple(f"trainer.{name}" for name in (
    "accelerator", "devices", "strategy", "precision", "weight_decay", "gradient_clip_val", "accumulate_grad_batches",
    "optimizer", "max_memory", "checkpoint_every",
))  # fmt: skip
SCHEDULE = tuple(f"trainer.{name}" for name in ("warmup", "schedule", "scheduler", "layer_decay", "unfreeze", "monitor"))

# Callbacks that log and change nothing of what is learnt.
OBSERVERS = (
    "findistill.training.callbacks.Progress",
    "findistill.training.callbacks.GradientNorm",
    "pytorch_lightning.callbacks.LearningRateMonitor",
)


def active_callbacks(callbacks: Mapping[str, Any]) -> dict[str, Any]:
    """The `callbacks` section without those that only observe."""
    return {name: node for name, node in callbacks.items() if not (node and node.get("_target_") in OBSERVERS)}


def loop(config: Any) -> tuple[str, ...]:
    """What the loop itself reads: device, precision and optimiser, and what `+trainer.NAME` hands on to Lightning."""
    return (*LOOP, *(f"trainer.{name}" for name in lightning_extras(config.trainer)))
