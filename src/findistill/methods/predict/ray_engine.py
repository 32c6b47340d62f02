"""engine=ray: actors on the machines of a Ray cluster, each with the model loaded, as many as work and resources allow.

Actors receive the model's files when they are created, so a machine needs nothing but findistill. Windows are submitted in
order and the job's process writes their answers, so the output is that of the local engine.
"""

import logging
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray

from findistill.core.ray_nodes import places
from findistill.errors import UserError, first_line
from findistill.inference.predictors import Answers, Predictor, Spec, open_predictor
from findistill.methods.predict.config import Predict
from findistill.methods.predict.local_engine import Submit
from findistill.models.files import model_files

log = logging.getLogger(__name__)

REACHED_S = 5.0  # timeout for a connection to a cluster's head node
AHEAD = 2  # windows per actor: one running, one queued


class Actor:
    """A predictor on some machine."""

    def __init__(self, spec: Spec, files: dict[str, bytes]) -> None:
        self.folder = tempfile.TemporaryDirectory()
        for name, content in files.items():
            Path(self.folder.name, name).write_bytes(content)
        if files:
            inside = Path(self.folder.name)
            spec = replace(spec, model=str(inside / Path(spec.model).name if spec.model.endswith(".onnx") else inside))
        self.predictor = open_predictor(spec)

    def answer(self, texts: list[str]) -> Answers:
        return self.predictor.answer(texts)


class Actors:
    """A pool of actors; another one is started when all are busy and the cluster has room."""

    def __init__(self, spec: Spec, section: Any, most: int) -> None:
        self.options = {"num_cpus": section.cpus, "num_gpus": section.gpus, "max_restarts": -1, "max_task_retries": -1}
        self.spec = replace(spec, threads=max(1, int(section.cpus)), accelerator="auto" if section.gpus else "cpu")
        self.files = ray.put({path.name: path.read_bytes() for path in model_files(spec.model)})
        self.most = most
        self.waiting: dict[Any, list[Any]] = {}  # actor -> pending answers
        for _ in range(min(section.min_actors, most)):
            self._start()

    def _start(self) -> Any:
        actor = ray.remote(Actor).options(**self.options).remote(self.spec, self.files)
        self.waiting[actor] = []
        return actor

    def submit(self, texts: list[str]) -> Callable[[], Answers]:
        for actor, references in self.waiting.items():
            self.waiting[actor] = ray.wait(references, num_returns=len(references), timeout=0)[1] if references else []
        actor = min(self.waiting, key=lambda each: len(self.waiting[each]))
        if self.waiting[actor] and len(self.waiting) < self.most and self._room():
            actor = self._start()
        reference = actor.answer.remote(texts)
        self.waiting[actor].append(reference)
        return lambda: _get(reference)

    def _room(self) -> bool:
        free = ray.available_resources()
        return free.get("CPU", 0) >= self.options["num_cpus"] and free.get("GPU", 0) >= self.options["num_gpus"]


@contextmanager
def opened(spec: Spec, predictor: Predictor, section: Predict, windows: int) -> Iterator[tuple[Submit, int]]:
    """As `local_engine.opened`.

    Raises:
        UserError: there is no cluster at `predict.ray.address`.
    """
    options = section.ray
    own = not ray.is_initialized()
    if own:
        try:
            check_reachable(options.address or "local")
            ray.init(address=options.address or "local", log_to_driver=False, logging_level=logging.ERROR)
        except (OSError, RuntimeError, ValueError) as error:
            raise UserError(
                f"predict.ray.address={options.address}: no Ray cluster can be reached ({first_line(error)})"
            ) from error
    try:
        room = places(ray, {"CPU": options.cpus, "GPU": options.gpus})
        if room < 1:
            wanted = f"predict.ray.cpus={options.cpus:g} predict.ray.gpus={options.gpus:g}"
            raise UserError(f"{wanted}: no node of the cluster has these")
        most = max(1, min(options.max_actors or room, windows))
        actors = Actors(spec, options, most)
        log.info("Ray: %d to %d actors of %g processors each", len(actors.waiting), most, options.cpus)
        yield actors.submit, AHEAD * most
    finally:
        if own:
            ray.shutdown()


def check_reachable(address: str) -> None:
    """Raise OSError if nothing listens at host:port; Ray itself would retry for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host, int(port)), REACHED_S).close()


def _get(reference: Any) -> Answers:
    try:
        answers: Answers = ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise error.cause if isinstance(error.cause, UserError) else error from None
    except ray.exceptions.RayError as error:
        raise UserError(f"Ray lost an actor and could not restart it: {first_line(error)}") from error
    return answers
