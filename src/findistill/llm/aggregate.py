"""Several annotators' votes as one: `majority` over all answers, or Dawid and Skene's model (1979).

Dawid-Skene learns from the disagreements alone how often each annotator confuses which labels, and weighs their votes by
that. It needs three annotators or more to tell who is wrong, and none that copies another.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from findistill.data.labels import LabelSet
from findistill.errors import UserError
from findistill.runs.files import read_json, replacing, write_json

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd


def aggregate(folders: Sequence[Path], names: Sequence[str], labels: LabelSet, how: str, folder: Path) -> None:
    """Write the annotation artifact that stands for several annotators of the same texts.

    `agreement` counts the answers of all of them for the label chosen, out of all their samples; the soft label is the
    share of the answers (`majority`) or the posterior (`dawid_skene`).

    Args:
        folders: the annotators' artifacts.
        names: what each is called, in `samples.jsonl`.
        how: `majority` or `dawid_skene`.
        folder: where the files go.

    Raises:
        UserError: `how` is unknown, or Dawid-Skene has fewer than two annotators.
    """
    import pandas as pd

    frames = [pd.read_parquet(each / "annotations.parquet") for each in folders]
    soft = [f"soft_{name}" for name in labels.names]
    votes = sum((frame[soft].to_numpy() * frame[["n_valid"]].to_numpy()).round().astype(int) for frame in frames)
    if how == "majority":
        counts, shares = votes, votes / votes.sum(axis=1, keepdims=True).clip(min=1)
        # A tie goes to the label of the first annotator whose own it is.
        for frame in reversed(frames):
            counts = counts + 1e-6 * (frame["label"].to_numpy()[:, None] == [list(labels.names)])
    elif how == "dawid_skene":
        shares = counts = _dawid_skene(frames, labels)
    else:
        raise UserError(f"annotate.combine={how}: choose majority or dawid_skene.")
    best = counts.argmax(axis=1)
    combined = frames[0][["id", "text"]].copy()
    valid = sum(frame["n_valid"].to_numpy() for frame in frames)
    combined["label"] = pd.Series([labels.names[column] for column in best], dtype="str").where(pd.Series(valid) > 0, None)
    combined["gold"] = frames[0]["gold"]
    combined["agreement"] = votes[range(len(best)), best]
    combined["n_valid"] = valid
    combined["n_samples"] = sum(frame["n_samples"] for frame in frames)
    combined[soft] = shares
    combined["rationale"] = _rationales(frames, combined["label"])
    combined["confidence"] = pd.concat([frame["confidence"] for frame in frames], axis=1).mean(axis=1)
    _write_samples(folders, names, folder / "samples.jsonl")
    write_json(folder / "summary.json", _summed([read_json(each / "summary.json") for each in folders], len(combined)))
    with replacing(folder / "annotations.parquet") as aside:
        combined.to_parquet(aside, index=False)


def _dawid_skene(frames: "Sequence[pd.DataFrame]", labels: LabelSet) -> "np.ndarray":
    """(texts, labels) posteriors; a text that no annotator labelled has equal shares."""
    import pandas as pd
    from crowdkit.aggregation import DawidSkene

    if len(frames) < 2:
        raise UserError("annotate.combine=dawid_skene needs at least two annotate.members; three or more make it useful.")
    said = [
        pd.DataFrame({"task": frame["id"], "worker": at, "label": frame["label"]}).dropna() for at, frame in enumerate(frames)
    ]
    posterior = DawidSkene(n_iter=100).fit_predict_proba(pd.concat(said))
    return posterior.reindex(index=frames[0]["id"], columns=list(labels.names)).fillna(0.0).to_numpy()


def _rationales(frames: "Sequence[pd.DataFrame]", chosen: "pd.Series[str]") -> list[str | None]:
    """Of the first annotator that gives the chosen label and says why."""
    found: list[str | None] = [None] * len(chosen)
    for frame in reversed(frames):
        for row, (label, own, said) in enumerate(zip(chosen, frame["label"], frame["rationale"], strict=True)):
            if own == label and isinstance(said, str):
                found[row] = said
    return found


def _write_samples(folders: Sequence[Path], names: Sequence[str], path: Path) -> None:
    with replacing(path) as aside, aside.open("w", encoding="utf-8") as lines:
        for folder, name in zip(folders, names, strict=True):
            with (folder / "samples.jsonl").open(encoding="utf-8") as own:
                for line in own:
                    lines.write(json.dumps({"annotator": name, **json.loads(line)}, ensure_ascii=False) + "\n")


def _summed(summaries: Sequence[dict[str, Any]], texts: int) -> dict[str, Any]:
    costs = [each["cost_usd"] for each in summaries]
    numbers = {name: sum(each[name] for each in summaries) for name in summaries[0] if name not in ("texts", "cost_usd")}
    return {"texts": texts, **numbers, "cost_usd": None if None in costs else sum(costs)}
