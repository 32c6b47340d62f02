"""Copies of configurations by way of pickle, in a fifth of the time that OmegaConf's own take: a sweep makes several per job.

The pickles are made here and never leave the process.
"""

import pickle
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from copy import deepcopy
from functools import lru_cache
from typing import Any, TypeGuard, TypeVar, cast

from omegaconf import DictConfig, OmegaConf

from findistill.config.shared import is_shared, share

T = TypeVar("T")
SetValues = Callable[[DictConfig, Sequence[str]], None]

SECTIONS = 100  # most sections with changed values that are kept to be shared; a setting may have a thousand values


class ComposedConfig(DictConfig):
    """A configuration, or its `hydra` node, of which Hydra makes five copies per job."""

    def __deepcopy__(self, memo: dict[int, Any]) -> "ComposedConfig":
        return copied(self)

    @classmethod
    def of(cls, config: DictConfig) -> "ComposedConfig":
        """The same object, with this class."""
        object.__setattr__(config, "__class__", cls)
        return cast(ComposedConfig, config)


class Template:
    """A configuration without a parent, of which many copies are needed."""

    def __init__(self, config: Any) -> None:
        self._config, self._pickled = config, b""
        try:
            self._pickled = pickle.dumps(config, pickle.HIGHEST_PROTOCOL)
        except (pickle.PicklingError, AttributeError, TypeError):  # a package's schema that cannot be imported by its name
            return
        self._config = None

    def copy(self) -> Any:
        return pickle.loads(self._pickled) if self._pickled else deepcopy(self._config)


class Variants:
    """A composed configuration, of which many copies are needed that differ in a few values.

    A copy shares its sections with this configuration, and with copies that have the same values in them, unless they refer to
    settings elsewhere (`${seed}`). Nobody may modify those: `expand` works on copies.
    """

    def __init__(self, config: DictConfig, set_values: SetValues) -> None:
        """`set_values` sets values, given as overrides, in a configuration."""
        self._config, self._content, self._set_values = config, cast(dict[str, Any], config._content), set_values
        self._shared = {name: share(node) for name, node in self._content.items() if _is_shareable(node)}
        self._templates: dict[str, Template] = {}
        self._with = lru_cache(SECTIONS)(self._changed)

    def copy(self, values: Iterable[tuple[str, str]] = ()) -> DictConfig:
        """A copy with other values, given as overrides, each with the name of the section that it is in."""
        by_section = defaultdict[str, list[str]](list)
        for name, override in values:
            by_section[name].append(override)
        sections = {name: self._with(name, tuple(of)) for name, of in by_section.items()}
        shared = {name: section for name, section in sections.items() if section is not None}
        own = [name for name in self._content if name not in shared and (name in by_section or name not in self._shared)]
        copy = with_sections(self._config, {**shared, **{name: self._template(name).copy() for name in own}})
        self._set_values(copy, [override for name, of in by_section.items() if name not in shared for override in of])
        return copy

    def _changed(self, name: str, overrides: tuple[str, ...]) -> DictConfig | None:
        """A section with other values, to be shared; None if it cannot be."""
        if name not in self._shared:
            return None
        copy = with_sections(self._config, {name: self._template(name).copy()})
        self._set_values(copy, overrides)
        section = cast(dict[str, Any], copy._content).get(name)
        if not _is_shareable(section):
            return None
        section._set_parent(self._config)
        return share(section)

    def _template(self, name: str) -> Template:
        if name not in self._templates:
            self._templates[name] = template(self._content[name])
        return self._templates[name]


def copied(config: T) -> T:
    """What `config.copy()` returns."""
    node: Any = config
    if node._get_parent() is None and isinstance(node, DictConfig) and isinstance(node._content, dict):
        # some sections may be another configuration's
        return cast(T, with_sections(node, {str(name): copied(section) for name, section in node._content.items()}))
    same = template(node).copy()
    same._set_parent(node._get_parent())
    return cast(T, same)


def with_sections(config: DictConfig, sections: dict[str, Any]) -> DictConfig:
    """A configuration with `sections`, new ones first, and what else `config` has. Those that are not shared become its own."""
    node = type(config).__new__(type(config))
    before = cast(dict[str, Any], config._content)
    content = {**{name: section for name, section in sections.items() if name not in before}, **before, **sections}
    node.__dict__.update({**config.__dict__, "_metadata": deepcopy(config._metadata), "_content": content})
    for section in sections.values():
        if not is_shared(section):
            section._set_parent(node)
    return node


def template(node: Any) -> Template:
    """A template of a part of a configuration."""
    parent = node._get_parent()
    node._set_parent(None)  # else it would be copied, too
    try:
        return Template(node)
    finally:
        node._set_parent(parent)


def _is_shareable(node: Any) -> TypeGuard[DictConfig]:
    """Whether a node is a section whose values do not depend on the rest of the configuration."""
    return isinstance(node, DictConfig) and isinstance(node._content, dict) and "${" not in str(OmegaConf.to_container(node))
