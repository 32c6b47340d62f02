"""The quality of an LLM's mentions, and what they cost; all from one set of responses."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from findistill.core.files import read_json
from findistill.data.spans import Span, from_cell
from findistill.llm.span_votes import SpanVotes
from findistill.stats.spans import evaluate


def spending(voted: pd.DataFrame, folder: Path) -> dict[str, float]:
    """What the responses were like, under `annotate/`, and what they took, under `cost/` where prices are known.

    `coverage`: share of the texts with a readable response; `valid_share`: of the responses that are readable;
    `mentions_per_text`; `without_mention`: share of the texts that name none; `agreement`: mean share of the readable responses
    that a kept span is in; and the counts of `llm.extract.Tally`.
    """
    summary = read_json(folder / "summary.json")
    texts = len(voted)
    spans = [(each["votes"], n) for cell, n in zip(voted["spans"], voted["n_valid"], strict=True) if n for each in cell]
    readable = voted[voted["n_valid"] > 0]
    further = ("texts", "cost_usd", "valid")  # under other names
    metrics: dict[str, Any] = {f"annotate/{name}": value for name, value in summary.items() if name not in further}
    metrics |= {
        "annotate/texts": texts,
        "annotate/coverage": len(readable) / texts,
        "annotate/valid_share": summary["valid"] / max(summary["samples"], 1),
        "annotate/mentions_per_text": len(spans) / max(len(readable), 1),
        "annotate/without_mention": float((readable["spans"].map(len) == 0).mean()) if len(readable) else 0.0,
        "annotate/agreement": sum(votes / n for votes, n in spans) / max(len(spans), 1),
        "annotate/seconds_per_1000_texts": 1000 * summary["seconds"] / texts,
    }
    if summary["tokens"]:
        metrics["annotate/aligned_share"] = summary["aligned"] / summary["tokens"]
    if (cost := summary["cost_usd"]) is not None:
        metrics |= {"cost/usd": cost, "cost/usd_per_1000_texts": 1000 * cost / texts}
    return {name: float(value) for name, value in metrics.items()}


def quality(voted: pd.DataFrame, types: Sequence[str], prefix: str, resamples: int) -> dict[str, float]:
    """Precision, recall and F1 against the rows' own spans; nothing where no row has any.

    A text without a readable response names nothing. `f1_votes_<t>`, `precision_votes_<t>`, `recall_votes_<t>`: of the spans
    that t of the samples or more contain, overlaps resolved.
    """
    rows = voted[voted["gold"].notna()]
    if rows.empty:
        return {}
    gold = [from_cell(cell) for cell in rows["gold"]]
    metrics = evaluate(gold, predicted(rows), types, prefix=prefix, resamples=resamples)
    samples = int(rows["n_samples"].max())
    votes = [_votes(*cells) for cells in zip(rows["candidates"], rows["n_valid"], rows["n_samples"], strict=True)]
    for threshold in range(1, samples + 1) if samples > 1 else ():
        kept = [each.agreed((threshold - 0.5) / each.n_valid) if each.n_valid else [] for each in votes]
        values = evaluate(gold, kept, types, prefix=prefix, resamples=1)
        metrics |= {f"{prefix}/{name}_votes_{threshold}": values[f"{prefix}/{name}"] for name in ("f1", "precision", "recall")}
    return metrics


def predicted(rows: pd.DataFrame) -> list[list[Span]]:
    """The kept spans of each row; none where no response could be read."""
    return [from_cell(cell) if n else [] for cell, n in zip(rows["spans"], rows["n_valid"], strict=True)]


def _votes(cell: Any, n_valid: int, n_samples: int) -> SpanVotes:
    return SpanVotes({Span(each["start"], each["end"], each["label"]): each["votes"] for each in cell}, n_valid, n_samples)
