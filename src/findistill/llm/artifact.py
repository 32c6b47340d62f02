"""The files of an annotation artifact: `annotations.parquet`, `samples.jsonl`, `summary.json`."""

import json
import logging
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
from pyarrow import parquet

from findistill.core.files import replacing, write_json
from findistill.data.labels import LabelSet
from findistill.llm.engine import Response
from findistill.llm.votes import Votes

log = logging.getLogger(__name__)

BLOCK = 1024  # rows written at once

Record = Callable[[int, str, str, Sequence[Response]], dict[str, Any]]


def write(
    folder: Path, texts: pd.DataFrame, samples: Iterable[list[Response]], labels: LabelSet,
    scores: Sequence[Mapping[str, float]] | None,
) -> None:  # fmt: skip
    """Write the artifact's files for votes on labels."""
    schema = pa.schema(
        [("id", pa.string()), ("text", pa.string()), ("label", pa.string()), ("gold", pa.string())]
        + [(name, pa.int64()) for name in ("agreement", "n_valid", "n_samples")]
        + [(f"soft_{name}", pa.float64()) for name in labels.names]
        + [("rationale", pa.string()), ("confidence", pa.float64())]
        + [(f"p_{name}", pa.float64()) for name in labels.names if scores is not None]
    )
    gold = texts["label"].tolist() if "label" in texts else [None] * len(texts)

    def record(row: int, text_id: str, text: str, responses: Sequence[Response]) -> dict[str, Any]:
        shares = {} if scores is None else {f"p_{name}": math.exp(scores[row][name]) for name in labels.names}
        return _row(text_id, text, gold[row], responses, labels) | shares

    write_rows(folder, texts, samples, schema, record)


def write_rows(
    folder: Path, texts: pd.DataFrame, samples: Iterable[list[Response]], schema: pa.Schema, record: Record,
    counts: Mapping[str, int] | None = None,
) -> None:  # fmt: skip
    """Write the artifact's files, one text at a time.

    Args:
        record: returns a row of the table, with `n_valid`, from its number, the text's id, the text and its responses.
        counts: further totals for `summary.json`, which `record` counts.
    """
    totals: Any = Counter()  # counts and, under `seconds` and `cost_usd`, sums
    unpriced = 0
    block: list[dict[str, Any]] = []
    with (
        replacing(folder / "samples.jsonl") as lines_aside,
        replacing(folder / "annotations.parquet") as table_aside,
        lines_aside.open("w", encoding="utf-8", errors="backslashreplace") as lines,
        parquet.ParquetWriter(table_aside, schema) as table,
    ):
        for row, (text_id, text, responses) in enumerate(zip(texts["id"], texts["text"], samples, strict=True)):
            for response in responses:
                fields = {**vars(response), "id": str(text_id)}  # the cache may know the text by another id
                lines.write(json.dumps({"id": fields["id"], "text": text, **fields}, ensure_ascii=False) + "\n")
            block.append(record(row, str(text_id), text, responses))
            valid = block[-1]["n_valid"]
            if len(block) == BLOCK:
                table.write_table(pa.Table.from_pylist(block, schema))
                block.clear()
            totals.update(
                texts=1, samples=len(responses), valid=valid,
                failed=sum(each.error is not None for each in responses), requests=sum(each.attempts for each in responses),
                tokens_in=sum(each.tokens_in for each in responses), tokens_out=sum(each.tokens_out for each in responses),
                tokens_cached=sum(each.tokens_cached for each in responses),
                seconds=sum(each.seconds for each in responses), cost_usd=sum(each.cost or 0.0 for each in responses),
            )  # fmt: skip
            unpriced += all(each.cost is None for each in responses)
        if block:
            table.write_table(pa.Table.from_pylist(block, schema))
    summary = {**totals, **(counts or {}), **({"cost_usd": None} if unpriced else {})}
    write_json(folder / "summary.json", summary)
    log.info("%s", _summary_line(summary))


def _row(text_id: str, text: str, own: Any, responses: Sequence[Response], labels: LabelSet) -> dict[str, Any]:
    votes = Votes.from_labels([response.label for response in responses])
    agreeing = [response for response in responses if votes.hard is not None and response.label == votes.hard]
    confidences = [response.confidence for response in agreeing if response.confidence is not None]
    return {
        "id": text_id, "text": text, "label": votes.hard, "gold": own if isinstance(own, str) else None,
        "agreement": votes.agreement, "n_valid": votes.n_valid, "n_samples": votes.n_samples,
        **{f"soft_{name}": share for name, share in zip(labels.names, votes.soft(labels.names), strict=True)},
        "rationale": next(("\n".join(response.rationale) for response in agreeing if response.rationale), None),
        "confidence": math.fsum(confidences) / len(confidences) if confidences else None,
    }  # fmt: skip


def _summary_line(summary: Mapping[str, Any]) -> str:
    valid = 100 * summary["valid"] / max(summary["samples"], 1)
    in_cache = f" ({summary['tokens_cached']:,} of them in the server's cache)" if summary["tokens_cached"] else ""
    paid = "" if summary["cost_usd"] is None else f", ${summary['cost_usd']:.4f}"
    return (
        f"annotated {summary['texts']:,} texts: {valid:.1f}% of {summary['samples']:,} responses valid, "
        f"{summary['failed']:,} failed; {summary['tokens_in']:,} prompt tokens{in_cache}, "
        f"{summary['tokens_out']:,} completion tokens{paid}"
    )
