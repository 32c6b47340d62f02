"""Hydra finds its plugins in this namespace; the sweeper itself lives in `findistill.sweep`."""

from hydra.core.config_store import ConfigStore

from findistill.sweep import ResumingSweeper as _ResumingSweeper


class ResumingSweeper(_ResumingSweeper):
    """`findistill.sweep.ResumingSweeper`, under a name that Hydra accepts as a plugin."""


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
