"""From configuration to objects, with what is named checked by the slot it stands in (`findistill.config.targets`)."""

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
    """Check all code that a job's configuration names: the names first, then, which imports it, what they refer to.

    Args:
        read: sections and settings that are used; code that stands in no other is imported. None: all.

    Raises:
        UserError: something is refused, or there is nothing of that name.
    """
    check_names(config)
    for key, path in sections_with_target(config):
        if read is None or within(key, read):
            resolve(path, f"{key}._target_")


def resolve(path: str, key: str) -> Callable[..., Any]:
    """The class or function that `path` names; `key` is where it stands, `llm._target_`.

    Raises:
        UserError: the slot does not take it, or nothing of that name exists.
    """
    slot = slot_of(key.removesuffix("._target_"))
    if slot is None:
        raise UserError(f"{key}={path} is refused: _target_ may not stand there")
    check_name(key, path, slot)
    module_name, _, name = path.rpartition(".")
    try:
        code = _load(path)
    except (ImportError, AttributeError, SyntaxError, ValueError) as error:
        raise UserError(f"{key}={path} cannot be loaded: {error}") from error
    home = str(getattr(code, "__module__", ""))
    # By its own name, or offered again by the package that it is part of; never another module's by way of an import.
    if getattr(code, "__qualname__", "") != name or home.partition(".")[0] != module_name.partition(".")[0]:
        raise UserError(f"{key}={path} is refused: {module_name} does not define it; name it where it is defined")
    if not (_fits(code, slot) or is_registered(slot, f"{home}.{name}")):
        base = f"a subclass of {slot.base} or " if slot.base else ""
        function = f"a function that is annotated to return {slot.returns} or " if slot.returns else ""
        takes = f'{base}{function}a function registered with @target("{slot.name}")'
        raise UserError(f"{key}={path} is refused: the slot {slot.name} takes {takes}")
    return code


def _fits(code: Any, slot: Slot) -> bool:
    """Whether it is a concrete subclass of the slot's base, or a function that is annotated to return what the slot needs."""
    if inspect.isclass(code):
        return bool(slot.base) and not inspect.isabstract(code) and issubclass(code, _load(slot.base))
    if not slot.returns or not inspect.isfunction(code):
        return False
    result = code.__annotations__.get("return")
    if isinstance(result, str):  # as `from __future__ import annotations` leaves it
        result = code.__globals__.get(result)
    return inspect.isclass(result) and issubclass(result, _load(slot.returns))


def _load(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name)


def build(node: DictConfig, key: str = "", **extra: Any) -> Any:
    """The object that a section describes: its target called with its other settings, and `extra` ones, as keywords.

    What is nested stays plain values: nothing below the section is built. With `_partial_: true` it is a `functools.partial`.

    Args:
        key: where the section stands, `llm`; by default as the configuration has it.

    Raises:
        UserError: the target is refused or does not take these settings.
    """
    key = key or str(node._get_full_key(None))
    values = plain(node)
    # The values as they are after resolving: an interpolation may have put in more.
    check_names(reduce(lambda inner, part: {part: inner}, reversed(key.split(".")), values))
    function = resolve(values.pop("_target_"), f"{key}._target_")
    is_partial, arguments, signature = values.pop("_partial_", False), {**values, **extra}, inspect.signature(function)
    try:
        (signature.bind_partial if is_partial else signature.bind)(**arguments)
    except TypeError as error:
        raise UserError(f"{key}: {function.__qualname__}: {error}") from error
    return partial(function, **arguments) if is_partial else function(**arguments)
