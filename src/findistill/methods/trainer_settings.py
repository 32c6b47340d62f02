"""Which settings of `trainer` are read by a training that a job needs before its own.

Epochs, batch size, learning rate and length then come from the model's section: those of `trainer`, like the `callbacks`
section, apply only to the job's last training.
"""

from collections.abc import Mapping
from typing import Any

from findistill.training.config import lightning_extras

LOOP = tuple(f"trainer.{name}" for name in (
    "accelerator", "devices", "strategy", "precision", "weight_decay", "gradient_clip_val", "accumulate_grad_batches",
    "optimizer", "max_memory", "checkpoint_every",
))  # fmt: skip
SCHEDULE = tuple(f"trainer.{name}" for name in ("warmup", "schedule", "scheduler", "layer_decay", "unfreeze", "monitor"))

# Callbacks that only log, and do not affect the weights.
OBSERVERS = (
    "findistill.training.callbacks.Progress",
    "findistill.training.callbacks.GradientNorm",
    "pytorch_lightning.callbacks.LearningRateMonitor",
)


def active_callbacks(callbacks: Mapping[str, Any]) -> dict[str, Any]:
    """The `callbacks` section without those that only observe."""
    return {name: node for name, node in callbacks.items() if not (node and node.get("_target_") in OBSERVERS)}


def loop(config: Any) -> tuple[str, ...]:
    """The settings of the training loop itself: device, precision, optimiser, and what `+trainer.NAME` passes on to Lightning."""
    return (*LOOP, *(f"trainer.{name}" for name in lightning_extras(config.trainer)))
