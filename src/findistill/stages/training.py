"""The training step that teacher and student share: fit, sizes and times, model card."""

from typing import TYPE_CHECKING

from findistill.runs.files import write_whole
from findistill.settings.schema import Distill, Encoder

if TYPE_CHECKING:
    from findistill.data import TextData
    from findistill.learning.fit import Examples, Trained
    from findistill.runs.job import Job


def train(
    job: "Job", encoder: Encoder, distill: Distill | None, data: "TextData", rows: "Examples", held: "Examples"
) -> "Trained":
    """Fit `encoder` and leave `model/`, with its card, in the run folder; sizes and times go into the metrics."""
    from findistill.learning.fit import fit

    config = job.config
    trained = fit(
        encoder, distill, config.trainer, data.labels, rows, held,
        seed=config.seed, folder=job.folder, loggers=job.tracker.lightning_loggers(),
        tokens_cache=job.store.root / "tokens",
    )  # fmt: skip
    leave(job, trained, data, len(rows))
    return trained


def leave(job: "Job", trained: "Trained", data: "TextData", texts: int) -> None:
    """Put sizes and times into the metrics, and the card beside the model that learnt from so many texts."""
    from findistill.runs import hardware
    from findistill.stages.card import model_card

    job.metrics |= {
        "time/train_s": trained.train_s,
        "time/cpu_s": trained.cpu_s,
        "model/parameters": trained.parameters,
        "model/mb": trained.megabytes,
        "train/best_epoch": trained.best_epoch,
    }
    best = trained.history[trained.best_epoch - 1]
    job.metrics |= {name: value for name, value in best.items() if name.startswith("val/")}
    write_whole(
        trained.model_dir / "README.md",
        model_card(job.config, data.labels, texts, hardware.describe(), data.card.licence),
    )
