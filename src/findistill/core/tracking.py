"""Where a job reports: Weights & Biases (offline unless set or logged in), and any of Lightning's loggers."""

import inspect
import logging
import netrc
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from findistill.config.compose import plain
from findistill.config.instantiate import build, resolve
from findistill.core.step import load

if TYPE_CHECKING:
    import pandas as pd
    from pytorch_lightning.loggers import Logger

    from findistill.core.step import Step
    from findistill.core.store import Store
    from findistill.schema import Config

log = logging.getLogger(__name__)

WANDB = "findistill.core.wandb_job:track"  # W&B and Lightning, which other loggers and a plan's estimates do not need
WANDB_REPORT = "findistill.core.wandb_report:send"


@dataclass(frozen=True)
class Attempt:
    """What is known of an attempt at a job besides its configuration.

    Attributes:
        key: that of the job's step.
        sections: what its graph reads of the configuration.
        commit: that of the code, `-dirty` behind it if changed.
        before: `status.json` of the attempt before, whose place this one takes; empty for the first.
    """

    key: str | None = None
    sections: Sequence[str] = ()
    commit: str | None = None
    before: Mapping[str, Any] = field(default_factory=dict)

    def predecessor(self) -> str | None:
        """The attempt before, in words; None for the first."""
        if not self.before:
            return None
        ended = f", ended {self.before['ended']}" if self.before.get("ended") else ""
        error = f": {self.before['error']}" if self.before.get("error") else ""
        return f"started {self.before.get('started')}{ended}, {self.before.get('state')}{error}"


class Tracker:
    """The job's view of its loggers, Lightning's, made when they are first needed.

    Args:
        folder: the run folder, which a logger of files writes into.
        nodes: the `logger` section without W&B: name -> node with the `_target_` of a Lightning logger.
    """

    def __init__(self, folder: Path, nodes: Mapping[str, Any] | None = None) -> None:
        self.folder = folder
        self._nodes = nodes or {}
        self._loggers: list[Logger] = []

    def lightning_loggers(self) -> "list[Logger]":
        """Loggers for `pytorch_lightning.Trainer`."""
        if not self._loggers:
            self._loggers = [self._build(name, node) for name, node in self._nodes.items()]
        return self._loggers

    def _build(self, name: str, node: Mapping[str, Any]) -> "Logger":
        """A logger that writes to `name/` in the run folder, where it writes files; MLflow's run has the job's name."""
        key = f"logger.{name}"
        own = {"save_dir": str(self.folder / name), "run_name": self.folder.name}
        accepts = inspect.signature(resolve(node["_target_"], f"{key}._target_")).parameters
        own = {name: value for name, value in own.items() if name in accepts and name not in node}
        logger: Logger = build(OmegaConf.create(dict(node)), key, **own)
        return logger

    def figures(self, paths: Sequence[Path]) -> None:
        """Send PNG figures, under their file names."""

    def predictions(self, frame: "pd.DataFrame", labels: Sequence[str], panels: "Mapping[str, pd.DataFrame]") -> None:
        """Send the first rows of the test predictions, and figures of them.

        Args:
            frame: as `stats.alignment.prediction_frame` makes it.
            labels: the test set's label names.
            panels: `per_class` (label, precision, recall, f1, support), `reliability` (confidence, accuracy, rows; a row a bin).
        """

    def per_label(self, frames: "Mapping[str, pd.DataFrame]") -> None:
        """Send how well the entities of each type are marked.

        Args:
            frames: by split, `val` and the test sets' prefixes: label, precision, recall, f1, spans (gold ones); a row a type.
        """

    def lineage(self, step: "Step", store: "Store") -> None:
        """Send what the job was made from, and what it left in its folder, as versions of artifacts."""

    def reference(self) -> dict[str, Any] | None:
        """Where the run is, for `status.json`; None where there is none."""
        return None

    def finish_with(self, metrics: Mapping[str, float]) -> None:
        """Log the job's final numbers."""
        if self._nodes:
            # The training's own are curves there, which would get one more point, at step 0.
            final = {name: value for name, value in metrics.items() if not name.startswith(("train/", "val/"))}
            for logger in self.lightning_loggers()[-len(self._nodes) :]:
                logger.log_metrics(final)
                logger.finalize("success")


@contextmanager
def track(config: "Config", folder: Path, loggers: Any = None, attempt: Attempt | None = None) -> Iterator[Tracker]:
    """One tracker for one job, closed in every case; a job that raises ends as failed there too.

    Args:
        config: what a tracker may show, without secrets.
        loggers: the `logger` section to log in with, by default that of `config`.
        attempt: what else is known of the job.
    """
    nodes = plain(config.logger if loggers is None else loggers)
    settings = nodes.pop("wandb", None)
    if settings is None or _disabled(settings["mode"]):
        yield Tracker(folder, nodes)
    else:
        with load(WANDB)(config, folder, nodes, settings, attempt or Attempt(), online=_online(settings["mode"])) as tracker:
            yield tracker


def track_report(config: "Config", folder: Path) -> None:
    """Send the report in a study's folder to its W&B run, where there is such a logger; a report that was sent is not sent again.

    Args:
        config: any job's of the study.
    """
    settings = plain(config.logger).get("wandb")
    if settings is not None and not _disabled(settings["mode"]):
        load(WANDB_REPORT)(config, folder, settings, online=_online(settings["mode"]))


def _disabled(setting: str) -> bool:
    return setting == "auto" and os.environ.get("WANDB_MODE") == "disabled"


def _online(setting: str) -> bool:
    if setting != "auto":
        return setting == "online"
    if mode := os.environ.get("WANDB_MODE"):
        return mode == "online"
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return netrc.netrc().authenticators("api.wandb.ai") is not None
    except (OSError, netrc.NetrcParseError):
        return False
