"""A job's run at W&B: curves, panels, summary, and the artifact versions that are its inputs and outputs."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import wandb
from pytorch_lightning.loggers import Logger, WandbLogger

from findistill import __version__
from findistill.config.fields import without_secrets
from findistill.core import wandb_artifacts, wandb_panels
from findistill.core.hashing import digest
from findistill.core.tracking import Attempt, Tracker
from findistill.core.wandb_run import Connection, Mode, connect, job_id, start

if TYPE_CHECKING:
    from findistill.core.step import Step
    from findistill.core.store import Store

TAG = 64  # characters of a tag, W&B's limit
STEP, EPOCH, RESPONSES = "trainer/global_step", "epoch", "annotation/responses"  # x-axes of the curves


class GuardedLogger(WandbLogger):
    """Lightning's W&B logger, except that its errors do not end training."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(experiment=connection.run)
        self._connection = connection

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        own = None if RESPONSES in metrics else step  # not a training step
        self._connection.attempt(lambda: super(GuardedLogger, self).log_metrics(metrics, own))

    def log_hyperparams(self, params: Any) -> None:
        self._connection.attempt(lambda: super(GuardedLogger, self).log_hyperparams(params))


class WandbTracker(Tracker):
    """A tracker with a W&B run for the job."""

    def __init__(self, folder: Path, nodes: Mapping[str, Any], connection: Connection, settings: Any, study: str) -> None:
        super().__init__(folder, nodes)
        self._connection, self._settings, self._study = connection, settings, study

    def lightning_loggers(self) -> list[Logger]:
        """The loggers, W&B's first, which writes to this job's run and never closes it."""
        if not self._loggers:
            own = [GuardedLogger(self._connection)] if self._connection.run is not None else []
            self._loggers = [*own, *super().lightning_loggers()]
        return self._loggers

    def figures(self, paths: Sequence[Path]) -> None:
        images = {f"figures/{path.stem}": path for path in paths if path.suffix == ".png"}
        self._log(lambda: {name: wandb.Image(str(path)) for name, path in images.items()})

    def predictions(self, frame: pd.DataFrame, labels: Sequence[str], panels: Mapping[str, pd.DataFrame]) -> None:
        rows = frame.head(self._settings["table_rows"])
        rows = rows if self._settings["texts"] else rows.drop(columns="text", errors="ignore")
        self._log(lambda: wandb_panels.predictions(rows, frame, labels) | wandb_panels.scores(panels))

    def per_label(self, frames: Mapping[str, pd.DataFrame]) -> None:
        self._log(lambda: wandb_panels.per_label(frames))

    def _log(self, content: Callable[[], dict[str, Any]]) -> None:
        self._connection.attempt(lambda: self._connection.run.log(content()))

    def finish_with(self, metrics: Mapping[str, float]) -> None:
        """Log the final metrics, also as the run's summary."""
        self._connection.attempt(lambda: self._connection.run.summary.update(dict(metrics)))
        super().finish_with(metrics)

    def lineage(self, step: "Step", store: "Store") -> None:
        """Log inputs and outputs. Artifacts that the job created get small runs of their own, so that the graph is complete."""
        kind, texts = self._settings["artifacts"], self._settings["texts"]
        if kind == "none" or not self._connection.alive:
            return
        versions = wandb_artifacts.Versions(store, with_files=kind == "files", texts=texts)
        run = self._connection.run
        for node in versions.new_steps(step):
            self._connection.attempt(partial(self._record, node, versions))
        card = versions.card(step)
        self._connection.attempt(lambda: run.config.update({"dataset_card": card}) if card else None)
        for version in versions.inputs(step):
            self._connection.attempt(partial(wandb_artifacts.publish, run, version, used=True))
        for version in versions.outputs_of(self.folder):
            self._connection.attempt(partial(wandb_artifacts.publish, run, version, used=False))

    def _record(self, node: "Step", versions: wandb_artifacts.Versions) -> None:
        """Log a run for an artifact of the store, with its inputs and its summary."""
        version = versions.of(node)
        assert version is not None
        mode: Mode = "offline" if self._connection.run.offline else "online"
        run = start(
            self.folder, self._settings, mode, group=self._study, name=f"{node.name}-{node.key[:8]}",
            id=digest([node.name, node.key], 16), job_type=node.name, tags=[node.name],
            config=without_secrets(version.metadata["settings"]), settings={"x_disable_stats": True},
        )  # fmt: skip
        for each in versions.inputs(node):
            wandb_artifacts.publish(run, each, used=True)
        wandb_artifacts.publish(run, version, used=False)
        run.summary.update(version.metadata.get("summary") or {})
        run.finish()

    def reference(self) -> dict[str, Any] | None:
        """`id`, `url` (None offline), and `complete`: False if the run has to be synced again."""
        if (run := self._connection.run) is None:
            return None
        return {"id": run.id, "url": None if run.offline else run.url, "complete": self._connection.complete}


@contextmanager
def track(
    config: Mapping[str, Any], folder: Path, nodes: Mapping[str, Any], settings: Any, attempt: Attempt, *, online: bool
) -> Iterator[WandbTracker]:
    """A tracker whose run is always closed, as failed if the block raises.

    If the server cannot be reached, this and all later runs of the process are offline.
    """
    folder = folder.resolve()
    connection = connect(online, lambda mode: _start_job(config, folder, settings, mode, attempt))
    connection.attempt(lambda: _axes(connection.run, config["trainer"]["monitor"]))
    failed = 1
    try:
        yield WandbTracker(folder, nodes, connection, settings, config["study"])
        failed = 0
    finally:
        connection.finish(failed)


def _start_job(config: Mapping[str, Any], folder: Path, settings: Any, mode: Mode, attempt: Attempt) -> Any:
    before = attempt.predecessor()
    own = {"findistill": {"version": __version__, "git_commit": attempt.commit, "key": attempt.key, "resumed_from": before}}
    notes = [settings["notes"], f"Continues an attempt that {before}" if before else None]
    return start(
        folder, settings, mode, group=config["study"], name=folder.name,
        # `wandb agent` sets the run's id, which ties it to its sweep.
        id=None if os.environ.get("WANDB_SWEEP_ID") else job_id(config["study"], folder.name),
        job_type=config["stage"]["name"], config={**config, **own}, tags=_tags(config, settings, attempt),
        notes="\n".join(each for each in notes if each) or None,
        # After an earlier attempt the curves continue, also with `wandb sync`; otherwise they start afresh.
        resume="allow" if before else None,
        settings={"git_commit": attempt.commit.removesuffix("-dirty") if attempt.commit else None},
    )  # fmt: skip


def _tags(config: Mapping[str, Any], settings: Any, attempt: Attempt) -> list[str]:
    """The stage, the names of the sections that the job reads (data, models, method), and the user's tags."""
    read = [config[section] for section in attempt.sections]
    named = [section.get("name") for section in read if isinstance(section, Mapping)]
    resumed = ["resumed"] if attempt.before else []
    tags = [config["stage"]["name"], *(str(name) for name in named if name), *resumed, *settings["tags"]]
    return list(dict.fromkeys(tag[:TAG] for tag in tags))


def _axes(run: Any, monitor: str) -> None:
    """Plot training over steps, validation over epochs, annotation over responses; summarise the monitored metric by its best."""
    for names, axis in (("train/*", STEP), ("lr-*", STEP), ("val/*", EPOCH), ("annotation/*", RESPONSES)):
        run.define_metric(names, step_metric=axis)
    run.define_metric(monitor, step_metric=EPOCH, summary="min" if monitor.endswith("loss") else "max")
