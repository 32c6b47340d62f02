"""Sections that several configurations share: what is computed from such a section is computed once for all of them.

Most jobs of a sweep share most sections, and planning it checks and hashes each section of each job.
"""

import weakref
from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

from omegaconf import DictConfig

P = ParamSpec("P")
R = TypeVar("R")

_results: dict[int, dict[Any, Any]] = {}  # of each shared section, by its id; removed with the section


def share(section: DictConfig) -> DictConfig:
    """Declare that configurations share a section, whose values do not depend on the rest of them and never change."""
    if id(section) not in _results:
        _results[id(section)] = {}
        weakref.finalize(section, _results.pop, id(section), None).atexit = False
    return section


def is_shared(section: Any) -> bool:
    return id(section) in _results


def once(function: Callable[Concatenate[Any, P], R]) -> Callable[Concatenate[Any, P], R]:
    """Remember the results of `function(section, ...)` for sections that are shared.

    A section that it returns for such a section is shared as well. Nobody may modify what it returns.
    """

    @wraps(function)
    def remembered(section: Any, *arguments: P.args, **named: P.kwargs) -> R:
        results = _results.get(id(section))
        if results is None:
            return function(section, *arguments, **named)
        key = function, arguments, *named.items()
        if key not in results:
            result = function(section, *arguments, **named)
            results[key] = share(result) if isinstance(result, DictConfig) else result
        return cast(R, results[key])

    return remembered
