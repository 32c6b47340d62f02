"""How good one annotator is, and what more samples, stricter agreement or an early stop would change.

All of it is read from one set of answers: nothing is asked again.
"""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from findistill.llm.votes import needed  # early stopping is replayed by the annotator's own rule
from findistill.runs.files import read_json

ORDERS = 20  # orders of the samples over which accuracy against their number is averaged
NONE = -1  # no valid answer


def measure(voted: pd.DataFrame, folder: Path, samples: int) -> dict[str, float]:
    """Metrics of an annotation artifact.

    `annotate/kept_share_<t>` is the share of texts with agreement >= t. Where the source has gold labels:
    `annotate/accuracy`, `annotate/accuracy_at_<t>` among the kept, `annotate/accuracy_samples_<m>` of the majority of m
    samples (expected over the order in which they were drawn), and for stopping once t answers agree
    `annotate/stop_<t>_accuracy` and `annotate/stop_<t>_samples` (mean a text). What it took: `annotate/requests`,
    `annotate/tokens_in`, `annotate/tokens_out`, `annotate/seconds` (of the model or the server, summed over calls), the
    same as `annotate/samples_per_text`, `annotate/tokens_per_text` and `annotate/seconds_per_1000_texts`, and, where
    prices are known, `cost/usd`, `cost/usd_per_1000_texts`, `cost/usd_per_correct_label`.

    Args:
        voted: the annotations.
        folder: the artifact, for `samples.jsonl` and `summary.json`.
        samples: how many were asked of each text at most.
    """
    summary = read_json(folder / "summary.json")
    found = {
        "annotate/texts": float(len(voted)),
        "annotate/coverage": voted["label"].notna().mean(),
        "annotate/valid_share": summary["valid"] / max(summary["samples"], 1),
        **{f"annotate/{name}": summary[name] for name in ("samples", "failed", "requests", "tokens_in", "tokens_out", "seconds")},
    }
    found |= {
        "annotate/samples_per_text": summary["samples"] / len(voted),
        "annotate/tokens_per_text": (summary["tokens_in"] + summary["tokens_out"]) / len(voted),
        "annotate/seconds_per_1000_texts": 1000 * summary["seconds"] / len(voted),
    }
    thresholds = range(1, int(voted["n_samples"].max()) + 1)
    for threshold in thresholds:
        found[f"annotate/kept_share_{threshold}"] = (voted["agreement"] >= threshold).mean()
    known = voted[voted["gold"].notna()]
    right = known["label"] == known["gold"]
    if len(known):
        found["annotate/accuracy"] = right.mean()
        for threshold in thresholds:
            if (kept := known["agreement"] >= threshold).any():
                found[f"annotate/accuracy_at_{threshold}"] = right[kept].mean()
        answers, gold = _answers(folder / "samples.jsonl", known, samples)
        if answers is not None:
            found |= _by_samples(answers, gold) | _by_stop(answers, gold)
    if summary["cost_usd"] is not None:
        found["cost/usd"] = summary["cost_usd"]
        found["cost/usd_per_1000_texts"] = 1000 * summary["cost_usd"] / len(voted)
        if len(known) and right.any():
            found["cost/usd_per_correct_label"] = summary["cost_usd"] / len(voted) / right.mean()
    return {name: float(value) for name, value in found.items()}


def _answers(path: Path, known: pd.DataFrame, samples: int) -> tuple[np.ndarray | None, np.ndarray]:
    """(texts, samples) codes of the answers and (texts,) codes of the gold labels; no answers where not all were drawn."""
    names = sorted(known["gold"].unique().tolist() + known["label"].dropna().unique().tolist())
    code = {name: at for at, name in enumerate(dict.fromkeys(names))}
    gold = known["gold"].map(code).to_numpy()
    if (known["n_samples"] != samples).any():  # several annotators, or stopped early
        return None, gold
    row_of = {str(text_id): row for row, text_id in enumerate(known["id"])}
    answers = np.full((len(known), samples), NONE)
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            answer = json.loads(line)
            if "annotator" in answer:
                return None, gold
            row = row_of.get(answer["id"])
            if row is not None and answer["label"] is not None:
                answers[row, answer["sample"]] = code.setdefault(answer["label"], len(code))
    return answers, gold


def majority(answers: np.ndarray) -> np.ndarray:
    """(texts,) the most frequent code of each row of (texts, samples); a tie goes to the one that was drawn first."""
    labels = int(answers.max(initial=0)) + 1
    is_label = answers[:, :, None] == np.arange(labels)
    first = np.where(is_label.any(axis=1), is_label.argmax(axis=1), answers.shape[1])
    best = (is_label.sum(axis=1) * (answers.shape[1] + 1) - first).argmax(axis=1)
    return np.where((answers == NONE).all(axis=1), NONE, best)


def _by_samples(answers: np.ndarray, gold: np.ndarray) -> dict[str, float]:
    draw = np.random.default_rng(0)
    orders: Sequence[np.ndarray] = [draw.permuted(answers, axis=1) for _ in range(ORDERS)]
    return {
        f"annotate/accuracy_samples_{count}": float(np.mean([(majority(each[:, :count]) == gold).mean() for each in orders]))
        for count in range(1, answers.shape[1] + 1)
    }


def _by_stop(answers: np.ndarray, gold: np.ndarray) -> dict[str, float]:
    """Stopping as `findistill.llm.votes.needed` does, replayed on answers that were all drawn."""
    total = answers.shape[1]
    found: dict[str, float] = {}
    for stop_at in range(2, total + 1):
        asked = np.zeros(len(answers), int)
        for row, codes in enumerate(answers.tolist()):
            votes: Counter[int] = Counter()
            while more := needed(votes, total - asked[row], stop_at):
                votes.update(code for code in codes[asked[row] : asked[row] + more] if code != NONE)
                asked[row] += more
        stopped = np.where(np.arange(total) < asked[:, None], answers, NONE)
        found[f"annotate/stop_{stop_at}_accuracy"] = float((majority(stopped) == gold).mean())
        found[f"annotate/stop_{stop_at}_samples"] = float(asked.mean())
    return found
