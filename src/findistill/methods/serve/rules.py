"""Rules of `stage=serve`."""

from collections.abc import Iterator
from typing import Any

from findistill.config.validate import rule


@rule("serve")
def queue(config: Any) -> Iterator[str]:
    serve = config.serve
    if serve.queue < serve.texts:
        yield f"serve.queue={serve.queue} is below serve.texts={serve.texts}, the largest request: raise it, or lower serve.texts"
