"""Runs at Weights & Biases. Whatever happens to the server or to W&B's own process, the job goes on without them."""

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

PATIENCE_S = 15.0  # for the first answer of the server, for each call of the client's, and for the last upload when a job ends

FLUSH_S = 2.0  # between two writes of W&B's process to the run's file, which can be sent later

# Nothing names the machine, its user or its code, and nothing is printed into the progress bars. Its load is sent: processors,
# memory, disk, network, GPUs. `logger.wandb.settings` replaces any of these.
SETTINGS: dict[str, Any] = {
    "silent": True, "console": "off", "host": "", "disable_git": True, "disable_code": True, "x_disable_meta": True,
    "x_disable_machine_info": True, "x_disable_stats": False, "x_save_requirements": False,
    "x_transaction_log_flush_interval": FLUSH_S,
}  # fmt: skip

Mode = Literal["online", "offline"]

_unreachable = False  # by this process, from now on


class Connection:
    """The run, and whether it still takes anything: the first error of W&B's ends its use, with one line."""

    def __init__(self, run: Any) -> None:
        self.run, self.alive = run, run is not None
        self.complete = False  # all was taken: sent, or written to be sent

    def attempt(self, action: Callable[[], Any]) -> None:
        """Call the client; a call that takes longer than `PATIENCE_S` is left to itself, and there are no more of them."""
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
            _go_offline(f"it did not answer within {PATIENCE_S:g} s")
        elif errors:
            self.alive = False
            log.warning("W&B failed, and the job goes on without it: %s", first_line(errors[0]))

    def finish(self, exit_code: int) -> None:
        """Close the run; what could not be uploaded within `PATIENCE_S` is left to `wandb sync`."""
        self.attempt(lambda: self.run.finish(exit_code=exit_code))
        self.complete = self.alive
        if self.run is not None and not self.alive:
            _end_service(self.run)


def connect(online: bool, begin: Callable[[Mode], Any]) -> Connection:
    """A run that `begin` starts in a mode: online where the server answers, else offline; without a run where neither works."""
    run = None
    try:
        run = begin("online" if online and _reachable() else "offline")
    except Exception as error:
        if online and not _unreachable:
            _go_offline(first_line(error))
        _teardown()  # W&B's process may be gone, or hold the failed run's id: another one
        with suppress(Exception):
            run = begin("offline")
        if run is None:
            log.warning("W&B cannot be used, and the job goes on without it: %s", first_line(error))
    return Connection(run)


def start(folder: Path, own: Mapping[str, Any], mode: Mode, *, settings: Mapping[str, Any] | None = None, **run: Any) -> Any:
    """A run in `folder`.

    Args:
        own: the entry `wandb` of the `logger` section.
        settings: of `wandb.Settings`, which the user's replace.
        run: further arguments of `wandb.init`.
    """
    # W&B's reports on itself: a process would wait 15 s at its end for a server that does not take them.
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    values = {**SETTINGS, "init_timeout": PATIENCE_S, **(settings or {}), **own["settings"]}
    own_names = {"project": own["project"], "entity": own["entity"]}
    return wandb.init(**own_names, dir=folder, mode=mode, reinit="create_new", settings=wandb.Settings(**values), **run)


def job_id(study: str, name: str) -> str:
    """The id of the run of whatever has such a name in a study: a job's folder, or the report."""
    return digest([study, name], 16)


def _end_service(run: Any) -> None:
    """End W&B's own process, which would keep this one from ending for as long as a server does not answer.

    What it was given is in its files by then, see `FLUSH_S`; the next run starts another one. The run's thread that asks it every
    few seconds for news is ended first: it would print a traceback when there is nobody to ask.
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
    """Let go of W&B's process, whichever way it ended: the client exits with the code of that process, -9 of a killed one."""
    with suppress(Exception, SystemExit):
        wandb.teardown()


def _reachable() -> bool:
    if not _unreachable and not reachable(_server()):
        _go_offline("no connection")
    return not _unreachable


def _server() -> str:
    return os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai"


def _go_offline(reason: str) -> None:
    """For the rest of a sweep too, in this process and in those that it starts: one server is waited for once."""
    global _unreachable
    _unreachable = True
    os.environ["WANDB_MODE"] = "offline"
    log.warning("W&B at %s cannot be reached (%s): runs are written offline", urlsplit(_server()).hostname, reason)
