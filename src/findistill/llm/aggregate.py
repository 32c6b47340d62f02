"""Combine several annotators' votes: weak supervision.

- `majority` over all samples.
- `dawid_skene` (Dawid and Skene 1979) estimates each annotator's confusion matrix from the disagreements alone, and weights
  the votes by it. It needs three annotators or more to identify who is wrong, and none that copies another.
- `weighted_majority` weights each annotator by the log-odds of its accuracy on labelled rows against chance, which is optimal if
  annotators err independently and evenly over the labels (Nitzan and Paroush 1982).
- `stacking` (Wolpert 1992): logistic regression of the labelled rows' labels on all annotators' vote shares. It also learns who
  copies whom, and which label an annotator favours.
"""

import json
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from findistill.core.files import read_json, replacing, write_json
from findistill.core.step import load
from findistill.data.labels import LabelSet
from findistill.errors import UserError

log = logging.getLogger(__name__)

LEAST_ACCURACY = 0.02  # and at most 1 - this: no annotator is wrong, or right, about everything
LEAST_LABELLED = 20
STACKING_PENALTIES = (0.03, 0.1, 0.3, 1.0, 3.0)


def aggregate(
    folders: Sequence[Path], names: Sequence[str], labels: LabelSet, how: str, folder: Path, labelled: Sequence[Path] = ()
) -> None:
    """Write one annotation artifact that combines several annotators of the same texts.

    `agreement` counts the samples of all annotators for the chosen label; the soft label is the share of the valid samples
    (`majority`), the weighted share, or the model's probability.

    Args:
        folders: the annotators' artifacts.
        names: the annotators' names, for `samples.jsonl`.
        how: as `annotate.combine`.
        folder: where the files go.
        labelled: the annotators' artifacts on labelled rows, whose label is `gold`; needed by the `MEASURED` methods.

    Raises:
        UserError: the labelled rows are too few to learn from.
    """
    frames, gold_frames = ([pd.read_parquet(each / "annotations.parquet") for each in some] for some in (folders, labelled))
    soft = [f"soft_{name}" for name in labels.names]
    quality = accuracies(gold_frames) if gold_frames else []
    if quality:
        measured = ", ".join(f"{name} {share:.3f}" for name, share in zip(names, quality, strict=True))
        log.info("accuracy on %d labelled rows: %s", len(gold_frames[0]), measured)
    votes = sum((frame[soft].to_numpy() * frame[["n_valid"]].to_numpy()).round().astype(int) for frame in frames)
    if how == "majority":
        counts, shares = votes, votes / votes.sum(axis=1, keepdims=True).clip(min=1)
    elif how == "weighted_majority":
        shares = counts = weighted_shares(frames, quality, labels)
    elif how == "stacking":
        shares = counts = stacked(frames, gold_frames, labels)
    else:
        shares = counts = _dawid_skene(frames, labels)
    best = _preferred(counts, frames, labels)
    valid = pd.concat([frame["n_valid"] for frame in frames], axis=1).sum(axis=1)
    label = pd.Series([labels.names[column] for column in best], dtype="str").where(valid > 0, None)
    shares = np.where(valid.to_numpy()[:, None] > 0, shares, 0.0)
    combined = frames[0][["id", "text"]].assign(
        label=label, gold=frames[0]["gold"], agreement=votes[range(len(best)), best], n_valid=valid,
        n_samples=sum(frame["n_samples"] for frame in frames),
    )  # fmt: skip
    combined[soft] = shares
    # From the first annotator that gives the label and a rationale.
    rationales = [frame["rationale"].where(frame["label"] == label) for frame in frames]
    combined["rationale"] = pd.concat(rationales, axis=1).bfill(axis=1).iloc[:, 0]
    combined["confidence"] = pd.concat([frame["confidence"] for frame in frames], axis=1).mean(axis=1)
    _write_samples(folders, names, folder / "samples.jsonl")
    summaries = pd.DataFrame([read_json(each / "summary.json") for each in folders], dtype=object)
    costs = summaries["cost_usd"]
    totals = {**summaries.sum(), "texts": len(combined), "cost_usd": costs.sum() if costs.notna().all() else None}
    if quality:
        totals["accuracies"] = dict(zip(names, quality, strict=True))
    write_json(folder / "summary.json", totals)
    with replacing(folder / "annotations.parquet") as aside:
        combined.to_parquet(aside, index=False)


def _preferred(counts: np.ndarray, frames: Sequence[pd.DataFrame], labels: LabelSet) -> np.ndarray:
    """(texts,) the column with the highest count; a tie goes to the first annotator whose label is one of the tied ones."""
    best, tied = counts.argmax(axis=1), counts == counts.max(axis=1, keepdims=True)
    for frame in reversed(frames):
        own = frame["label"].to_numpy()[:, None] == np.array([labels.names])
        wins = (own & tied).any(axis=1)
        best = np.where(wins, own.argmax(axis=1), best)
    return best


def accuracies(gold_frames: Sequence[pd.DataFrame]) -> list[float]:
    """Each annotator's accuracy on those labelled rows that it labels; 0 if it labels none."""
    right = [(frame["label"] == frame["gold"])[frame["label"].notna()] for frame in gold_frames]
    return [float(rows.mean()) if len(rows) else 0.0 for rows in right]


def weighted_shares(frames: Sequence[pd.DataFrame], quality: Sequence[float], labels: LabelSet) -> np.ndarray:
    """(texts, labels): the annotators' vote shares weighted by the log-odds of their accuracy against chance, summing to 1.

    An annotator at or below chance has weight 0; if all are, the weights are equal.
    """
    others = len(labels.names) - 1
    share = np.clip(np.asarray(quality), LEAST_ACCURACY, 1 - LEAST_ACCURACY)
    weights = np.clip(np.log(share * others / (1 - share)), 0, None)
    weights = weights if weights.any() else np.ones_like(weights)
    soft = [f"soft_{name}" for name in labels.names]
    votes = sum(weight * frame[soft].to_numpy() for weight, frame in zip(weights, frames, strict=True))
    # Texts labelled only by annotators of weight 0 get the votes of those.
    votes = np.where(votes.sum(1, keepdims=True) > 0, votes, sum(frame[soft].to_numpy() for frame in frames))
    return votes / votes.sum(axis=1, keepdims=True).clip(min=1e-12)


def stacked(frames: Sequence[pd.DataFrame], known: Sequence[pd.DataFrame], labels: LabelSet) -> np.ndarray:
    """(texts, labels): probabilities of a logistic regression on all annotators' vote shares, fitted to the labelled rows.

    Raises:
        UserError: fewer than `LEAST_LABELLED` labelled rows, or all of one label.
    """
    gold = known[0]["gold"]
    if len(gold) < LEAST_LABELLED or gold.nunique() < 2:
        raise UserError(
            f"annotate.combine=stacking needs {LEAST_LABELLED} or more labelled rows and two or more labels, but there are "
            f"{len(gold)} rows and {gold.nunique()} labels: label more, or use annotate.combine=weighted_majority."
        )
    soft = [f"soft_{name}" for name in labels.names]
    inputs, new = (np.hstack([frame[soft].to_numpy() for frame in some]) for some in (known, frames))
    model = load("findistill.models.linear:fit_logistic")(inputs, gold.to_numpy(), STACKING_PENALTIES)
    out = np.zeros((len(new), len(labels.names)))
    out[:, [labels.names.index(name) for name in model.classes_]] = model.predict_proba(new)
    return out


def _dawid_skene(frames: Sequence[pd.DataFrame], labels: LabelSet) -> np.ndarray:
    """(texts, labels) posteriors; zeros for a text that no annotator labelled."""
    votes = [
        pd.DataFrame({"task": frame["id"], "worker": at, "label": frame["label"]}).dropna() for at, frame in enumerate(frames)
    ]
    posterior = load("crowdkit.aggregation:DawidSkene")(n_iter=100).fit_predict_proba(pd.concat(votes))
    return posterior.reindex(index=frames[0]["id"], columns=list(labels.names)).fillna(0.0).to_numpy()


def _write_samples(folders: Sequence[Path], names: Sequence[str], path: Path) -> None:
    with replacing(path) as aside, aside.open("w", encoding="utf-8") as lines:
        for folder, name in zip(folders, names, strict=True):
            with (folder / "samples.jsonl").open(encoding="utf-8") as own:
                for line in own:
                    lines.write(json.dumps({"annotator": name, **json.loads(line)}, ensure_ascii=False) + "\n")
