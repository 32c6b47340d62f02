"""The files of an annotation artifact: `annotations.parquet`, `samples.jsonl`, `summary.json`."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from findistill.data.labels import LabelSet
from findistill.llm.engine import Answer
from findistill.llm.votes import Votes
from findistill.runs.files import replacing, write_json

if TYPE_CHECKING:
    import pandas as pd

BLOCK = 1024  # rows written at once


def write(
    folder: Path,
    texts: "pd.DataFrame",
    samples: Iterable[list[Answer]],
    labels: LabelSet,
    scores: Sequence[Mapping[str, float]] | None,
) -> None:
    """The artifact's files, one row of texts at a time."""
    import pyarrow as pa
    from pyarrow import parquet

    schema = pa.schema(
        [("id", pa.string()), ("text", pa.string()), ("label", pa.string()), ("gold", pa.string())]
        + [(name, pa.int64()) for name in ("agreement", "n_valid", "n_samples")]
        + [(f"soft_{name}", pa.float64()) for name in labels.names]
        + [("rationale", pa.string()), ("confidence", pa.float64())]
        + [(f"p_{name}", pa.float64()) for name in labels.names if scores is not None]
    )
    gold = texts["label"] if "label" in texts else [None] * len(texts)
    totals = dict.fromkeys(("texts", "samples", "valid", "failed", "requests", "tokens_in", "tokens_out"), 0)
    seconds, dollars, priced = 0.0, 0.0, True
    block: list[dict[str, Any]] = []
    with (
        replacing(folder / "samples.jsonl") as lines_aside,
        replacing(folder / "annotations.parquet") as table_aside,
        lines_aside.open("w", encoding="utf-8", errors="backslashreplace") as lines,
        parquet.ParquetWriter(table_aside, schema) as table,
    ):
        for row, (text_id, text, own, answers) in enumerate(zip(texts["id"], texts["text"], gold, samples, strict=True)):
            for answer in answers:
                lines.write(json.dumps({"id": str(text_id), "text": text, **_told_answer(answer)}, ensure_ascii=False) + "\n")
            found = _row(str(text_id), text, own, answers, labels)
            if scores is not None:
                found |= {f"p_{name}": math.exp(scores[row][name]) for name in labels.names}
            block.append(found)
            if len(block) == BLOCK:
                table.write_table(pa.Table.from_pylist(block, schema))
                block.clear()
            totals["texts"] += 1
            totals["samples"] += len(answers)
            totals["valid"] += found["n_valid"]
            totals["failed"] += sum(answer.error is not None for answer in answers)
            totals["requests"] += sum(answer.attempts for answer in answers)
            totals["tokens_in"] += sum(answer.tokens_in for answer in answers)
            totals["tokens_out"] += sum(answer.tokens_out for answer in answers)
            seconds += sum(answer.seconds for answer in answers)
            dollars += sum(answer.cost or 0.0 for answer in answers)
            priced = priced and any(answer.cost is not None for answer in answers)
        if block:
            table.write_table(pa.Table.from_pylist(block, schema))
    write_json(folder / "summary.json", {**totals, "seconds": seconds, "cost_usd": dollars if priced else None})


def _told_answer(answer: Answer) -> dict[str, Any]:
    return {name: value for name, value in asdict(answer).items() if name != "id"}


def _row(text_id: str, text: str, own: Any, answers: Sequence[Answer], labels: LabelSet) -> dict[str, Any]:
    votes = Votes.from_answers([answer.label for answer in answers])
    agreeing = [answer for answer in answers if votes.hard is not None and answer.label == votes.hard]
    sure = [answer.confidence for answer in agreeing if answer.confidence is not None]
    return {
        "id": text_id,
        "text": text,
        "label": votes.hard,
        "gold": own if isinstance(own, str) else None,
        "agreement": votes.agreement,
        "n_valid": votes.n_valid,
        "n_samples": votes.n_samples,
        **{f"soft_{name}": share for name, share in zip(labels.names, votes.soft(labels.names), strict=True)},
        "rationale": next(("\n".join(answer.rationale) for answer in agreeing if answer.rationale), None),
        "confidence": math.fsum(sure) / len(sure) if sure else None,
    }


def told(summary: Mapping[str, Any]) -> str:
    valid = 100 * summary["valid"] / max(summary["samples"], 1)
    paid = "" if summary["cost_usd"] is None else f", ${summary['cost_usd']:.4f}"
    return (
        f"annotated {summary['texts']:,} texts: {valid:.1f}% of {summary['samples']:,} answers valid, "
        f"{summary['failed']:,} failed; {summary['tokens_in']:,} tokens read, {summary['tokens_out']:,} written{paid}"
    )
