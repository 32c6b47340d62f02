"""Copies of configurations by way of pickle, in a fifth of the time that OmegaConf's own take: a sweep makes several per job.

The pickles are made here and never leave the process.
"""

import pickle
from collections.abc import Iterable
from copy import deepcopy
from typing import Any, TypeVar, cast

from omegaconf import DictConfig, OmegaConf

T = TypeVar("T")


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
    """A composed configuration, of which many copies are needed that differ in a few sections.

    A copy shares the other sections with this configuration, unless they refer to settings elsewhere (`${seed}`). Nobody may
    modify those: `expand` works on copies.
    """

    def __init__(self, config: DictConfig, own: Iterable[str] = ()) -> None:
        """`own`: sections that each copy has for itself, even if unchanged."""
        self._config, self._content = config, cast(dict[str, Any], config._content)
        self._own = {name for name, node in self._content.items() if name in own or not _is_shareable(node)}
        self._templates: dict[str, Template] = {}  # of sections that a copy had for itself

    def copy(self, changed: Iterable[str]) -> DictConfig:
        """A copy in which the sections `changed`, if there are such, may be modified."""
        names = self._own.union(name for name in changed if name in self._content)
        self._templates |= {name: _template(self._content[name]) for name in names - self._templates.keys()}
        return with_sections(self._config, {name: self._templates[name].copy() for name in names})


def copied(config: T) -> T:
    """What `config.copy()` returns."""
    node: Any = config
    if node._get_parent() is None and isinstance(node, DictConfig) and isinstance(node._content, dict):
        return with_own(config, cast(Iterable[str], node._content))  # some sections may be another configuration's
    same = _template(node).copy()
    same._set_parent(node._get_parent())
    return cast(T, same)


def with_own(config: T, names: Iterable[str]) -> T:
    """A configuration with copies of the sections `names`, which may be changed; it shares the others with `config`."""
    content = cast(Any, config)._content
    return cast(T, with_sections(cast(DictConfig, config), {name: copied(content[name]) for name in names}))


def with_sections(config: DictConfig, sections: dict[str, Any]) -> DictConfig:
    """A configuration with `sections`, which become its own, and what else `config` has, which the two share."""
    node = DictConfig.__new__(DictConfig)
    content = {**cast(dict[str, Any], config._content), **sections}
    node.__dict__.update({**config.__dict__, "_metadata": deepcopy(config._metadata), "_content": content})
    for section in sections.values():
        section._set_parent(node)
    return node


def _template(node: Any) -> Template:
    parent = node._get_parent()
    node._set_parent(None)  # else it would be copied, too
    try:
        return Template(node)
    finally:
        node._set_parent(parent)


def _is_shareable(node: Any) -> bool:
    """Whether a node is a section whose values do not depend on the rest of the configuration."""
    return isinstance(node, DictConfig) and isinstance(node._content, dict) and "${" not in str(OmegaConf.to_container(node))
