"""A job's run at Weights & Biases. Whatever happens to the server or to W&B's own process, the job goes on without them."""

import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

import pandas as pd
import wandb
from pytorch_lightning.loggers import Logger, WandbLogger

from findistill.config.compose import plain
from findistill.core.connection import reachable
from findistill.core.hashing import digest
from findistill.core.tracking import Tracker
from findistill.errors import first_line

if TYPE_CHECKING:
    from findistill.schema import Config

log = logging.getLogger(__name__)

PATIENCE_S = 15.0  # for the first answer of the server, and for the last upload when a job ends

Mode = Literal["online", "offline"]

_unreachable = False  # by this process, from now on


class Connection:
    """The run, and whether it still takes anything: the first error of W&B's ends its use, with one line."""

    def __init__(self, run: Any) -> None:
        self.run, self.alive = run, run is not None

    def attempt(self, action: Callable[[], Any]) -> None:
        if self.alive:
            try:
                action()
            except Exception as error:
                self.alive = False
                log.warning("W&B failed, and the job goes on without it: %s", first_line(error))

    def finish(self, exit_code: int) -> None:
        """Close the run; an upload that takes longer than `PATIENCE_S` is left to `wandb sync`."""
        if self.run is None:
            return
        closing = threading.Thread(target=self.attempt, args=(lambda: self.run.finish(exit_code=exit_code),), daemon=True)
        closing.start()
        closing.join(PATIENCE_S)
        if closing.is_alive():
            _go_offline(f"an upload took more than {PATIENCE_S:g} s")


class GuardedLogger(WandbLogger):
    """Lightning's logger, whose errors do not end a training."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(experiment=connection.run)
        self._connection = connection

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self._connection.attempt(lambda: super(GuardedLogger, self).log_metrics(metrics, step))

    def log_hyperparams(self, params: Any) -> None:
        self._connection.attempt(lambda: super(GuardedLogger, self).log_hyperparams(params))


class WandbTracker(Tracker):
    """A tracker with a W&B run of the job's own, which gets `table_rows` predictions."""

    def __init__(self, folder: Path, nodes: Mapping[str, Any], connection: Connection, table_rows: int) -> None:
        super().__init__(folder, nodes)
        self._connection, self._table_rows = connection, table_rows

    def lightning_loggers(self) -> list[Logger]:
        """W&B's first, which writes to this job's run and never closes it."""
        if not self._loggers:
            own = [GuardedLogger(self._connection)] if self._connection.run is not None else []
            self._loggers = [*own, *super().lightning_loggers()]
        return self._loggers

    def figures(self, paths: Sequence[Path]) -> None:
        images = {f"figures/{path.stem}": path for path in paths if path.suffix == ".png"}
        self._log(lambda: {name: wandb.Image(str(path)) for name, path in images.items()})

    def predictions(self, frame: pd.DataFrame, labels: Sequence[str]) -> None:
        answered = frame[frame["predicted"].notna()]
        gold = [labels.index(label) for label in answered["label"]]
        predicted = [labels.index(label) for label in answered["predicted"]]
        probabilities = answered[[f"p_{label}" for label in labels]].to_numpy()
        self._log(
            lambda: {
                "test/predictions": wandb.Table(dataframe=frame.head(self._table_rows)),
                "test/confusion": wandb.plot.confusion_matrix(y_true=gold, preds=predicted, class_names=list(labels)),
                "test/precision_recall": wandb.plot.pr_curve(gold, probabilities, labels=list(labels)),
            }
        )

    def _log(self, content: Callable[[], dict[str, Any]]) -> None:
        self._connection.attempt(lambda: self._connection.run.log(content()))

    def finish_with(self, metrics: Mapping[str, float]) -> None:
        """Set them as the run's summary, too."""
        self._connection.attempt(lambda: self._connection.run.summary.update(dict(metrics)))
        super().finish_with(metrics)


@contextmanager
def track(config: "Config", folder: Path, nodes: Mapping[str, Any], settings: Any, *, online: bool) -> Iterator[WandbTracker]:
    """A tracker whose run is closed in every case, as failed where the block raises.

    Where the server cannot be reached, this and the further runs of the process are offline.
    """
    folder = folder.resolve()
    run = None
    try:
        run = _start(config, folder, settings, "online" if online and _reachable() else "offline")
    except Exception as error:
        if online and not _unreachable:
            _go_offline(first_line(error))
        # W&B's process may be gone, or hold the failed run's id: another one. The old one's end may fail, too.
        with suppress(Exception):
            wandb.teardown()
        with suppress(Exception):
            run = _start(config, folder, settings, "offline")
        if run is None:
            log.warning("W&B cannot be used, and the job goes on without it: %s", first_line(error))
    connection, failed = Connection(run), 1
    try:
        yield WandbTracker(folder, nodes, connection, settings["table_rows"])
        failed = 0
    finally:
        connection.finish(failed)
        if _unreachable and run is not None:
            log.info("wandb sync %s", Path(run.dir).parent)


def _start(config: "Config", folder: Path, settings: Any, mode: Mode) -> Any:
    # W&B's reports on itself: a process would wait 15 s at its end for a server that does not take them.
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    return wandb.init(
        project=settings["project"],
        group=config.study,
        name=folder.name,
        # `wandb agent` has given the run an id, by which it belongs to its sweep.
        id=None if os.environ.get("WANDB_SWEEP_ID") else digest([config.study, folder.name], 16),
        job_type=config.stage.name,
        config=plain(config),
        dir=folder,
        mode=mode,
        resume="allow" if mode == "online" else None,
        reinit="create_new",
        # Nothing of the machine or its environment is sent, and nothing is printed into the progress bars.
        settings=wandb.Settings(
            silent=True, console="off", disable_git=True, disable_code=True, x_disable_meta=True, x_disable_stats=True,
            x_save_requirements=False, x_disable_machine_info=True, init_timeout=PATIENCE_S,
        ),
    )  # fmt: skip


def _reachable() -> bool:
    if not _unreachable and not reachable(os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai"):
        _go_offline("no connection")
    return not _unreachable


def _go_offline(reason: str) -> None:
    """For the rest of a sweep too, in this process and in those that it starts: one server is waited for once."""
    global _unreachable
    _unreachable = True
    os.environ["WANDB_MODE"] = "offline"
    server = os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai"
    log.warning("W&B at %s cannot be reached (%s): runs are written offline", urlsplit(server).hostname, reason)
