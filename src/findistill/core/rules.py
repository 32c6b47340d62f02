"""Rules for tracking."""

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

from findistill.config.validate import rule
from findistill.core.step import load
from findistill.errors import did_you_mean

OPTIONAL = ("tensorboard", "mlflow")  # loggers that need an extra of the package


@rule()
def installed_loggers(config: Any) -> Iterator[str]:
    """Loggers whose package is not installed, reported before anything runs."""
    for name in OPTIONAL:
        if name in config.logger and find_spec(name) is None:
            yield f"logger={name} needs the package {name}: pip install 'findistill[{name}]'"


@rule()
def wandb_settings(config: Any) -> Iterator[str]:
    """Names in `logger.wandb.settings` that the installed client does not know; it is imported only if there are any."""
    names = (config.logger.get("wandb") or {}).get("settings") or {}
    fields = list(load("wandb:Settings").model_fields) if names else []
    for name in names:
        if name not in fields:
            yield f"logger.wandb.settings.{name}: wandb.Settings has no such field{did_you_mean(str(name), known=fields)}"
