"""Runs at Weights & Biases. Whatever happens to the server or to W&B's own process, the job continues without them."""

import logging
import os
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import wandb

from findistill.core.connection import reachable
from findistill.core.hashing import digest
from findistill.errors import first_line

log = logging.getLogger(__name__)

PATIENCE_S = 15.0  # timeout for the server's first response, for each client call, and for the last upload when a job ends

FLUSH_S = 2.0  # between two writes of W&B's process to the run's file, from which it can be synced later

# Nothing identifies the machine, its user or its code, and nothing is printed into the progress bars. System metrics are sent:
# processors, memory, disk, network, GPUs. `logger.wandb.settings` overrides any of these.
SETTINGS: dict[str, Any] = {
    "silent": True, "console": "off", "host": "", "disable_git": True, "disable_code": True, "x_disable_meta": True,
    "x_disable_machine_info": True, "x_disable_stats": False, "x_save_requirements": False,
    "x_transaction_log_flush_interval": FLUSH_S,
}  # fmt: skip

Mode = Literal["online", "offline"]

_unreachable = False  # for the rest of this process


class Connection:
    """A run, and whether it is still usable: W&B's first error ends its use, with one log line."""

    def __init__(self, run: Any) -> None:
        self.run, self.alive = run, run is not None
        self.complete = False  # everything was sent, or written to be synced

    def attempt(self, action: Callable[[], Any]) -> None:
        """Call the client; a call that takes longer than `PATIENCE_S` is abandoned, and no more are made."""
        if not self.alive:
            return
        errors: list[Exception] = []

        def guarded() -> None:
            try:
                action()
            except Exception as error:
                errors.append(error)

        calling = threading.Thread(target=guarded, daemon=True)
        calling.start()
        calling.join(PATIENCE_S)
        if calling.is_alive():
            self.alive = False
            _go_offline(f"no response within {PATIENCE_S:g} s")
        elif errors:
            self.alive = False
            log.warning("W&B failed; the job continues without it: %s", first_line(errors[0]))

    def finish(self, exit_code: int) -> None:
        """Close the run; anything not uploaded within `PATIENCE_S` is left to `wandb sync`."""
        self.attempt(lambda: self.run.finish(exit_code=exit_code))
        self.complete = self.alive
        if self.run is not None and not self.alive:
            _end_service(self.run)


def connect(online: bool, begin: Callable[[Mode], Any]) -> Connection:
    """A connection to the run that `begin` starts: online if the server responds, else offline; no run if neither works."""
    run = None
    try:
        run = begin("online" if online and _reachable() else "offline")
    except Exception as error:
        if online and not _unreachable:
            _go_offline(first_line(error))
        _teardown()  # W&B's process may be gone, or hold the failed run's id: start a new one
        with suppress(Exception):
            run = begin("offline")
        if run is None:
            log.warning("W&B cannot be used; the job continues without it: %s", first_line(error))
    return Connection(run)


def start(folder: Path, own: Mapping[str, Any], mode: Mode, *, settings: Mapping[str, Any] | None = None, **run: Any) -> Any:
    """Start a run in `folder`.

    Args:
        own: the entry `wandb` of the `logger` section.
        settings: `wandb.Settings`, which the user's override.
        run: further arguments of `wandb.init`.
    """
    # W&B's own error reports: at exit, a process would wait 15 s for a server that does not accept them.
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    values = {**SETTINGS, "init_timeout": PATIENCE_S, **(settings or {}), **own["settings"]}
    own_names = {"project": own["project"], "entity": own["entity"]}
    return wandb.init(**own_names, dir=folder, mode=mode, reinit="create_new", settings=wandb.Settings(**values), **run)


def job_id(study: str, name: str) -> str:
    """The run id of a job's folder or of the report, by its name in the study."""
    return digest([study, name], 16)


def _end_service(run: Any) -> None:
    """End W&B's own process, which would keep this one from exiting while a server does not respond.

    Its data are on disk by then, see `FLUSH_S`; the next run starts a new process. The run's thread that polls it every few
    seconds is ended first, since it would print a traceback otherwise.
    """
    with suppress(Exception):
        checker = run._run_status_checker
        checker.stop()
        checker._stop_checker.stop_soon()
        checker._network_status_thread.join(PATIENCE_S)
    with suppress(Exception):
        wandb.setup()._connection._proc._process.kill()
    _teardown()


def _teardown() -> None:
    """Detach from W&B's process, however it ended: the client raises SystemExit with that process's exit code, -9 if killed."""
    with suppress(Exception, SystemExit):
        wandb.teardown()


def _reachable() -> bool:
    if not _unreachable and not reachable(_server()):
        _go_offline("no connection")
    return not _unreachable


def _server() -> str:
    return os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai"


def _go_offline(reason: str) -> None:
    """Stay offline from now on, in this process and its children, so that an unreachable server delays a sweep only once."""
    global _unreachable
    _unreachable = True
    os.environ["WANDB_MODE"] = "offline"
    log.warning("W&B at %s cannot be reached (%s): runs are written offline", urlsplit(_server()).hostname, reason)
