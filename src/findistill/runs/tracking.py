"""Where a job reports: Weights & Biases (offline unless told or logged in), CSV, or nowhere."""

import logging
import netrc
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from findistill.runs.store import digest
from findistill.settings.compose import plain
from findistill.settings.schema import Config

if TYPE_CHECKING:
    import pandas as pd
    from pytorch_lightning.loggers import Logger as LightningLogger

log = logging.getLogger(__name__)


class Tracker:
    """The job's view of its tracker. With `logger=none` or `csv` only the run folder is written."""

    def __init__(self, folder: Path, logger: str, run: Any = None, table_rows: int = 200) -> None:
        self.folder = folder
        self._logger = logger
        self._run = run
        self._table_rows = table_rows

    def lightning_loggers(self) -> "list[LightningLogger]":
        """Loggers for `pytorch_lightning.Trainer`: they write to this job's run and never close it."""
        if self._run is not None:
            from pytorch_lightning.loggers import WandbLogger

            return [WandbLogger(experiment=self._run)]
        if self._logger == "csv":
            from pytorch_lightning.loggers import CSVLogger

            return [CSVLogger(self.folder, name="", version="csv")]
        return []

    def figures(self, paths: Sequence[Path]) -> None:
        """Send PNG figures, under their file names."""
        if self._run is not None:
            import wandb

            self._run.log({f"figures/{path.stem}": wandb.Image(str(path)) for path in paths if path.suffix == ".png"})

    def predictions(self, frame: "pd.DataFrame", labels: Sequence[str]) -> None:
        """Send the first rows of the test predictions, the confusion matrix and the precision-recall curves."""
        if self._run is None:
            return
        import wandb

        known = frame[frame["predicted"].notna()]
        gold = [labels.index(label) for label in known["label"]]
        predicted = [labels.index(label) for label in known["predicted"]]
        probabilities = known[[f"p_{label}" for label in labels]].to_numpy()
        self._run.log(
            {
                "test/predictions": wandb.Table(dataframe=frame.head(self._table_rows)),
                "test/confusion": wandb.plot.confusion_matrix(y_true=gold, preds=predicted, class_names=list(labels)),
                "test/precision_recall": wandb.plot.pr_curve(gold, probabilities, labels=list(labels)),
            }
        )

    def finish_with(self, metrics: Mapping[str, float]) -> None:
        """Set the job's final numbers as the run's summary."""
        if self._run is not None:
            self._run.summary.update(dict(metrics))


@contextmanager
def track(config: Config, folder: Path) -> Iterator[Tracker]:
    """One tracker for one job, closed in every case; a job that raises ends as failed there too."""
    if config.logger.name != "wandb":
        yield Tracker(folder, config.logger.name)
        return
    import wandb

    mode: Literal["online", "offline"] = "online" if _online(config.logger.mode) else "offline"
    folder = folder.resolve()
    run = wandb.init(
        project=config.logger.project,
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
        yield Tracker(folder, "wandb", run, config.logger.table_rows)
        failed = 0
    finally:
        run.finish(exit_code=failed)


def _online(setting: str) -> bool:
    if setting != "auto":
        return setting == "online"
    if told := os.environ.get("WANDB_MODE"):
        return told == "online"
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return netrc.netrc().authenticators("api.wandb.ai") is not None
    except (OSError, netrc.NetrcParseError):
        return False
