"""Caches for Hydra's composition: each file is read once, and each set of options composed once, however many jobs need them.

Jobs of a sweep mostly differ in plain values (`seed=3`), which are set in a copy of the composed options. So a sweep is composed
from the files as they were when it was planned, and a command from the same ones in which its names were checked.
"""

import copy
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import is_dataclass
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

from findistill.config.copies import Variants
from findistill.config.fields import nodes

Key = tuple[str | None, tuple[str, ...]]  # the root configuration, and the overrides that choose options


@contextmanager
def shared(*, files: bool = False, places: Collection[str] | None = None) -> Iterator[None]:
    """Let loaders created in the block share composed configurations, if they have the same search path.

    Hydra creates a loader for each entry point, and composes a command's configuration to find out whether it is a sweep, then
    again to run it; findistill composes it before that, to check the names in it.

    Args:
        files: also share the files that they read, which pays off for many sets of options.
        places: only share among loaders that search nowhere else.
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
    """Make `loader` read each file and compose each set of options only once from now on."""
    _remember(loader, files=True)


def _remember(loader: ConfigLoader, memory: "ReadOnce | None" = None, *, files: bool) -> "ReadOnce":
    inside = cast(Any, loader)
    if not isinstance(inside.repository, ReadOnce):
        inside.repository = memory or ReadOnce(inside.repository)
        inside.load_configuration = _Loading(inside, inside.load_configuration)
    inside.repository.of_files |= files
    return cast(ReadOnce, inside.repository)


class _Loading:
    """Replaces a loader's `load_configuration`."""

    def __init__(self, loader: ConfigLoaderImpl, compose: Callable[..., DictConfig]) -> None:
        self.loader, self.compose = loader, compose
        # Jobs of a sweep share most of their overrides.
        self.parsed: dict[str, Override] = {}
        self.is_value: dict[str | None, bool] = {}

    def __call__(self, config_name: str | None, overrides: list[str], run_mode: RunMode, **settings: Any) -> DictConfig:
        if not any("hydra.searchpath" in each for each in overrides):
            new = [each for each in overrides if each not in self.parsed]
            self.parsed |= dict(zip(new, OverridesParser.create().parse_overrides(new), strict=True))
            parsed = [self.parsed[each] for each in overrides]
            swept = [each for each in parsed if each.is_sweep_override()]
            if not swept or (run_mode is RunMode.MULTIRUN and not any(each.is_hydra_override() for each in swept)):
                config = self._composed(config_name, run_mode, parsed)
                # A group without an option is fine in a sweep, which may choose one; for a job, let Hydra raise its error.
                options = config.hydra.runtime.choices
                if run_mode is RunMode.MULTIRUN or not any(OmegaConf.is_missing(options, group) for group in options):
                    return config
        return self.compose(config_name=config_name, overrides=overrides, run_mode=run_mode, **settings)

    def _composed(self, config_name: str | None, run_mode: RunMode, overrides: list[Override]) -> DictConfig:
        """The composed configuration. Swept settings are only in its list of overrides, as when Hydra composes it."""
        set_now = [each for each in overrides if not each.is_sweep_override()]
        values = [each for each in set_now if self._is_value(each)]
        chosen = [str(each.input_line) for each in set_now if each not in values]
        name: str = JobRuntime.instance().get("name")
        composed: dict[Key, tuple[Variants, str]] = cast(Any, self.loader).repository.composed
        key = (config_name, tuple(chosen))
        if key not in composed:
            original = self.compose(config_name=config_name, overrides=chosen, run_mode=run_mode)
            composed[key] = Variants(original, own=["hydra"]), name
        variants, name_then = composed[key]
        config = variants.copy(each.key_or_group.partition(".")[0] for each in values)
        for each in values:
            _empty_where_null(config, each)
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
            return override.get_key_element() == "hydra.mode"  # set by Hydra itself; others affect computed values
        if (words := override.input_line) not in self.is_value:
            is_group = self.loader.repository.group_exists(override.key_or_group)
            self.is_value[words] = not is_group or isinstance(override.value(), dict)
        return self.is_value[words]


def _empty_where_null(config: DictConfig, override: Override) -> None:
    """Replace a null section that an override sets, or sets a key of, by an empty one: OmegaConf cannot merge into null."""
    node: Any = config
    parts = override.key_or_group.split(".")
    for at, part in enumerate(parts):
        node = nodes(node).get(part) if isinstance(node, DictConfig) else None
        if isinstance(node, DictConfig) and node._is_none() and (at + 1 < len(parts) or isinstance(override.value(), dict)):
            schema: Any = node._metadata.ref_type
            empty = OmegaConf.structured(schema) if is_dataclass(schema) else {}
            OmegaConf.update(config, ".".join(parts[: at + 1]), empty, merge=False)
            return


class ReadOnce(IConfigRepository):
    """A repository with caches. Each composition copies the repository; the copies share the caches.

    Files are only cached if many sets of options are composed (`of_files`): copying one takes longer than reading it once.
    """

    def __init__(self, repository: IConfigRepository) -> None:
        self.repository = repository
        self.of_files = False
        self.loaded: dict[str, ConfigResult | None] = {}
        self.composed: dict[Key, tuple[Variants, str]] = {}  # with the job's name at that time

    def __deepcopy__(self, memo: dict[int, Any]) -> "ReadOnce":
        other = copy.copy(self)
        other.repository = copy.copy(self.repository)
        return other

    def initialize_sources(self, config_search_path: ConfigSearchPath) -> None:
        """Start with empty caches: a composition that adds search folders may find other files."""
        self.repository.initialize_sources(config_search_path)
        self.loaded, self.composed = {}, {}

    def load_config(self, config_path: str) -> ConfigResult | None:
        if not self.of_files:
            return self.repository.load_config(config_path=config_path)
        if config_path not in self.loaded:
            self.loaded[config_path] = self.repository.load_config(config_path=config_path)
        return copy.deepcopy(self.loaded[config_path])  # composing modifies it

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
