"""The files of a configuration, read once however many jobs are composed from them, and composed once for each set of options.

Jobs of a sweep mostly differ in plain values (`seed=3`), which are set in a copy of what their options compose to. A sweep is
composed from the files as they were when it was planned.
"""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from hydra._internal.config_loader_impl import ConfigLoaderImpl, get_overrides_dirname
from hydra._internal.config_repository import IConfigRepository
from hydra.core.config_loader import ConfigLoader
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.plugins.config_source import ConfigResult, ConfigSource
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

Key = tuple[str | None, RunMode, tuple[str, ...]]  # the root configuration, and the overrides that choose options


def read_once(loader: ConfigLoader, shared: "ReadOnce | None" = None) -> "ReadOnce":
    """Have `loader` read each file and compose each set of options once from now on; gives what remembers them.

    Args:
        shared: what an earlier loader of the same files remembers.
    """
    inside = cast(Any, loader)
    if not isinstance(inside.repository, ReadOnce):
        inside.repository = shared or ReadOnce(inside.repository)
        inside.load_configuration = _Loading(inside, inside.load_configuration)
    return cast(ReadOnce, inside.repository)


class _Loading:
    """Stands for a loader's `load_configuration`."""

    def __init__(self, loader: ConfigLoaderImpl, compose: Callable[..., DictConfig]) -> None:
        self.loader, self.compose = loader, compose

    def __call__(self, config_name: str | None, overrides: list[str], run_mode: RunMode, **settings: Any) -> DictConfig:
        if not any("hydra.searchpath" in each for each in overrides):
            try:
                parsed = OverridesParser.create().parse_overrides(overrides)
                if not any(each.is_sweep_override() for each in parsed):
                    return self._composed(config_name, run_mode, parsed)
            except (HydraException, OmegaConfBaseException):
                pass  # a mistake: composed as ever, for the same error
        return self.compose(config_name=config_name, overrides=overrides, run_mode=run_mode, **settings)

    def _composed(self, config_name: str | None, run_mode: RunMode, overrides: list[Override]) -> DictConfig:
        values = [each for each in overrides if self._is_value(each)]
        chosen = [str(each.input_line) for each in overrides if each not in values]
        composed: dict[Key, DictConfig] = cast(Any, self.loader).repository.composed
        key = (config_name, run_mode, tuple(chosen))
        if key not in composed:
            composed[key] = self.compose(config_name=config_name, overrides=chosen, run_mode=run_mode)
        config = copy.deepcopy(composed[key])
        ConfigLoaderImpl._apply_overrides_to_config(values, config)
        hydra, style = config.hydra, config.hydra.job.config.override_dirname
        task = [each for each in overrides if not each.is_hydra_override()]
        hydra.overrides.hydra = [each.input_line for each in overrides if each.is_hydra_override()]
        hydra.overrides.task = [each.input_line for each in task]
        hydra.job.override_dirname = get_overrides_dirname(task, list(style.exclude_keys), style.item_sep, style.kv_sep)
        hydra.runtime.cwd = str(Path.cwd())
        return config

    def _is_value(self, override: Override) -> bool:
        """Whether it sets a plain value of a job, which no option depends on."""
        is_option = self.loader.repository.group_exists(override.key_or_group) and not isinstance(override.value(), dict)
        return not is_option and not override.is_hydra_override()


class ReadOnce(IConfigRepository):
    """A repository that remembers what it has loaded. Each composition takes a copy of it, which shares what is remembered."""

    def __init__(self, repository: IConfigRepository) -> None:
        self.repository = repository
        self.loaded: dict[str, ConfigResult | None] = {}
        self.composed: dict[Key, DictConfig] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> "ReadOnce":
        other = copy.copy(self)
        other.repository = copy.copy(self.repository)
        return other

    def initialize_sources(self, config_search_path: ConfigSearchPath) -> None:
        """A composition that adds folders of its own finds other files there."""
        self.repository.initialize_sources(config_search_path)
        self.loaded, self.composed = {}, {}

    def load_config(self, config_path: str) -> ConfigResult | None:
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
