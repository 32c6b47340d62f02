"""`stage=serve`: answer HTTP requests with a model, from this machine only unless `serve.host` says otherwise."""

import logging
import socket
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from findistill.core.job import Job
from findistill.core.step import load_extra
from findistill.errors import UserError
from findistill.inference.predictors import open_predictor
from findistill.methods.predict.models import spec_of
from findistill.methods.serve.batching import Batcher

log = logging.getLogger(__name__)

BACKLOG = 1024  # connections waiting to be accepted


def run(job: Job) -> None:
    limits = job.config.serve
    serve, make_app = (
        load_extra(f"findistill.methods.serve.{target}", "serve", "stage=serve") for target in ("server:serve", "app:make_app")
    )
    listening = listen(limits.host, limits.port)
    spec = spec_of(limits.model, limits, job.config.trainer, job.store, "serve")
    predictor = open_predictor(replace(spec, threads=limits.threads))

    def answer(texts: Sequence[str]) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = predictor.answer(texts).table.to_pylist()
        return rows

    answer(["Profit rose"])  # warm-up: the first call is slower
    host, port = listening.getsockname()[:2]
    batcher = Batcher(answer, limits.batch_size, limits.wait_ms / 1000, limits.queue)
    log.info("serving %s on http://%s:%d/predict; press Ctrl-C to stop", limits.model, f"[{host}]" if ":" in host else host, port)
    serve(make_app(batcher, limits, limits.model, predictor.labels), listening, limits)
    log.info("stopped: %d texts in %d batches", batcher.texts, batcher.batches)


def listen(host: str, port: int) -> socket.socket:
    """A socket listening at this address. Raises UserError if that fails."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(BACKLOG)  # from here on clients wait instead of being refused
    except OSError as error:
        raise UserError(
            f"serve.host={host} serve.port={port}: cannot listen there ({error.strerror or error}).\n"
            "Use another port: serve.port=0 picks a free one"
        ) from error
    return listening
