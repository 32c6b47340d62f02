"""A job's run at Weights & Biases."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd
import wandb
from pytorch_lightning.loggers import Logger, WandbLogger

from findistill.config.compose import plain
from findistill.core.hashing import digest
from findistill.core.tracking import Tracker

if TYPE_CHECKING:
    from findistill.schema import Config


class WandbTracker(Tracker):
    """A tracker with a W&B run of the job's own, which gets `table_rows` predictions."""

    def __init__(self, folder: Path, nodes: Mapping[str, Any], run: Any, table_rows: int) -> None:
        super().__init__(folder, nodes)
        self._run, self._table_rows = run, table_rows

    def lightning_loggers(self) -> list[Logger]:
        """W&B's first, which writes to this job's run and never closes it."""
        if not self._loggers:
            self._loggers = [WandbLogger(experiment=self._run), *super().lightning_loggers()]
        return self._loggers

    def figures(self, paths: Sequence[Path]) -> None:
        self._run.log({f"figures/{path.stem}": wandb.Image(str(path)) for path in paths if path.suffix == ".png"})

    def predictions(self, frame: pd.DataFrame, labels: Sequence[str]) -> None:
        answered = frame[frame["predicted"].notna()]
        gold = [labels.index(label) for label in answered["label"]]
        predicted = [labels.index(label) for label in answered["predicted"]]
        probabilities = answered[[f"p_{label}" for label in labels]].to_numpy()
        self._run.log(
            {
                "test/predictions": wandb.Table(dataframe=frame.head(self._table_rows)),
                "test/confusion": wandb.plot.confusion_matrix(y_true=gold, preds=predicted, class_names=list(labels)),
                "test/precision_recall": wandb.plot.pr_curve(gold, probabilities, labels=list(labels)),
            }
        )

    def finish_with(self, metrics: Mapping[str, float]) -> None:
        """Set them as the run's summary, too."""
        self._run.summary.update(dict(metrics))
        super().finish_with(metrics)


@contextmanager
def track(config: "Config", folder: Path, nodes: Mapping[str, Any], settings: Any, *, online: bool) -> Iterator[WandbTracker]:
    """A tracker whose run is closed in every case, as failed where the block raises."""
    folder = folder.resolve()
    mode: Literal["online", "offline"] = "online" if online else "offline"
    run = wandb.init(
        project=settings["project"],
        group=config.study,
        name=folder.name,
        id=digest([config.study, folder.name], 16),
        job_type=config.stage.name,
        config=plain(config),
        dir=folder,
        mode=mode,
        resume="allow" if mode == "online" else None,
        reinit="create_new",
        # Nothing of the machine or its environment is sent, and nothing is printed into the progress bars.
        settings=wandb.Settings(
            silent=True, console="off", disable_git=True, disable_code=True, x_disable_meta=True, x_disable_stats=True,
            x_save_requirements=False, x_disable_machine_info=True,
        ),
    )  # fmt: skip
    failed = 1
    try:
        yield WandbTracker(folder, nodes, run, settings["table_rows"])
        failed = 0
    finally:
        run.finish(exit_code=failed)
