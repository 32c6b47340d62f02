"""From configuration to objects: Hydra's `instantiate` behind an allow-list.

A configuration file is data that people share, and `_target_` names code to run; so only findistill's own modules and
the libraries it is built on may be named.
"""

from collections.abc import Callable, Iterator
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from findistill.errors import UserError

ALLOWED = ("findistill.", "torch.", "transformers.", "pytorch_lightning.", "peft.")


def _check(path: str, key: str) -> None:
    if not path.startswith(ALLOWED):
        raise UserError(
            f"{key}={path} is not allowed: a _target_ may only name code of " + ", ".join(a.rstrip(".") for a in ALLOWED)
        )


def _targets(node: Any, key: str) -> Iterator[tuple[str, str]]:
    if isinstance(node, DictConfig):
        for name, value in node.items():
            at = f"{key}.{name!s}" if key else str(name)
            if name == "_target_":
                yield at, str(value)
            yield from _targets(value, at)
    elif isinstance(node, ListConfig):
        for index, value in enumerate(node):
            yield from _targets(value, f"{key}.{index}")


def resolve(path: str, key: str = "_target_") -> Callable[..., Any]:
    """The function or class that `path` names.

    Raises:
        UserError: `path` lies outside the allow-list, or nothing of that name exists.
    """
    from hydra.utils import get_object

    _check(path, key)
    try:
        return get_object(path)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"{key}={path} cannot be loaded: {error}") from error


def build(node: DictConfig, **extra: Any) -> Any:
    """Make the object that a configuration node describes, every nested `_target_` checked against the allow-list first.

    Raises:
        UserError: a `_target_` lies outside the allow-list.
    """
    from hydra.utils import instantiate

    for key, path in _targets(node, ""):
        _check(path, key)
    # A structured node would be passed on as its dataclass; a plain one gives keyword arguments.
    plain = OmegaConf.create(OmegaConf.to_container(node, resolve=True))
    return instantiate(plain, **extra)
