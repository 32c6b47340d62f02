"""Slots: where a configuration may name code, and which code. A shared file must not be able to run arbitrary code.

`_target_` is allowed in the slots below and nowhere else. `check_names` only looks at names and is fast;
`findistill.config.instantiate` checks the code behind a name before it is used.
"""

import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

from omegaconf import DictConfig, Node, OmegaConf

from findistill.config.fields import nodes, unresolved, walk
from findistill.config.hydra_node import check_hydra
from findistill.config.packages import allowed_packages
from findistill.config.shared import once
from findistill.errors import UserError

RESERVED = ("_target_", "_args_", "_partial_", "_recursive_", "_convert_")  # keys with a meaning to Hydra's instantiate
UNSET = (None, "???")


@dataclass(frozen=True)
class Slot:
    """A place in the configuration for code.

    Attributes:
        name: the slot's name, in `target` and in error messages.
        places: keys of the sections that may have a `_target_`; `*` stands for one part of a key.
        homes: modules below which the code may be defined, in addition to allowed packages.
        base: dotted name of the class that the target must be a subclass of; empty: classes are not accepted.
        returns: dotted name of the class that a function, as an alternative, must be annotated to return.
        partial: whether `_partial_: true` is allowed.
    """

    name: str
    places: tuple[str, ...]
    homes: tuple[str, ...]
    base: str = ""
    returns: str = ""
    partial: bool = False


CALLBACK, SCHEDULER = "pytorch_lightning.Callback", "torch.optim.lr_scheduler.LRScheduler"
LIGHTNING = ("pytorch_lightning", "lightning")
DATA_PLACES = ("data", "shots.source", "evaluate.also.*", "*.pretrain.source", "distill.unlabelled")

SLOTS = (
    Slot("data", DATA_PLACES, ("findistill.data",), returns="findistill.data.rows.Source"),
    Slot("llm", ("llm",), ("findistill.llm",), "findistill.llm.engine.Engine"),
    Slot("loss term", ("distill.terms.*",), ("findistill.training",), "findistill.training.losses.base.DistillationTerm"),
    Slot("encoder", ("student", "teacher"), ("findistill.models",), returns="findistill.models.architecture.NewEncoder"),
    Slot("callback", ("callbacks.*",), ("findistill.training", *LIGHTNING), CALLBACK, CALLBACK),
    Slot("logger", ("logger", "logger.*"), ("findistill.core", *LIGHTNING), "pytorch_lightning.loggers.Logger"),
    Slot("optimizer", ("trainer.optimizer",), ("findistill.training", "torch.optim", "bitsandbytes.optim"),
         "torch.optim.Optimizer", partial=True),
    Slot("scheduler", ("trainer.scheduler",), ("findistill.training", "torch.optim.lr_scheduler", "transformers"),
         SCHEDULER, SCHEDULER, partial=True),
    Slot("stage", ("stage",), ("findistill.methods",), "findistill.methods.stage.Stage"),
)  # fmt: skip

# Annotators of an ensemble are configurations with their own sections.
ENSEMBLE = "annotate.ensemble.*."

# Slot -> dotted names of registered functions. Library functions are listed because they lack a return annotation.
_functions: dict[str, set[str]] = {
    "scheduler": {f"transformers.optimization.get_{name}" for name in (
        "constant_schedule", "constant_schedule_with_warmup", "linear_schedule_with_warmup", "cosine_schedule_with_warmup",
        "cosine_with_hard_restarts_schedule_with_warmup", "polynomial_decay_schedule_with_warmup", "inverse_sqrt_schedule",
    )},
}  # fmt: skip

F = TypeVar("F", bound=Callable[..., Any])


def target(slot: str) -> Callable[[F], F]:
    """Register a function, or a class without the slot's base, as a valid `_target_` of that slot.

    Raises:
        ValueError: there is no such slot.
    """
    if slot not in {each.name for each in SLOTS}:
        raise ValueError(f"{slot!r} is not a slot; available: {', '.join(each.name for each in SLOTS)}")

    def register(function: F) -> F:
        _functions.setdefault(slot, set()).add(f"{function.__module__}.{function.__qualname__}")
        return function

    return register


def is_registered(slot: Slot, path: str) -> bool:
    return path in _functions.get(slot.name, ())


@cache
def slot_of(key: str) -> Slot | None:
    """The slot of the section with this key, if any."""
    key = re.sub(_pattern(ENSEMBLE), "", key)
    return next((slot for slot in SLOTS for place in slot.places if re.fullmatch(_pattern(place), key)), None)


def _pattern(place: str) -> str:
    return re.escape(place).replace(r"\*", r"[^.]+")


def check_names(config: Any) -> None:
    """Refuse code in places, or with names, that are not allowed. Imports nothing; checks a `hydra` node if there is one.

    Raises:
        UserError: something is refused; the message names the first.
    """
    top = nodes(config) if isinstance(config, DictConfig) else config
    _check_section("", {name: _plain(top[name]) for name in RESERVED if name in top})
    for name, node in top.items():
        if name != "hydra":
            _check_names(node, name)
    _check_hydra(top.get("hydra"))


@once
def _check_hydra(node: Any) -> None:
    if isinstance(plain := _plain(node), dict):
        check_hydra(plain)


@once
def _check_names(node: Any, key: str) -> None:
    plain = _plain(node)
    for at, value in [(key, plain), *walk(plain, key)]:
        if isinstance(value, dict):
            _check_section(at, value)
        elif isinstance(value, str) and "${" in value:
            _check_resolvers(at, value)


def _plain(node: Any) -> Any:
    return unresolved(node) if isinstance(node, Node) else node


def sections_with_target(config: Any) -> Iterator[tuple[str, str]]:
    """The key and the `_target_` of every section that has one, outside `hydra`."""
    for key, node in walk(unresolved(config) if OmegaConf.is_config(config) else config):
        if isinstance(node, dict) and key.partition(".")[0] != "hydra" and node.get("_target_") not in UNSET:
            yield key, node["_target_"]


def _check_section(key: str, node: Mapping[Any, Any]) -> None:
    slot = slot_of(key)
    for name in RESERVED:
        if node.get(name) in UNSET:
            continue
        at = f"{key}.{name}" if key else name
        if slot is None or name in ("_args_", "_recursive_", "_convert_") or (name == "_partial_" and not slot.partial):
            raise UserError(f"{at}={node[name]} is refused: {name} is not allowed there, since it would run code")
        if name == "_target_":
            check_name(at, node[name], slot)
        elif not isinstance(node[name], bool):
            raise UserError(f"{at}={node[name]}: must be true or false")


def check_name(key: str, path: Any, slot: Slot) -> None:
    """Refuse a dotted name that is malformed, or outside the slot's homes and the allowed packages.

    Raises:
        UserError: it is refused.
    """
    if not isinstance(path, str) or not re.fullmatch(r"[A-Za-z]\w*(\.[A-Za-z]\w*)+", path):
        raise UserError(
            f"{key}={path} is refused: a _target_ must be the dotted name of a class or function, without leading underscores"
        )
    packages, package = allowed_packages(), path.partition(".")[0]
    if package in packages or any(path.startswith(f"{home}.") for home in slot.homes):
        return
    message = f"{key}={path} is not allowed: the slot {slot.name} accepts code from {', '.join((*slot.homes, *sorted(packages)))}"
    if package not in sys.stdlib_module_names | {home.partition(".")[0] for each in SLOTS for home in each.homes}:
        message += f"\nIf you trust the package, allow it in the environment: FINDISTILL_ALLOW={package}"
    raise UserError(message)


# Resolvers that only read the configuration. The environment holds secrets, and the configuration is written to files.
RESOLVERS = ("oc.select", "oc.dict.keys", "oc.dict.values", "now", "hydra")
FROM_ENVIRONMENT = ("runs_dir", "data.path", "llm.path")


def _check_resolvers(key: str, text: str) -> None:
    if re.search(r"\$\{\s*[\w.]*\$\{", text):
        raise UserError(f"{key}={text} is refused: an interpolation cannot be part of a name, which might be that of a resolver")
    for resolver in re.findall(r"\$\{\s*([\w.]+)\s*:", text):
        if resolver in RESOLVERS or (resolver == "oc.env" and key in FROM_ENVIRONMENT):
            continue
        where = f"; it is only allowed in {', '.join(FROM_ENVIRONMENT)}" if resolver == "oc.env" else ""
        raise UserError(f"{key}={text} is refused: ${{{resolver}:...}} is not allowed there{where}")
