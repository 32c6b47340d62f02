"""Other people's conf folders, after the shipped one: those of $FINDISTILL_CONF and of installed packages."""

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.plugins.search_path_plugin import SearchPathPlugin

from findistill.config.packages import conf_folders


class FindistillSearchPath(SearchPathPlugin):
    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        # The option of hydra-optuna-sweeper gives way to ours of the same name, which continues.
        ConfigStore.instance().repo.get("hydra", {}).get("sweeper", {}).pop("optuna.yaml", None)
        for folder in conf_folders():
            search_path.append(provider="findistill", path=f"file://{folder}")
