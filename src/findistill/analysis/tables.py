"""The results table, one row a method: mean and spread over seeds, intervals, cost; all of it, and a readable part."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from findistill.analysis.curves import average_precisions, reliability
from findistill.analysis.intervals import Estimate
from findistill.analysis.methods import Method
from findistill.analysis.words import amount

RECORDED = {  # column: key in metrics.json, means over seeds
    "train_s": "time/train_s",
    "cpu_s": "time/cpu_s",
    "parameters": "model/parameters",
    "model_mb": "model/mb",
    "latency_p50_ms": "latency/p50_ms",
    "latency_p95_ms": "latency/p95_ms",
    "throughput_texts_per_s": "throughput/texts_per_s",
    "peak_mb": "memory/peak_mb",
    "device_peak_mb": "memory/device_peak_mb",
    "cost_usd": "cost/usd",
    "usd_per_1000_texts": "cost/usd_per_1000_texts",
}
ANNOTATED = {  # the same, of annotators alone
    "valid_share": "annotate/valid_share",
    "samples_per_text": "annotate/samples_per_text",
    "tokens_per_text": "annotate/tokens_per_text",
    "seconds_per_1000_texts": "annotate/seconds_per_1000_texts",
    "usd_per_correct_label": "cost/usd_per_correct_label",
}
CURVES = re.compile(r"annotate/((?:accuracy_samples|accuracy_at|kept_share)_\d+|stop_\d+_(?:accuracy|samples))")
ALSO = ("accuracy", "macro_f1")  # shown for further test sets, read from metrics `<set>/<key>`

COST = (  # columns of `readable`
    "Train s", "CPU s", "Parameters", "Latency ms", "Texts/s", "Peak MB", "GPU peak MB", "Tokens/text",
    "s/1,000 texts", "USD/1,000 texts", "USD/correct label",
    "Cost USD", "Device", "Failed jobs",
)  # fmt: skip
SHOTS = (  # columns of `readable` where an LLM stands beside fine-tuned models
    ("throughput_texts_per_s", "Texts/s", "{:,.1f}"),
    ("peak_mb", "Peak MB", "{:,.0f}"),
    ("device_peak_mb", "GPU peak MB", "{:,.0f}"),
)
WORDS = ("Method", "Test set", "Device", "Failed jobs")  # columns of `readable` that hold words, not numbers


def results(
    methods: Sequence[Method], estimates: Sequence[dict[str, Estimate]], failed: Sequence[dict[str, Any]]
) -> pd.DataFrame:
    """One row a method in the given order, then one for each method of which every job failed.

    Columns: method, kind, test_set, test_rows, labels_used, labels_share, n_seeds, seeds; accuracy, macro_f1 and
    weighted_f1, each with `_sd` (over seeds) `_lo` `_hi` (95%, over rows); micro_average_precision, ece (each with
    `_sd`), coverage; `<label>_f1`; further test sets as `<set>/accuracy`, `<set>/macro_f1`; seconds, sizes, latency,
    cost and device; failed_jobs, the names of the method's failed jobs. Annotators have `ANNOTATED` and `CURVES` too:
    accuracy by number of samples, accuracy and share of the texts kept by agreement, accuracy and samples by `stop_at`.
    """
    rows = [_row(method, found) for method, found in zip(methods, estimates, strict=True)]
    names = {method.name for method in methods}
    absent = [name for name in dict.fromkeys(str(job["method"]) for job in failed if job.get("method")) if name not in names]
    rows.extend({"method": name, "kind": "failed", "n_seeds": 0} for name in absent)
    frame = pd.DataFrame(rows)
    if len(frame):
        lost = {name: "; ".join(job_name(job) for job in failed if job.get("method") == name) for name in frame["method"]}
        frame["failed_jobs"] = frame["method"].map(lost)
    return frame


def job_name(job: dict[str, Any]) -> str:
    """What a failed job is called: its `job`, else its `folder`'s name, else its method."""
    return str(job.get("job") or str(job.get("folder") or "").rstrip("/").rsplit("/", 1)[-1] or job.get("method") or "?")


def readable(frame: pd.DataFrame) -> pd.DataFrame:
    """The columns a reader wants first, as text: 0.712 ± 0.004 [0.70, 0.73]. Columns that are empty throughout go."""
    shown = pd.DataFrame({"Method": frame["method"]})
    if frame["test_set"].nunique() > 1:
        shown["Test set"] = frame["test_set"].fillna("")
    shown["Labels used"] = [_used(row) for row in frame.to_dict("records")]
    annotators = bool((frame["kind"] == "annotator").any())
    shown["Runs" if annotators else "Seeds"] = [f"{int(value)}" for value in frame["n_seeds"]]
    for key, title in (("accuracy", "Accuracy"), ("macro_f1", "Macro F1")):
        shown[title] = [spread(row, key) for row in frame.to_dict("records")]
    for column, title, pattern in (
        ("weighted_f1", "Weighted F1", "{:.3f}"),
        ("micro_average_precision", "Micro AP", "{:.3f}"),
        ("ece", "ECE", "{:.3f}"),
        ("coverage", "Coverage", "{:.1%}"),
        ("valid_share", "Valid answers", "{:.1%}"),
        ("samples_per_text", "Samples", "{:.3g}"),
    ):
        if column in frame and (column != "coverage" or annotators or (frame[column] < 1).any()):
            shown[title] = [_number(value, pattern) for value in frame[column]]
    for column in [column for column in frame.columns if column.endswith("/accuracy")]:
        shown[f"{column.removesuffix('/accuracy')} acc."] = [
            _number(row[column], "{:.3f}") + (f" ± {row[column + '_sd']:.3f}" if _given(row.get(column + "_sd")) else "")
            for row in frame.to_dict("records")
        ]
    for column, title, pattern in (
        ("train_s", "Train s", "{:,.0f}"),
        ("cpu_s", "CPU s", "{:,.0f}"),
        ("parameters", "Parameters", "{:,.0f}"),
        ("latency_p50_ms", "Latency ms", "{:.1f}"),
        *SHOTS * bool((frame["kind"] == "fewshot").any()),
        ("tokens_per_text", "Tokens/text", "{:,.0f}"),
        ("seconds_per_1000_texts", "s/1,000 texts", "{:,.1f}"),
        ("usd_per_1000_texts", "USD/1,000 texts", ""),
        ("usd_per_correct_label", "USD/correct label", ""),
        ("cost_usd", "Cost USD", "{:.2f}"),
        ("device", "Device", "{}"),
        ("failed_jobs", "Failed jobs", "{}"),
    ):
        if column in frame:
            values = frame[column]
            if column == "parameters":
                shown[title] = [f"{value / 1e6:.1f} M" if _given(value) else "" for value in values]
            elif column.startswith("usd_per"):
                shown[title] = [amount(value) if _given(value) else "" for value in values]
            else:
                shown[title] = [_number(value, pattern) for value in values]
    return shown[[column for column in shown if shown[column].ne("").any()]]


def markdown(frame: pd.DataFrame) -> str:
    """A Markdown table of text cells; numbers to the right."""
    lines = [
        "| " + " | ".join(frame.columns) + " |",
        "| " + " | ".join("---" if column in WORDS else "---:" for column in frame.columns) + " |",
    ]
    lines += ["| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in frame.to_numpy()]
    return "\n".join(lines) + "\n"


def spread(row: Mapping[Any, Any], key: str) -> str:
    """`0.712 ± 0.004 [0.70, 0.73]` from a row of `results`; without the ± for one seed."""
    if not _given(row.get(key)):
        return ""
    sd = f" ± {row[key + '_sd']:.3f}" if _given(row.get(key + "_sd")) else ""
    return f"{row[key]:.3f}{sd} [{row[key + '_lo']:.2f}, {row[key + '_hi']:.2f}]"


def _row(method: Method, estimates: dict[str, Estimate]) -> dict[str, Any]:
    row: dict[str, Any] = {
        "method": method.name,
        "kind": method.kind,
        "test_set": method.test_set,
        "test_rows": len(method.ids),
        "labels_used": method.mean_metric("data/kept"),
        "labels_share": method.mean_metric("data/kept_share"),
        "n_seeds": len(method.runs),
        "seeds": " ".join(str(run.seed) for run in method.runs if run.seed is not None),
    }
    for key, one in estimates.items():
        row |= {key: one.mean, f"{key}_sd": one.sd, f"{key}_lo": one.low, f"{key}_hi": one.high}
    answered = np.isfinite(method.probabilities).all(2)
    if answered.any():
        pairs = list(zip(method.probabilities, method.predicted, strict=True))
        _spread_into(row, "micro_average_precision", [average_precisions(method.gold, p)["micro"] for p, _ in pairs])
        _spread_into(row, "ece", [reliability(method.gold, p, guess).ece for p, guess in pairs])
    row["coverage"] = float((method.predicted >= 0).mean())
    for label in method.labels:
        row[f"{label}_f1"] = method.mean_metric(f"test/{label}/f1")
    for also in _further_sets(method):
        for key in ALSO:
            _spread_into(row, f"{also}/{key}", [run.metrics[f"{also}/{key}"] for run in method.runs
                                                if f"{also}/{key}" in run.metrics])  # fmt: skip
    row |= {column: method.mean_metric(key) for column, key in RECORDED.items()}
    if method.kind in ("annotator", "fewshot"):
        row["cpu_s"] = None  # of the job that happened to find no answers yet
    if method.kind == "annotator":
        row |= {column: method.mean_metric(key) for column, key in ANNOTATED.items()}
        row |= {match[1]: method.mean_metric(key) for key in method.runs[0].metrics if (match := CURVES.fullmatch(key))}
    row["device"] = ", ".join(dict.fromkeys(str(run.status["device"]) for run in method.runs if run.status.get("device")))
    return row


def _further_sets(method: Method) -> list[str]:
    found = dict.fromkeys(key.removesuffix("/accuracy") for run in method.runs for key in run.metrics
                          if key.endswith("/accuracy"))  # fmt: skip
    return [name for name in found if name not in ("test", "val", "train", "annotate")]


def _spread_into(row: dict[str, Any], key: str, values: Sequence[float]) -> None:
    if values:
        row[key] = float(np.mean(values))
        row[f"{key}_sd"] = float(np.std(values, ddof=1)) if len(values) > 1 else None


def _used(row: Mapping[Any, Any]) -> str:
    if not _given(row.get("labels_used")):
        return ""
    share = f" ({row['labels_share']:.0%})" if _given(row.get("labels_share")) else ""
    return f"{row['labels_used']:,.0f}{share}"


def _number(value: Any, pattern: str) -> str:
    return pattern.format(value) if _given(value) else ""


def _given(value: Any) -> bool:
    return value is not None and not (isinstance(value, float) and math.isnan(value))
