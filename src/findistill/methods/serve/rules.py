"""Rules of `stage=serve`."""

from collections.abc import Iterator
from typing import Any

from findistill.config.validate import rule


@rule("serve")
def queue(config: Any) -> Iterator[str]:
    serve = config.serve
    if serve.queue < serve.texts:
        yield f"serve.queue={serve.queue} has no room for a request of serve.texts={serve.texts}: lower that, or raise the queue"
