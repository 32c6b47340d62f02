"""Quality and cost of an LLM's mentions, all from one set of responses."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from pyarrow import parquet

from findistill.core.files import read_json
from findistill.data.spans import Span, from_cell
from findistill.llm.span_votes import SpanVotes
from findistill.stats.spans import evaluate

BATCH = 4096  # rows per read: there may be a million in total
COLUMNS = ["id", "text", "spans", "candidates", "n_valid", "n_samples", "gold"]


@dataclass
class Extracted:
    """Counts over all rows of an artifact, and the rows that have gold spans."""

    texts: int = 0
    readable: int = 0  # texts with a readable response
    without: int = 0  # of these, texts without a mention
    mentions: int = 0
    agreement: float = 0.0  # summed over the mentions: the share of readable responses that contain each
    gold: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=COLUMNS))


def table(folder: Path) -> Path:
    return folder / "annotations.parquet"


def read(folder: Path) -> Extracted:
    """Read an artifact in batches, so that memory grows only with the rows that have gold spans."""
    total = Extracted()
    gold = []
    for rows in _batches(table(folder)):
        answered = rows[rows["n_valid"] > 0]
        total.texts += len(rows)
        total.readable += len(answered)
        for cell, n_valid in zip(answered["spans"], answered["n_valid"], strict=True):
            total.without += not len(cell)
            total.mentions += len(cell)
            total.agreement += sum(each["votes"] for each in cell) / n_valid
        if rows["gold"].notna().any():
            gold.append(rows[rows["gold"].notna()])
    return Extracted(**{**vars(total), "gold": pd.concat(gold, ignore_index=True)}) if gold else total


def _batches(path: Path) -> Iterator[pd.DataFrame]:
    with parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(BATCH, columns=COLUMNS):
            yield batch.to_pandas()


def spending(extracted: Extracted, folder: Path) -> dict[str, float]:
    """Statistics of the responses under `annotate/` and, where prices are known, their cost under `cost/`.

    `coverage`: share of texts with a readable response, over which `mentions_per_text` and `without_mention` (share of texts
    without one) are computed; `valid_share`: share of readable responses; `agreement`: mean share of readable responses that
    contain a kept span; and the counts of `llm.extract.Tally`.
    """
    summary, texts, readable = read_json(folder / "summary.json"), extracted.texts, max(extracted.readable, 1)
    further = ("texts", "cost_usd", "valid")  # reported below
    metrics: dict[str, Any] = {f"annotate/{name}": value for name, value in summary.items() if name not in further}
    metrics |= {
        "annotate/texts": texts,
        "annotate/coverage": extracted.readable / texts,
        "annotate/valid_share": summary["valid"] / max(summary["samples"], 1),
        "annotate/mentions_per_text": extracted.mentions / readable,
        "annotate/without_mention": extracted.without / readable,
        "annotate/agreement": extracted.agreement / max(extracted.mentions, 1),
        "annotate/seconds_per_1000_texts": 1000 * summary["seconds"] / texts,
    }
    if summary["tokens"]:
        metrics["annotate/aligned_share"] = summary["aligned"] / summary["tokens"]
    if (cost := summary["cost_usd"]) is not None:
        metrics |= {"cost/usd": cost, "cost/usd_per_1000_texts": 1000 * cost / texts}
    return {name: float(value) for name, value in metrics.items()}


def quality(rows: pd.DataFrame, types: Sequence[str], prefix: str, resamples: int) -> dict[str, float]:
    """Precision, recall and F1 on rows with gold spans; empty if there are none.

    A text without a readable response counts as one without mentions. `f1_votes_<t>`, `precision_votes_<t>`,
    `recall_votes_<t>`: of the spans that at least t samples contain, overlaps resolved.
    """
    if rows.empty:
        return {}
    gold = [from_cell(cell) for cell in rows["gold"]]
    metrics = evaluate(gold, predicted(rows), types, prefix=prefix, resamples=resamples)
    samples = int(rows["n_samples"].max())
    votes = [_votes(*cells) for cells in zip(rows["candidates"], rows["n_valid"], rows["n_samples"], strict=True)]
    for threshold in range(1, samples + 1) if samples > 1 else ():
        agreed = [each.agreed((threshold - 0.5) / each.n_valid) if each.n_valid else [] for each in votes]
        values = evaluate(gold, agreed, types, prefix=prefix, resamples=1)
        metrics |= {f"{prefix}/{name}_votes_{threshold}": values[f"{prefix}/{name}"] for name in ("f1", "precision", "recall")}
    return metrics


def predicted(rows: pd.DataFrame) -> list[list[Span]]:
    """The kept spans of each row; empty if no response could be read."""
    return [from_cell(cell) if n else [] for cell, n in zip(rows["spans"], rows["n_valid"], strict=True)]


def _votes(cell: Any, n_valid: int, n_samples: int) -> SpanVotes:
    return SpanVotes({Span(each["start"], each["end"], each["label"]): each["votes"] for each in cell}, n_valid, n_samples)
