"""Settings of the endpoint."""

from dataclasses import dataclass

from findistill.config.fields import setting


@dataclass
class Serve:
    """stage=serve: a model behind HTTP."""

    model: str | None = None  # as predict.model
    weights: str = setting("auto", choices=("auto", "int8", "fp32", "torch"))  # as predict.weights
    types: list[str] = setting([])  # as predict.types
    host: str = "127.0.0.1"  # there is no authentication: any other address is open to all who can reach the machine
    port: int = setting(8000, ge=0, le=65535, meaning="a port; 0 picks a free one")
    batch_size: int = setting(32, ge=1)  # maximum texts per batch
    wait_ms: float = setting(2.0, ge=0)  # that a text waits for others when no batch is running
    # CPU threads; a small model is fastest on one, which leaves the other cores free. None: all cores
    threads: int | None = setting(1, ge=1)
    queue: int = setting(1024, ge=1)  # maximum waiting texts; further requests get 503
    texts: int = setting(256, ge=1)  # maximum per request
    characters: int = setting(20_000, ge=1)  # maximum per text
    body_kb: int = setting(1024, ge=1)  # maximum per request
    timeout_s: float = setting(10.0, gt=0)  # for a request to arrive
    connections: int = setting(512, ge=1)
