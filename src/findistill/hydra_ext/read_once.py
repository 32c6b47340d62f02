"""Caches for Hydra's composition: each file is read once, and each set of options composed once, however many jobs need them.

Jobs of a sweep mostly differ in plain values (`seed=3`), which are set in a copy of the composed options. So a sweep is composed
from the files as they were when it was planned, and a command from the same ones in which its names were checked.
"""

import copy
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import is_dataclass
from functools import lru_cache, wraps
from pathlib import Path
from typing import Any, cast

from hydra._internal import defaults_list as composition
from hydra._internal.config_loader_impl import ConfigLoaderImpl, get_overrides_dirname
from hydra._internal.config_repository import IConfigRepository
from hydra._internal.defaults_list import Overrides
from hydra.core.config_loader import ConfigLoader
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.default_element import InputDefault
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.utils import JobRuntime
from hydra.plugins.config_source import ConfigResult, ConfigSource
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from findistill.config.compose import without_hydra
from findistill.config.copies import ComposedConfig, Template, Variants, template, with_sections
from findistill.config.fields import nodes
from findistill.config.groups import refuse_non_options
from findistill.config.messages import hydra_crashes_worded, inside_a_list
from findistill.config.shared import share
from findistill.errors import UserError

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


def compose_job(loader: ConfigLoader, master: DictConfig, overrides: Sequence[str]) -> tuple[DictConfig, list[str]]:
    """A job's configuration and its own overrides, as `loader.load_sweep_config` returns them, in a fraction of the time.

    Its `hydra` node is shared with other jobs, so that it has neither the values of this job nor all of its overrides.
    """
    loading = cast(Any, loader).load_configuration
    if isinstance(loading, _Loading):
        parsed = [_parsed(each) for each in (*master.hydra.overrides.hydra, *overrides)]
        if (options := loading.options(master.hydra.job.config_name, RunMode.RUN, parsed)) and options.complete:
            config = options.variants.copy(_by_section(loading.values(parsed)))
            OmegaConf.copy_cache(from_config=master, to_config=config)
            task = [str(each.input_line) for each in parsed if not each.is_hydra_override()]
            return with_sections(config, {"hydra": options.hydra}), task
    config = loader.load_sweep_config(master, list(overrides))
    return config, list(config.hydra.overrides.task)


class _Loading:
    """Replaces a loader's `load_configuration`."""

    def __init__(self, loader: ConfigLoaderImpl, compose: Callable[..., DictConfig]) -> None:
        self.loader, self.compose = loader, compose
        self.is_value: dict[str | None, bool] = {}

    def __call__(self, config_name: str | None, overrides: list[str], run_mode: RunMode, **settings: Any) -> DictConfig:
        parsed = [_parsed(each) for each in overrides]
        options = self.options(config_name, run_mode, parsed)
        # A group without an option is fine in a sweep, which may choose one; for a job, let Hydra raise its error.
        if options and (run_mode is RunMode.MULTIRUN or options.complete):
            values = self.values(parsed)
            if run_mode is RunMode.MULTIRUN:
                # The default option of a swept group may not have the settings of the swept ones; each job is checked.
                swept = {each.key_or_group for each in parsed if each.is_sweep_override()} | options.swept
                values = [each for each in values if each.key_or_group.partition(".")[0] not in swept]
            return options.with_values(parsed, values)
        return self.compose(config_name=config_name, overrides=overrides, run_mode=run_mode, **settings)

    def options(self, config_name: str | None, run_mode: RunMode, overrides: Sequence[Override]) -> "Options | None":
        """The configuration of the options that `overrides` choose; None if Hydra must compose all of it."""
        swept = [each for each in overrides if each.is_sweep_override()]
        if any("hydra.searchpath" in str(each.input_line) for each in overrides):
            return None
        if swept and (run_mode is not RunMode.MULTIRUN or any(each.is_hydra_override() for each in swept)):
            return None
        chosen = [each for each in overrides if not each.is_sweep_override() and not self._is_value(each)]
        words = [str(each.input_line) for each in chosen]
        composed: dict[Key, Options] = cast(Any, self.loader).repository.composed
        key = (config_name, tuple(words))
        if key not in composed:
            refuse_non_options(chosen)
            with _choices_only_where_named(), hydra_crashes_worded():
                config = self.compose(config_name=config_name, overrides=words, run_mode=run_mode)
            composed[key] = Options(config, JobRuntime.instance().get("name"))
        return composed[key]

    def values(self, overrides: Sequence[Override]) -> list[Override]:
        """Those of `overrides` that set plain values. Swept settings are only in the list of overrides."""
        return [each for each in overrides if not each.is_sweep_override() and self._is_value(each)]

    def _is_value(self, override: Override) -> bool:
        """Whether it sets a plain value of a job, which no option depends on."""
        if override.is_hydra_override():
            return override.get_key_element() == "hydra.mode"  # set by Hydra itself; others affect computed values
        if (words := override.input_line) not in self.is_value:
            is_group = self.loader.repository.group_exists(override.key_or_group)
            self.is_value[words] = not is_group or isinstance(override.value(), dict)
        return self.is_value[words]


@contextmanager
def _choices_only_where_named() -> Iterator[None]:
    """Within the block, Hydra collects the options chosen so far only for a defaults list that names one: `- llm: ${data}`.

    It does so for each of the forty files of a composition, which takes a fifth of its time.
    """
    collect = composition._create_interpolation_map

    def where_named(overrides: Overrides, defaults_list: list[InputDefault], self_added: bool) -> DictConfig:
        if any(each.is_interpolation() for each in defaults_list):
            return collect(overrides, defaults_list, self_added)
        return DictConfig({})

    composition._create_interpolation_map = where_named
    try:
        yield
    finally:
        composition._create_interpolation_map = collect


class Options:
    """A composed set of options.

    Attributes:
        variants: the configuration without its `hydra` node, for copies with other values.
        hydra: that node, to be shared.
        job_name: the job's name when it was composed.
        complete: whether each group has an option.
        swept: what an experiment sweeps over.
    """

    def __init__(self, config: DictConfig, job_name: str) -> None:
        choices = config.hydra.runtime.choices
        self.complete = not any(OmegaConf.is_missing(choices, group) for group in choices)
        self.hydra, self.job_name = share(ComposedConfig.of(config.hydra)), job_name
        self.swept = {str(name) for name in self.hydra.sweeper.get("params") or ()}
        self._hydra = template(self.hydra)
        self.variants = Variants(ComposedConfig.of(cast(DictConfig, without_hydra(config))), _set_values)

    def with_values(self, overrides: Sequence[Override], values: Sequence[Override]) -> DictConfig:
        """A copy with `values` set. All `overrides`, also swept ones, are in its list, as when Hydra composes it."""
        config = with_sections(self.variants.copy(_by_section(values)), {"hydra": self._hydra.copy()})
        _set_values(config, [str(each.input_line) for each in values if each.is_hydra_override()])
        task = [each for each in overrides if not each.is_hydra_override()]
        hydra, style = config.hydra, config.hydra.job.config.override_dirname
        hydra.overrides.hydra = [each.input_line for each in overrides if each.is_hydra_override()]
        hydra.overrides.task = [each.input_line for each in task]
        hydra.job.override_dirname = get_overrides_dirname(task, list(style.exclude_keys), style.item_sep, style.kv_sep)
        if hydra.job.name == self.job_name:
            hydra.job.name = JobRuntime.instance().get("name")
        hydra.runtime.cwd = str(Path.cwd())
        return config


@lru_cache(maxsize=10_000)  # jobs of a sweep share most of their overrides
def _parsed(override: str) -> Override:
    [parsed] = OverridesParser.create().parse_overrides([override])  # with an error that names the override
    return parsed


def _by_section(values: Sequence[Override]) -> list[tuple[str, str]]:
    """Section and words of each override outside `hydra`."""
    return [(each.key_or_group.partition(".")[0], str(each.input_line)) for each in values if not each.is_hydra_override()]


def _set_values(config: DictConfig, overrides: Sequence[str]) -> None:
    parsed = [_parsed(each) for each in overrides]
    for each in parsed:
        _empty_where_null(config, each)
    for each in parsed:
        try:
            ConfigLoaderImpl._apply_overrides_to_config([each], config)
        except (IndexError, ValueError) as error:
            raise UserError(inside_a_list(str(each.input_line))) from error


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
        self.loaded: dict[str, Template] = {}
        self.composed: dict[Key, Options] = {}

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
            self.loaded[config_path] = Template(self.repository.load_config(config_path=config_path))
        return cast(ConfigResult | None, self.loaded[config_path].copy())  # composing modifies it

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
