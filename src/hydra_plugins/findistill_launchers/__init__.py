"""Hydra finds its plugins in this namespace; the launchers are implemented in `findistill.hydra_ext`."""

from findistill.hydra_ext.local import LocalWorkers as _LocalWorkers
from findistill.hydra_ext.ray import RayWorkers as _RayWorkers
from findistill.hydra_ext.submitit import SubmititWorkers as _SubmititWorkers


class LocalWorkers(_LocalWorkers):
    """`findistill.hydra_ext.local.LocalWorkers`, under a name that Hydra accepts as a plugin."""


class RayWorkers(_RayWorkers):
    """`findistill.hydra_ext.ray.RayWorkers`, under a name that Hydra accepts as a plugin."""


class SubmititWorkers(_SubmititWorkers):
    """`findistill.hydra_ext.submitit.SubmititWorkers`, under a name that Hydra accepts as a plugin."""
