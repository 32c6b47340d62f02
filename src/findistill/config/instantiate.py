"""Creating objects from configuration; each `_target_` is checked against its slot (`findistill.config.targets`)."""

import inspect
from collections.abc import Callable, Collection
from functools import partial, reduce
from importlib import import_module
from typing import Any

from omegaconf import DictConfig

from findistill.config.compose import plain
from findistill.config.overrides import within
from findistill.config.targets import Slot, check_name, check_names, is_registered, sections_with_target, slot_of
from findistill.errors import UserError


def check_targets(config: Any, read: Collection[str] | None = None) -> None:
    """Check all code that a job's configuration names: first the names, then the code itself, by importing it.

    Args:
        read: sections and settings that are used; only code named in them is imported. None: all.

    Raises:
        UserError: something is refused or does not exist.
    """
    check_names(config)
    for key, path in sections_with_target(config):
        if read is None or within(key, read):
            resolve(path, f"{key}._target_")


def resolve(path: str, key: str) -> Callable[..., Any]:
    """The class or function with the dotted name `path`; `key` is the key of that setting, such as `llm._target_`.

    Raises:
        UserError: the slot does not accept it, or it does not exist.
    """
    slot = slot_of(key.removesuffix("._target_"))
    if slot is None:
        raise UserError(f"{key}={path} is refused: _target_ is not allowed there")
    check_name(key, path, slot)
    module_name, _, name = path.rpartition(".")
    try:
        code = _load(path)
    except (ImportError, AttributeError, SyntaxError, ValueError) as error:
        raise UserError(f"{key}={path} cannot be loaded: {error}") from error
    home = str(getattr(code, "__module__", ""))
    # By its own name, defined in or re-exported within the same package; never imported from another package.
    if getattr(code, "__qualname__", "") != name or home.partition(".")[0] != module_name.partition(".")[0]:
        raise UserError(f"{key}={path} is refused: {module_name} does not define it; name the module that does")
    if not (_fits(code, slot) or is_registered(slot, f"{home}.{name}")):
        base = f"a subclass of {slot.base} or " if slot.base else ""
        function = f"a function annotated to return {slot.returns} or " if slot.returns else ""
        accepted = f'{base}{function}a function registered with @target("{slot.name}")'
        raise UserError(f"{key}={path} is refused: the slot {slot.name} accepts {accepted}")
    return code


def _fits(code: Any, slot: Slot) -> bool:
    """Whether `code` is a concrete subclass of the slot's base, or a function annotated to return the slot's type."""
    if inspect.isclass(code):
        return bool(slot.base) and not inspect.isabstract(code) and issubclass(code, _load(slot.base))
    if not slot.returns or not inspect.isfunction(code):
        return False
    result = code.__annotations__.get("return")
    if isinstance(result, str):  # with `from __future__ import annotations`
        result = code.__globals__.get(result)
    return inspect.isclass(result) and issubclass(result, _load(slot.returns))


def _load(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name)


def build(node: DictConfig, key: str = "", **extra: Any) -> Any:
    """The object that a section describes: its target, called with its other settings and `extra` as keyword arguments.

    Nested settings stay plain values and are not instantiated. With `_partial_: true` the result is a `functools.partial`.

    Args:
        key: the section's key, such as `llm`; by default its full key in the configuration.

    Raises:
        UserError: the target is refused or does not accept these settings.
    """
    key = key or str(node._get_full_key(None))
    values = plain(node)
    # Checked again after resolving, since an interpolation may have inserted a name.
    check_names(reduce(lambda inner, part: {part: inner}, reversed(key.split(".")), values))
    function = resolve(values.pop("_target_"), f"{key}._target_")
    is_partial, arguments, signature = values.pop("_partial_", False), {**values, **extra}, inspect.signature(function)
    try:
        (signature.bind_partial if is_partial else signature.bind)(**arguments)
    except TypeError as error:
        raise UserError(f"{key}: {function.__qualname__}: {error}") from error
    return partial(function, **arguments) if is_partial else function(**arguments)
