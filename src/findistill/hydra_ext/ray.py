"""`hydra/launcher=ray`: jobs as Ray tasks, on this machine or on a cluster, with Ray's public API.

hydra-ray-launcher pins cloudpickle below 3, which conflicts with joblib, and pickles the complete configuration.
"""

import logging
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from findistill.core.ray_nodes import places
from findistill.hydra_ext.launching import Workers, report_progress, require
from findistill.hydra_ext.worker import Outcome, Task, run

log = logging.getLogger(__name__)

# Environment variables that the command passes to its jobs on any node. Ray keeps them in memory and out of files.
FORWARDED, FORWARDED_ENDS = ("FINDISTILL_", "HF_", "WANDB_", "OMP_", "MKL_", "TOKENIZERS_"), ("_API_KEY", "_TOKEN")
POLL_S = 5.0


class RayWorkers(Workers):
    """One Ray task per job, never retried by Ray itself.

    Args:
        address: an existing cluster, `auto` or `host:port` of its head; None starts Ray on this machine.
        num_cpus, num_gpus: the needs of one job; as many run in parallel as the cluster has room for.
        resources: custom resources of the cluster that one job needs: name -> amount.
        init: further arguments of `ray.init`, if it is started on this machine.
    """

    def __init__(
        self, address: str | None, num_cpus: float, num_gpus: float, resources: Mapping[str, float], init: Mapping[str, Any]
    ) -> None:
        self.needs = {"CPU": num_cpus, "GPU": num_gpus, **resources}
        self.remote = {"num_cpus": num_cpus, "num_gpus": num_gpus, "resources": dict(resources), "max_retries": 0}
        # `ray.init` cannot set processors or the dashboard of an existing cluster.
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
            "%d jobs for Ray, up to %d in parallel on %d nodes; their output is shown here, with the node's address",
            len(tasks), self._places(), len(self.ray.nodes()),
        )  # fmt: skip
        if not self._places():
            needs = ", ".join(f"{need:g} {name}" for name, need in self.needs.items() if need)
            log.warning("no node of the cluster has %s, as one job needs: the jobs wait for such a node", needs)
        progress = report_progress(lambda: f"{len(running)} jobs submitted to Ray, {len(waiting)} waiting")
        try:
            while running or (waiting and not self.stopping):
                # All at once, so that Ray can scale the cluster; only as many as there is room for if a failure stops the sweep.
                places = max(1, self._places()) if self.config.sweep.on_error == "stop" else len(tasks)
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
            return Outcome(error="Ray killed its process: its node ran out of memory", died=True)
        except lost.RayError as error:
            return Outcome(error=f"its process or its node was lost ({type(error).__name__})", died=True)

    def _places(self) -> int:
        """How many parallel jobs the cluster has room for now."""
        return places(self.ray, self.needs)


def forwarded(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment variables that the command passes to its jobs on every node."""
    return {k: v for k, v in environment.items() if k.startswith(FORWARDED) or k.endswith(FORWARDED_ENDS)}


def run_forwarded(task: Task, environment: Mapping[str, str]) -> Outcome:
    """Run a task in a Ray worker."""
    os.environ.update(environment)
    try:
        return run(task)
    except KeyboardInterrupt:  # Ray would try to pickle it
        sys.exit(1)
