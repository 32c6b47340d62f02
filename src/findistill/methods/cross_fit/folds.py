"""A teacher's errors on rows that it was not trained on: k models, each trained without one fold of the rows.

A model makes few errors on its own training rows, and they say little: it has memorised the answers. (TinyFinBERT's study
could use FinBERT's errors on PhraseBank's training rows: 382 of 3,876, from a model that was fitted to most of them.)
"""

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import log_softmax
from sklearn.model_selection import StratifiedKFold

from findistill.core.store import Work
from findistill.data.labels import LabelSet
from findistill.data.text_key import text_key
from findistill.errors import UserError
from findistill.inference.predict import predict
from findistill.methods import rows as reading
from findistill.models.config import Encoder
from findistill.training.config import Trainer
from findistill.training.loop import Session
from findistill.training.trainer import Examples, fit

log = logging.getLogger(__name__)

FILE = "out_of_fold.parquet"
LEAST = 1e-6  # lower bound of probabilities before the logarithm


def model(folder: Path, fold: int) -> Path:
    """The model that was not trained on the rows of this fold."""
    return folder / f"without_{fold}" / "model"


def cross_fit(
    encoder: Encoder, trainer: Trainer, labels: LabelSet, rows: pd.DataFrame, validation: pd.DataFrame, folds: int, folder: Path,
    *, seed: int, tokens_cache: Path | None = None,
) -> None:  # fmt: skip
    """For each fold, train `encoder` on all other rows, and predict the fold.

    Writes `out_of_fold.parquet` (id, text, label, fold, predicted, p_<label>..., in the order of `rows`) and the models.
    Checkpoints are chosen on the `validation` rows. Folds are stratified by label. A fold whose model exists
    is not trained again.

    Raises:
        UserError: a label has fewer rows than there are folds.
    """
    counts = rows["label"].value_counts()
    if counts.min() < folds:
        raise UserError(
            f"{folds} folds: only {counts.min()} of the {len(rows)} labelled rows are {counts.idxmin()}.\n"
            "Lower augment.folds, or use a trained model with augment.teacher=RUN_FOLDER; for llm=encoder, lower llm.folds."
        )
    shares = np.zeros((len(rows), len(labels)))
    fold_of = np.zeros(len(rows), int)
    splitter = StratifiedKFold(folds, shuffle=True, random_state=seed)
    for fold, (seen, unseen) in enumerate(splitter.split(rows["id"], rows["label"])):
        fold_of[unseen] = fold
        if not (model(folder, fold) / "config.json").exists():
            log.info("training teacher %d of %d on %s rows, %s held out", fold + 1, folds, f"{len(seen):,}", f"{len(unseen):,}")
            train, chosen_on = (Examples.from_frame(part, labels) for part in (rows.iloc[seen], validation))
            fit(
                encoder, None, labels, train, chosen_on,
                Session(trainer, model(folder, fold).parent, seed, tokens_cache=tokens_cache),
            )  # fmt: skip
            for path in model(folder, fold).parent.iterdir():  # Lightning's files next to the model
                if path.name != "model":
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
        result = predict(model(folder, fold), rows["text"].iloc[unseen].tolist(), trainer, tokens_cache=tokens_cache)
        shares[unseen] = result.probabilities[:, [result.labels.index(name) for name in labels.names]]
    frame = rows[["id", "text", "label"]].assign(fold=fold_of, predicted=[labels.names[i] for i in shares.argmax(axis=1)])
    frame[[f"p_{name}" for name in labels.names]] = shares
    frame.to_parquet(folder / FILE, index=False)


def cross_fit_teacher(work: Work) -> None:
    """Train the teacher once per fold, and write its out-of-fold predictions."""
    data = reading.dataset(work)
    rows, validation = reading.supervision(work, data, reading.test_sets(work))
    reading.check_classes(rows, data, f"cross-fitting {work.config.teacher.name}")
    cross_fit(
        work.config.teacher, work.config.trainer, data.labels, rows, validation, work.step.folds, work.folder,
        seed=work.step.seed, tokens_cache=work.tokens,
    )  # fmt: skip


def predict_texts(work: Work, texts: Sequence[str]) -> np.ndarray:
    """Log-probabilities (n, labels) from the parent `folds`: for a labelled row, of the model that has not seen it; for any
    other text, the mean over the models."""
    folder, names = work.parents["folds"], reading.dataset(work).labels.names
    out_of_fold = pd.read_parquet(folder / FILE)
    row_of = {text_key(text): row for row, text in enumerate(out_of_fold["text"])}
    rows = np.array([row_of.get(text_key(text), -1) for text in texts])
    out = np.log(out_of_fold[[f"p_{name}" for name in names]].to_numpy()[rows].clip(LEAST))
    if new := [text for text, row in zip(texts, rows, strict=True) if row < 0]:
        models = [model(folder, fold) for fold in sorted(out_of_fold["fold"].unique())]
        each = [predict(path, new, work.config.trainer, tokens_cache=work.tokens) for path in models]
        shares = [one.probabilities[:, [one.labels.index(name) for name in names]] for one in each]
        out[rows < 0] = np.mean(np.log(np.clip(shares, LEAST, None)), axis=0)
    return log_softmax(out, axis=1)
