"""Several annotators' votes as one: `majority` over all samples, or Dawid and Skene's model (1979).

Dawid-Skene learns from the disagreements alone how often each annotator confuses which labels, and weighs their votes by
that. It needs three annotators or more to tell who is wrong, and none that copies another.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from crowdkit.aggregation import DawidSkene

from findistill.core.files import read_json, replacing, write_json
from findistill.data.labels import LabelSet


def aggregate(folders: Sequence[Path], names: Sequence[str], labels: LabelSet, how: str, folder: Path) -> None:
    """Write the annotation artifact that stands for several annotators of the same texts.

    `agreement` counts the samples of all of them for the label chosen; the soft label is the share of the valid samples
    (`majority`) or the posterior (`dawid_skene`).

    Args:
        folders: the annotators' artifacts.
        names: what each is called, in `samples.jsonl`.
        how: `majority` or `dawid_skene`.
        folder: where the files go.
    """
    frames = [pd.read_parquet(each / "annotations.parquet") for each in folders]
    soft = [f"soft_{name}" for name in labels.names]
    votes = sum((frame[soft].to_numpy() * frame[["n_valid"]].to_numpy()).round().astype(int) for frame in frames)
    if how == "majority":
        counts, shares = votes, votes / votes.sum(axis=1, keepdims=True).clip(min=1)
        # A tie goes to the label of the first annotator whose own it is.
        for frame in reversed(frames):
            counts = counts + 1e-6 * (frame["label"].to_numpy()[:, None] == [list(labels.names)])
    else:
        shares = counts = _dawid_skene(frames, labels)
    best = counts.argmax(axis=1)
    valid = pd.concat([frame["n_valid"] for frame in frames], axis=1).sum(axis=1)
    label = pd.Series([labels.names[column] for column in best], dtype="str").where(valid > 0, None)
    combined = frames[0][["id", "text"]].assign(
        label=label, gold=frames[0]["gold"], agreement=votes[range(len(best)), best], n_valid=valid,
        n_samples=sum(frame["n_samples"] for frame in frames),
    )  # fmt: skip
    combined[soft] = shares
    # Of the first annotator that gives the label and says why.
    rationales = [frame["rationale"].where(frame["label"] == label) for frame in frames]
    combined["rationale"] = pd.concat(rationales, axis=1).bfill(axis=1).iloc[:, 0]
    combined["confidence"] = pd.concat([frame["confidence"] for frame in frames], axis=1).mean(axis=1)
    _write_samples(folders, names, folder / "samples.jsonl")
    summaries = pd.DataFrame([read_json(each / "summary.json") for each in folders], dtype=object)
    costs = summaries["cost_usd"]
    totals = {**summaries.sum(), "texts": len(combined), "cost_usd": costs.sum() if costs.notna().all() else None}
    write_json(folder / "summary.json", totals)
    with replacing(folder / "annotations.parquet") as aside:
        combined.to_parquet(aside, index=False)


def _dawid_skene(frames: Sequence[pd.DataFrame], labels: LabelSet) -> np.ndarray:
    """(texts, labels) posteriors; zeros for a text that no annotator labelled."""
    votes = [
        pd.DataFrame({"task": frame["id"], "worker": at, "label": frame["label"]}).dropna() for at, frame in enumerate(frames)
    ]
    posterior = DawidSkene(n_iter=100).fit_predict_proba(pd.concat(votes))
    return posterior.reindex(index=frames[0]["id"], columns=list(labels.names)).fillna(0.0).to_numpy()


def _write_samples(folders: Sequence[Path], names: Sequence[str], path: Path) -> None:
    with replacing(path) as aside, aside.open("w", encoding="utf-8") as lines:
        for folder, name in zip(folders, names, strict=True):
            with (folder / "samples.jsonl").open(encoding="utf-8") as own:
                for line in own:
                    lines.write(json.dumps({"annotator": name, **json.loads(line)}, ensure_ascii=False) + "\n")
