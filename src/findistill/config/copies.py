"""Copies of configurations by way of pickle, in a fifth of the time that OmegaConf's own take: a sweep makes several per job.

The pickles are made here and never leave the process.
"""

import pickle
from collections.abc import Iterable
from copy import deepcopy
from typing import Any, TypeVar, cast

from omegaconf import DictConfig

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


def copied(config: T) -> T:
    """What `config.copy()` returns."""
    node: Any = config
    parent = node._get_parent()
    node._set_parent(None)  # else it would be copied, too
    try:
        same = Template(node).copy()
    finally:
        node._set_parent(parent)
    same._set_parent(parent)
    return cast(T, same)


def with_own(config: T, names: Iterable[str]) -> T:
    """A configuration with copies of the sections `names`, which may be changed; it shares the others with `config`."""
    original, node = cast(Any, config), DictConfig.__new__(DictConfig)
    content = {**original._content, **{name: copied(original._content[name]) for name in names}}
    node.__dict__.update({**original.__dict__, "_metadata": deepcopy(original._metadata), "_content": content})
    for name in names:
        content[name]._set_parent(node)
    return cast(T, node)
