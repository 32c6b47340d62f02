"""The files of a configuration, read once however many jobs are composed from them.

Reading and copying them is half of what Hydra's composition of a job takes. A sweep is composed from the files as they were
when it was planned.
"""

import copy
from typing import Any, cast

from hydra._internal.config_repository import IConfigRepository
from hydra.core.config_loader import ConfigLoader
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.object_type import ObjectType
from hydra.plugins.config_source import ConfigResult, ConfigSource


def read_once(loader: ConfigLoader) -> None:
    """Have `loader` read each file once from now on."""
    inside = cast(Any, loader)
    if not isinstance(inside.repository, ReadOnce):
        inside.repository = ReadOnce(inside.repository)


class ReadOnce(IConfigRepository):
    """A repository that remembers what it has loaded. Each composition takes a copy of it, which shares what is remembered."""

    def __init__(self, repository: IConfigRepository, loaded: dict[str, ConfigResult | None] | None = None) -> None:
        self.repository = repository
        self.loaded: dict[str, ConfigResult | None] = {} if loaded is None else loaded

    def __deepcopy__(self, memo: dict[int, Any]) -> "ReadOnce":
        return ReadOnce(copy.copy(self.repository), self.loaded)

    def initialize_sources(self, config_search_path: ConfigSearchPath) -> None:
        """A composition that adds folders of its own finds other files there."""
        self.repository.initialize_sources(config_search_path)
        self.loaded = {}

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
