"""`hydra/launcher=ray`: jobs as tasks of Ray, on this machine or on a cluster, by Ray's public API.

hydra-ray-launcher pins cloudpickle below 3, which joblib refuses, and pickles the whole configuration.
"""

import logging
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from findistill.hydra_ext.launching import Workers, report_progress, require
from findistill.hydra_ext.worker import Outcome, Task, run

log = logging.getLogger(__name__)

# Variables of the command that its jobs get, wherever they run. Ray keeps them in memory, no file has them.
FORWARDED, FORWARDED_ENDS = ("FINDISTILL_", "HF_", "WANDB_", "OMP_", "MKL_", "TOKENIZERS_"), ("_API_KEY", "_TOKEN")
POLL_S = 5.0


class RayWorkers(Workers):
    """One Ray task a job, never repeated by Ray itself.

    Args:
        address: of an existing cluster, `auto` or `host:port` of its head; None starts Ray on this machine.
        num_cpus, num_gpus: what one job needs; as many run side by side as the cluster has place for.
        resources: further resources of the cluster that one job needs: name -> amount.
        init: further arguments of `ray.init`.
    """

    def __init__(
        self, address: str | None, num_cpus: float, num_gpus: float, resources: Mapping[str, float], init: Mapping[str, Any]
    ) -> None:
        self.needs = {"CPU": num_cpus, "GPU": num_gpus, **resources}
        self.remote = {"num_cpus": num_cpus, "num_gpus": num_gpus, "resources": dict(resources), "max_retries": 0}
        # An existing cluster has the processors and the dashboard it was started with.
        here = {} if address else {"include_dashboard": False, **{k: v for k, v in init.items() if v is not None}}
        self.init = {"address": address, "log_to_driver": True, **here}

    def setup(self, **context: Any) -> None:
        self.ray = require("ray", "ray", launcher="ray")
        super().setup(**context)

    def outcomes(self, tasks: Sequence[Task]) -> Iterator[tuple[int, Outcome]]:
        begun_here = not self.ray.is_initialized()
        if begun_here:
            self.ray.init(**self.init, logging_level=logging.WARNING)
        function = self.ray.remote(run_forwarded).options(**self.remote)
        environment, waiting = forwarded(os.environ), [*tasks]
        running: dict[Any, int] = {}
        log.info(
            "%d jobs for Ray, %d side by side on %d nodes; what they print is shown here, with the node's address",
            len(tasks), self._places(), len(self.ray.nodes()),
        )  # fmt: skip
        progress = report_progress(lambda: f"{len(running)} jobs are with Ray, {len(waiting)} not yet")
        try:
            while running or (waiting and not self.stopping):
                # All at once, for Ray to scale the cluster by; no more than have place where one failure is to stop the rest.
                places = self._places() if self.config.sweep.on_error == "stop" else len(tasks)
                while waiting and not self.stopping and len(running) < places:
                    task = waiting.pop(0)
                    running[function.remote(task, environment)] = task.number
                ended, _ = self.ray.wait(list(running), timeout=POLL_S)
                for each in ended:
                    yield running.pop(each), self._received(each)
                next(progress)
        finally:
            for each in running:
                self.ray.cancel(each, force=False)
            if begun_here:
                self.ray.shutdown()

    def _received(self, reference: Any) -> Outcome:
        lost = self.ray.exceptions
        try:
            outcome: Outcome = self.ray.get(reference)
            return outcome
        except lost.OutOfMemoryError:
            return Outcome(error="Ray ended its process: the memory of its node was full", died=True)
        except lost.RayError as error:
            return Outcome(error=f"its process or its node was lost ({type(error).__name__})", died=True)

    def _places(self) -> int:
        """How many jobs the cluster has place for now, at least 1."""
        has = self.ray.cluster_resources()
        return max(1, int(min((has.get(name, 0) / need for name, need in self.needs.items() if need), default=1)))


def forwarded(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables of the command's environment that its jobs get on every node."""
    return {k: v for k, v in environment.items() if k.startswith(FORWARDED) or k.endswith(FORWARDED_ENDS)}


def run_forwarded(task: Task, environment: Mapping[str, str]) -> Outcome:
    """Run a task in a worker of Ray."""
    os.environ.update(environment)
    try:
        return run(task)
    except KeyboardInterrupt:  # Ray would try to pickle it
        sys.exit(1)
