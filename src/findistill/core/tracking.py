"""Trackers of jobs: Weights & Biases (offline unless set to online or logged in), and any of Lightning's loggers."""

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

WANDB = "findistill.core.wandb_job:track"  # loaded on demand: it imports W&B and Lightning
WANDB_REPORT = "findistill.core.wandb_report:send"


@dataclass(frozen=True)
class Attempt:
    """Metadata of an attempt at a job, besides its configuration.

    Attributes:
        key: the key of the job's step.
        sections: the sections of the configuration that its graph reads.
        commit: the code's commit, with `-dirty` appended if it has changes.
        before: `status.json` of the previous attempt, which this one replaces; empty for the first.
    """

    key: str | None = None
    sections: Sequence[str] = ()
    commit: str | None = None
    before: Mapping[str, Any] = field(default_factory=dict)

    def predecessor(self) -> str | None:
        """The previous attempt, in words; None for the first."""
        if not self.before:
            return None
        ended = f", ended {self.before['ended']}" if self.before.get("ended") else ""
        error = f": {self.before['error']}" if self.before.get("error") else ""
        return f"started {self.before.get('started')}{ended}, {self.before.get('state')}{error}"


class Tracker:
    """The loggers of a job: Lightning's, created when first needed.

    Args:
        folder: the run folder, for loggers that write files.
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
        """A logger; its files, if any, go to `name/` in the run folder, and MLflow's run is named after the job."""
        key = f"logger.{name}"
        own = {"save_dir": str(self.folder / name), "run_name": self.folder.name}
        accepts = inspect.signature(resolve(node["_target_"], f"{key}._target_")).parameters
        own = {name: value for name, value in own.items() if name in accepts and name not in node}
        logger: Logger = build(OmegaConf.create(dict(node)), key, **own)
        return logger

    def figures(self, paths: Sequence[Path]) -> None:
        """Log PNG figures, under their file names."""

    def predictions(self, frame: "pd.DataFrame", labels: Sequence[str], panels: "Mapping[str, pd.DataFrame]") -> None:
        """Log the first rows of the test predictions as a table, and figures of all of them.

        Args:
            frame: from `stats.alignment.prediction_frame`.
            labels: the test set's label names.
            panels: `per_class` (label, precision, recall, f1, support), `reliability` (per bin: confidence, accuracy, rows).
        """

    def per_label(self, frames: "Mapping[str, pd.DataFrame]") -> None:
        """Log the scores of each entity type.

        Args:
            frames: by split (`val` and the test sets' prefixes): label, precision, recall, f1, spans (gold); one row per type.
        """

    def lineage(self, step: "Step", store: "Store") -> None:
        """Log the job's inputs and its outputs in the run folder as artifact versions."""

    def reference(self) -> dict[str, Any] | None:
        """The id and address of the tracker's run, for `status.json`; None if there is none."""
        return None

    def finish_with(self, metrics: Mapping[str, float]) -> None:
        """Log the job's final numbers."""
        if self._nodes:
            # Training and validation metrics are curves there, which would get an extra point at step 0.
            final = {name: value for name, value in metrics.items() if not name.startswith(("train/", "val/"))}
            for logger in self.lightning_loggers()[-len(self._nodes) :]:
                logger.log_metrics(final)
                logger.finalize("success")


@contextmanager
def track(config: Mapping[str, Any], folder: Path, loggers: Any, attempt: Attempt) -> Iterator[Tracker]:
    """A tracker for one job, always closed; a job that raises is marked as failed there, too.

    Args:
        config: the resolved configuration that a tracker may show, without secrets.
        loggers: the `logger` section with secrets, to log in with.
        attempt: other metadata of the job.
    """
    nodes = plain(loggers)
    settings = nodes.pop("wandb", None)
    if settings is None or _disabled(settings["mode"]):
        yield Tracker(folder, nodes)
    else:
        with load(WANDB)(config, folder, nodes, settings, attempt, online=_online(settings["mode"])) as tracker:
            yield tracker


def track_report(config: "Config", folder: Path) -> None:
    """Send the report in a study's folder to the study's W&B run, if that logger is configured, and only once.

    Args:
        config: the configuration of any job of the study.
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
    return not netrc_passwords().keys().isdisjoint({"api.wandb.ai", "default"})


def netrc_passwords() -> dict[str, str]:
    """Host -> password in ~/.netrc, where `wandb login` stores its key; empty if it is missing or cannot be parsed."""
    try:
        return {host: password for host, (_, _, password) in netrc.netrc().hosts.items()}
    except (OSError, netrc.NetrcParseError):
        return {}
