"""Checks across the settings of a trainer."""

from collections.abc import Iterator
from dataclasses import fields
from difflib import get_close_matches
from typing import Any

from omegaconf import OmegaConf

from findistill.config.validate import rule
from findistill.training.config import OTHERWISE, Trainer, lightning_arguments, lightning_extras


@rule()
def precision(config: Any) -> Iterator[str]:
    if config.trainer.precision == "16" and config.trainer.accelerator == "cpu":
        yield "trainer.precision=16 needs a GPU; on a CPU use 32, bf16 or auto"


@rule()
def further_keys(config: Any) -> Iterator[str]:
    """A further key of `trainer` must be an argument of `lightning.Trainer`."""
    extras = lightning_extras(config.trainer)
    arguments = [name for name in lightning_arguments() if name not in OTHERWISE] if extras else []
    for name in extras:
        if name in OTHERWISE:
            yield f"trainer.{name} is not set here: {OTHERWISE[name]}"
        elif name not in arguments:
            near = get_close_matches(name, [*arguments, *(f.name for f in fields(Trainer))], 1, 0)
            yield f"trainer.{name}: neither findistill nor lightning.Trainer has such a setting; did you mean trainer.{near[0]}?"


@rule()
def devices(config: Any) -> Iterator[str]:
    trainer = config.trainer
    value = trainer.devices
    is_number = isinstance(value, int) and not isinstance(value, bool) and (value > 0 or value == -1)
    is_list = OmegaConf.is_list(value) and len(value) > 0 and all(isinstance(one, int) and one >= 0 for one in value)
    if not (value == "auto" or is_number or is_list):
        yield f"trainer.devices={value}: give a number of devices, -1 for all GPUs, a list of GPUs such as [0,1], or auto"
    if trainer.strategy == "fsdp" and trainer.accelerator == "cpu":
        yield "trainer.strategy=fsdp shards a model over GPUs: on a CPU use trainer=ddp trainer.devices=2, or trainer=cpu"
