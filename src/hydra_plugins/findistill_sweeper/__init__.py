"""Hydra finds its plugins in this namespace; the sweepers are implemented in `findistill.hydra_ext`."""

from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.plugins.sweeper import Sweeper

from findistill import schema
from findistill.errors import UserError
from findistill.hydra_ext.sweeper import ResumingSweeper as _ResumingSweeper


class ResumingSweeper(_ResumingSweeper):
    """`findistill.hydra_ext.sweeper.ResumingSweeper`, under a name that Hydra accepts as a plugin."""


class OptunaSweeper(Sweeper):
    """`findistill.hydra_ext.optuna.ContinuingSearch`, imported only when chosen, since optuna is an extra."""

    def __init__(self, sampler: Any, **settings: Any) -> None:
        try:
            from findistill.hydra_ext.optuna import ContinuingSearch  # optuna takes a second to import
        except ImportError as error:
            raise UserError(
                "hydra/sweeper=optuna needs packages that are not installed.\nInstall them with: pip install 'findistill[optuna]'"
            ) from error
        self.search = ContinuingSearch(sampler, **settings)

    def setup(self, **settings: Any) -> None:
        self.search.setup(**settings)

    def sweep(self, arguments: list[str]) -> Any:
        return self.search.sweep(arguments)


schema.register()  # the schemas that the YAML files inherit from

ConfigStore.instance().store(
    group="hydra/sweeper",
    name="findistill",
    node={
        "_target_": "hydra_plugins.findistill_sweeper.ResumingSweeper",
        "max_batch_size": None,
        "params": None,
    },
    provider="findistill",
)
