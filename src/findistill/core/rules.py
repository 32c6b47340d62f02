"""Rules of tracking."""

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

from findistill.config.validate import rule

OPTIONAL = ("tensorboard", "mlflow")  # loggers that are an extra of the package


@rule()
def installed_loggers(config: Any) -> Iterator[str]:
    """Loggers whose package is not installed: known before anything runs."""
    for name in OPTIONAL:
        if name in config.logger and find_spec(name) is None:
            yield f"logger={name} needs the package {name}: pip install 'findistill[{name}]'"
