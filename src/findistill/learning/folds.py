"""What a teacher gets wrong when it has not seen the answer: k models, each blind to one part of the rows.

A model's errors on the rows it was fitted to are few and say little: it knows those answers by heart. (TinyFinBERT's study
could take FinBERT's errors on PhraseBank's training rows: 382 of 3,876, from a model that was fitted to most of them.)
"""

import logging
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from findistill.errors import UserError
from findistill.learning.fit import Examples, fit, predict
from findistill.runs.files import replacing

if TYPE_CHECKING:
    import pandas as pd

    from findistill.data.labels import LabelSet
    from findistill.settings.schema import Encoder, Trainer

log = logging.getLogger(__name__)

FILE = "out_of_fold.parquet"


def model(folder: Path, fold: int) -> Path:
    """The model that was not fitted to the rows of this fold."""
    return folder / f"without_{fold}" / "model"


def cross_fit(
    encoder: "Encoder",
    trainer: "Trainer",
    labels: "LabelSet",
    rows: "pd.DataFrame",
    held: "pd.DataFrame",
    folds: int,
    folder: Path,
    *,
    seed: int,
    tokens_cache: Path | None = None,
) -> None:
    """Fit `encoder` on all rows but those of one fold, for each fold, and have it predict that fold.

    Leaves `out_of_fold.parquet` (id, text, label, fold, predicted, p_<label>..., in the order of `rows`) and the models.
    Checkpoints are chosen on `held`, the validation rows. Folds keep the labels' shares. A fold whose model is there is
    not fitted again.

    Raises:
        UserError: a label has fewer rows than there are folds.
    """
    import numpy as np
    from sklearn.model_selection import StratifiedKFold

    counts = rows["label"].value_counts()
    if counts.min() < folds:
        raise UserError(
            f"augment.folds={folds}: only {counts.min()} of the {len(rows)} labelled rows are {counts.idxmin()}.\n"
            "Lower it, or name a trained model: augment.teacher=RUN_FOLDER."
        )
    shares = np.zeros((len(rows), len(labels)))
    fold_of = np.zeros(len(rows), int)
    splitter = StratifiedKFold(folds, shuffle=True, random_state=seed)
    for fold, (seen, unseen) in enumerate(splitter.split(rows["id"], rows["label"])):
        fold_of[unseen] = fold
        if not (model(folder, fold) / "config.json").exists():
            log.info("teacher %d of %d: %s rows, %s kept from it", fold + 1, folds, f"{len(seen):,}", f"{len(unseen):,}")
            fit(
                encoder, None, trainer, labels, Examples.from_frame(rows.iloc[seen], labels), Examples.from_frame(held, labels),
                seed=seed, folder=model(folder, fold).parent, loggers=[], tokens_cache=tokens_cache,
            )  # fmt: skip
            for left in model(folder, fold).parent.iterdir():  # what Lightning leaves beside the model
                if left.name != "model":
                    shutil.rmtree(left) if left.is_dir() else left.unlink()
        told = predict(model(folder, fold), rows["text"].iloc[unseen].tolist(), trainer, tokens_cache=tokens_cache)
        shares[unseen] = told.probabilities[:, [told.labels.index(name) for name in labels.names]]
    frame = rows[["id", "text", "label"]].assign(fold=fold_of, predicted=[labels.names[i] for i in shares.argmax(axis=1)])
    for column, name in enumerate(labels.names):
        frame[f"p_{name}"] = shares[:, column]
    with replacing(folder / FILE) as aside:
        frame.to_parquet(aside, index=False)
