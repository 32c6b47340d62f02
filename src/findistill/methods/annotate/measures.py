"""The quality of one annotator, and the effect of more samples, stricter agreement or early stopping on it.

All of it is computed from one set of responses, without further requests.
"""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from findistill.core.files import read_json
from findistill.llm.votes import needed  # the annotator's own rule for early stopping

ORDERS = 20  # random orders of the samples over which accuracy by their number is averaged
NONE = -1  # no valid answer


def measure(voted: pd.DataFrame, folder: Path, samples: int) -> dict[str, float]:
    """Metrics of an annotation artifact.

    `annotate/kept_share_<t>` is the share of texts with agreement >= t. Where the source has gold labels:
    `annotate/accuracy`, `annotate/accuracy_at_<t>` among those kept, `annotate/accuracy_samples_<m>` of the majority of m
    samples (mean over random orders), and for stopping once t answers agree `annotate/stop_<t>_accuracy` and
    `annotate/stop_<t>_samples` (mean per text). Usage: `annotate/requests`, `annotate/tokens_in`, of which
    `annotate/tokens_cached` in the server's cache, `annotate/tokens_out`, `annotate/seconds` (of the model or the server,
    summed over calls), normalised as `annotate/samples_per_text`, `annotate/tokens_per_text` and
    `annotate/seconds_per_1000_texts`, and, if prices are known, `cost/usd`, `cost/usd_per_1000_texts`,
    `cost/usd_per_correct_label`.

    Args:
        voted: the annotations.
        folder: the artifact, for `samples.jsonl` and `summary.json`.
        samples: the maximum number requested per text.
    """
    summary = read_json(folder / "summary.json")
    texts, spent = len(voted), ("samples", "failed", "requests", "tokens_in", "tokens_out", "seconds")
    metrics = {f"annotate/{name}": summary[name] for name in spent} | {
        "annotate/tokens_cached": summary.get("tokens_cached", 0),  # older artifacts lack it
        "annotate/texts": texts,
        "annotate/coverage": voted["label"].notna().mean(),
        "annotate/valid_share": summary["valid"] / max(summary["samples"], 1),
        "annotate/samples_per_text": summary["samples"] / texts,
        "annotate/tokens_per_text": (summary["tokens_in"] + summary["tokens_out"]) / texts,
        "annotate/seconds_per_1000_texts": 1000 * summary["seconds"] / texts,
    }
    thresholds = range(1, int(voted["n_samples"].max()) + 1)
    metrics |= {f"annotate/kept_share_{threshold}": (voted["agreement"] >= threshold).mean() for threshold in thresholds}
    with_gold = voted[voted["gold"].notna()]
    right = with_gold["label"] == with_gold["gold"]
    if len(with_gold):
        metrics["annotate/accuracy"] = right.mean()
        passing = {threshold: right[with_gold["agreement"] >= threshold] for threshold in thresholds}
        metrics |= {f"annotate/accuracy_at_{threshold}": part.mean() for threshold, part in passing.items() if len(part)}
        answers, gold = _answers(folder / "samples.jsonl", with_gold, samples)
        if answers is not None:
            metrics |= _by_samples(answers, gold) | _by_stop(answers, gold)
    if (cost := summary["cost_usd"]) is not None:
        metrics |= {"cost/usd": cost, "cost/usd_per_1000_texts": 1000 * cost / texts}
        if len(with_gold) and right.any():
            metrics["cost/usd_per_correct_label"] = cost / texts / right.mean()
    return {name: float(value) for name, value in metrics.items()}


def _answers(path: Path, rows: pd.DataFrame, samples: int) -> tuple[np.ndarray | None, np.ndarray]:
    """(texts, samples) codes of the answers and (texts,) codes of the gold labels; no answers unless all were drawn."""
    names = sorted(rows["gold"].unique().tolist() + rows["label"].dropna().unique().tolist())
    code = {name: at for at, name in enumerate(dict.fromkeys(names))}
    gold = rows["gold"].map(code).to_numpy()
    if (rows["n_samples"] != samples).any():  # several annotators, or stopped early
        return None, gold
    row_of = {str(text_id): row for row, text_id in enumerate(rows["id"])}
    answers = np.full((len(rows), samples), NONE)
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
    generator = np.random.default_rng(0)
    orders: Sequence[np.ndarray] = [generator.permuted(answers, axis=1) for _ in range(ORDERS)]
    return {
        f"annotate/accuracy_samples_{count}": float(np.mean([(majority(each[:, :count]) == gold).mean() for each in orders]))
        for count in range(1, answers.shape[1] + 1)
    }


def _by_stop(answers: np.ndarray, gold: np.ndarray) -> dict[str, float]:
    """Early stopping by `findistill.llm.votes.needed`, replayed on complete sets of answers."""
    total = answers.shape[1]
    metrics: dict[str, float] = {}
    for stop_at in range(2, total + 1):
        requested = np.zeros(len(answers), int)
        for row, codes in enumerate(answers.tolist()):
            votes: Counter[int] = Counter()
            while more := needed(votes, total - requested[row], stop_at):
                votes.update(code for code in codes[requested[row] : requested[row] + more] if code != NONE)
                requested[row] += more
        stopped = np.where(np.arange(total) < requested[:, None], answers, NONE)
        metrics[f"annotate/stop_{stop_at}_accuracy"] = float((majority(stopped) == gold).mean())
        metrics[f"annotate/stop_{stop_at}_samples"] = float(requested.mean())
    return metrics
