"""Adds users' conf folders to the search path, after findistill's: those of $FINDISTILL_CONF and of installed packages."""

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.plugins.search_path_plugin import SearchPathPlugin

from findistill.config.groups import config_dir
from findistill.config.packages import conf_folders


class FindistillSearchPath(SearchPathPlugin):
    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        # Our options replace other plugins' of the same name: sweeps that resume, workers that fail independently.
        for group, options in ConfigStore.instance().repo.get("hydra", {}).items():
            for ours in (config_dir() / "hydra" / group).glob("*.yaml"):
                options.pop(ours.name, None)
        for folder in conf_folders():
            search_path.append(provider="findistill", path=f"file://{folder}")
