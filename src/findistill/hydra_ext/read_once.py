"""The files of a configuration, read once however many jobs are composed from them, and composed once for each set of options.

Jobs of a sweep mostly differ in plain values (`seed=3`), which are set in a copy of what their options compose to. A sweep is
composed from the files as they were when it was planned, and a command from those in which its names were checked.
"""

import copy
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, cast

from hydra._internal.config_loader_impl import ConfigLoaderImpl, get_overrides_dirname
from hydra._internal.config_repository import IConfigRepository
from hydra.core.config_loader import ConfigLoader
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.utils import JobRuntime
from hydra.plugins.config_source import ConfigResult, ConfigSource
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

Key = tuple[str | None, tuple[str, ...]]  # the root configuration, and the overrides that choose options


@contextmanager
def shared(*, files: bool = False, places: Collection[str] | None = None) -> Iterator[None]:
    """Loaders that are created in the block share what they compose, if they look for it in the same places.

    Hydra has one loader for each way into it, and composes a command's configuration to learn whether it is a sweep, then
    again to run it; findistill composes it before that, to check the names in it.

    Args:
        files: share what they read, too: for many sets of options.
        places: share among the loaders that look nowhere else.
    """
    create, by_places = ConfigLoaderImpl.__init__, dict[tuple[str, ...], ReadOnce]()

    @wraps(create)
    def sharing(self: ConfigLoaderImpl, *arguments: Any, **settings: Any) -> None:
        create(self, *arguments, **settings)
        own = tuple(source.full_path() for source in self.repository.get_sources())
        if places is None or set(own) <= set(places):
            by_places[own] = _remember(self, by_places.get(own), files=files)

    ConfigLoaderImpl.__init__ = sharing  # type: ignore[method-assign]
    try:
        yield
    finally:
        ConfigLoaderImpl.__init__ = create  # type: ignore[method-assign]


def read_once(loader: ConfigLoader) -> None:
    """Have `loader` read each file and compose each set of options once from now on."""
    _remember(loader, files=True)


def _remember(loader: ConfigLoader, memory: "ReadOnce | None" = None, *, files: bool) -> "ReadOnce":
    inside = cast(Any, loader)
    if not isinstance(inside.repository, ReadOnce):
        inside.repository = memory or ReadOnce(inside.repository)
        inside.load_configuration = _Loading(inside, inside.load_configuration)
    inside.repository.of_files |= files
    return cast(ReadOnce, inside.repository)


class _Loading:
    """Stands for a loader's `load_configuration`."""

    def __init__(self, loader: ConfigLoaderImpl, compose: Callable[..., DictConfig]) -> None:
        self.loader, self.compose = loader, compose

    def __call__(self, config_name: str | None, overrides: list[str], run_mode: RunMode, **settings: Any) -> DictConfig:
        if not any("hydra.searchpath" in each for each in overrides):
            parsed = OverridesParser.create().parse_overrides(overrides)
            swept = [each for each in parsed if each.is_sweep_override()]
            if not swept or (run_mode is RunMode.MULTIRUN and not any(each.is_hydra_override() for each in swept)):
                config = self._composed(config_name, run_mode, parsed)
                # Of a group without an option a sweep may choose one; for a job that is an error, which Hydra words.
                options = config.hydra.runtime.choices
                if run_mode is RunMode.MULTIRUN or not any(OmegaConf.is_missing(options, group) for group in options):
                    return config
        return self.compose(config_name=config_name, overrides=overrides, run_mode=run_mode, **settings)

    def _composed(self, config_name: str | None, run_mode: RunMode, overrides: list[Override]) -> DictConfig:
        """What is swept is in the list of overrides alone, as in Hydra's compositions."""
        set_now = [each for each in overrides if not each.is_sweep_override()]
        values = [each for each in set_now if self._is_value(each)]
        chosen = [str(each.input_line) for each in set_now if each not in values]
        name: str = JobRuntime.instance().get("name")
        composed: dict[Key, tuple[DictConfig, str]] = cast(Any, self.loader).repository.composed
        key = (config_name, tuple(chosen))
        if key not in composed:
            composed[key] = self.compose(config_name=config_name, overrides=chosen, run_mode=run_mode), name
        original, name_then = composed[key]
        config = copy.deepcopy(original)
        ConfigLoaderImpl._apply_overrides_to_config(values, config)
        hydra, style = config.hydra, config.hydra.job.config.override_dirname
        task = [each for each in overrides if not each.is_hydra_override()]
        hydra.overrides.hydra = [each.input_line for each in overrides if each.is_hydra_override()]
        hydra.overrides.task = [each.input_line for each in task]
        hydra.job.override_dirname = get_overrides_dirname(task, list(style.exclude_keys), style.item_sep, style.kv_sep)
        if hydra.job.name == name_then:
            hydra.job.name = name
        hydra.runtime.cwd = str(Path.cwd())
        return config

    def _is_value(self, override: Override) -> bool:
        """Whether it sets a plain value of a job, which no option depends on."""
        if override.is_hydra_override():
            return override.get_key_element() == "hydra.mode"  # which Hydra sets itself; from others it computes something
        return not self.loader.repository.group_exists(override.key_or_group) or isinstance(override.value(), dict)


class ReadOnce(IConfigRepository):
    """A repository that remembers what it has loaded. Each composition takes a copy of it, which shares what is remembered.

    Files only where many sets of options are composed (`of_files`): their copies take longer than to read them once.
    """

    def __init__(self, repository: IConfigRepository) -> None:
        self.repository = repository
        self.of_files = False
        self.loaded: dict[str, ConfigResult | None] = {}
        self.composed: dict[Key, tuple[DictConfig, str]] = {}  # and the job's name when it was composed

    def __deepcopy__(self, memo: dict[int, Any]) -> "ReadOnce":
        other = copy.copy(self)
        other.repository = copy.copy(self.repository)
        return other

    def initialize_sources(self, config_search_path: ConfigSearchPath) -> None:
        """A composition that adds folders of its own finds other files there."""
        self.repository.initialize_sources(config_search_path)
        self.loaded, self.composed = {}, {}

    def load_config(self, config_path: str) -> ConfigResult | None:
        if not self.of_files:
            return self.repository.load_config(config_path=config_path)
        if config_path not in self.loaded:
            self.loaded[config_path] = self.repository.load_config(config_path=config_path)
        return copy.deepcopy(self.loaded[config_path])  # what composes it writes into it

    def get_schema_source(self) -> ConfigSource:
        return self.repository.get_schema_source()

    def group_exists(self, config_path: str) -> bool:
        return self.repository.group_exists(config_path=config_path)

    def config_exists(self, config_path: str) -> bool:
        return self.repository.config_exists(config_path=config_path)

    def get_group_options(self, group_name: str, results_filter: ObjectType | None = ObjectType.CONFIG) -> list[str]:
        return self.repository.get_group_options(group_name=group_name, results_filter=results_filter)

    def get_sources(self) -> list[ConfigSource]:
        return self.repository.get_sources()
