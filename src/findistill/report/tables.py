"""The results table, one row per method: mean and spread over seeds, intervals, cost; in full, and a readable part."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from findistill.data.formulas import quoted
from findistill.report import parts
from findistill.report.methods import Method
from findistill.report.parts import Table, Wording
from findistill.report.style import pareto_front
from findistill.stats.curves import average_precisions, reliability
from findistill.stats.intervals import Estimate
from findistill.stats.metrics import confusion, scores
from findistill.stats.significance import Paired

WORDING = Wording("findistill.report")
RECORDED, QUALITY, ACCOUNTS = (WORDING.content["columns"][name] for name in ("recorded", "quality", "cost"))
COST = tuple(title for title, _ in ACCOUNTS.values())
SPREAD = {"": "{:.3f}", "_sd": " ± {:.3f}", "_lo": " [{:.2f}", "_hi": ", {:.2f}]"}
ALSO = ("accuracy", "macro_f1")  # shown for further test sets, read from metrics `<set>/<key>`
ON_DEMAND = ("throughput_texts_per_s", "peak_mb", "device_peak_mb")  # in the readable table only if a report part asks for them
# Columns of words, not numbers.
WORDS = ("", "Method", "Label", "Test set", "Device", "Failed jobs", "Family", "A against B", "Teacher", "Against", "Over")


# Numbers as text


def estimate(one: Estimate) -> str:
    """`0.712 ± 0.004 [0.70, 0.73]`; without the ± for one seed."""
    sd = f" ± {one.sd:.3f}" if one.sd is not None else ""
    return f"{one.mean:.3f}{sd} [{one.low:.2f}, {one.high:.2f}]"


def points(share: float, digits: int = 1) -> str:
    """A difference of shares in points of a hundred, with its sign: `+1.2`."""
    text = f"{100 * share:+.{digits}f}"
    return (text.lstrip("+-") if float(text) == 0 else text).replace("-", "−")


def difference(gap: Paired) -> str:
    """`+1.2 [−0.1, +2.4]`, in points."""
    return f"{points(gap.difference)} [{points(gap.low)}, {points(gap.high)}]"


def amount(value: float) -> str:
    """US dollars, or any quantity that may be tiny or large: `1,234.50`, `0.00092`."""
    return f"{value:,.2f}" if abs(value) >= 0.1 else f"{value:.2g}"


def p_value(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


NUMBER = re.compile(r"[<≥≤]?\s*([+−-]?[\d,]*\.?\d+(?:e[+-]?\d+)?)")


def order(text: str) -> Markup:
    """The attribute by which a table on the page sorts a text cell with numbers: its first number; empty if it has none."""
    number = NUMBER.match(text)
    return Markup(f' data-order="{float(number[1].replace(",", "").replace("−", "-")):.10g}"') if number else Markup("")


# Tables


def results(
    methods: Sequence[Method], estimates: Sequence[dict[str, Estimate]], failed: Sequence[dict[str, Any]]
) -> pd.DataFrame:
    """One row per method in the given order, then one for each method of which every job failed.

    Columns: method, kind, test_set, test_rows, labels_used, labels_share, n_seeds, seeds; accuracy, macro_f1 and
    weighted_f1, each with `_sd` (over seeds) `_lo` `_hi` (95%, over seeds and rows; for one seed, over rows);
    micro_average_precision, ece (each with `_sd`), coverage; `<label>_f1`; further test sets as `<set>/accuracy`,
    `<set>/macro_f1`; seconds, sizes, latency, cost and device; failed_jobs, the names of the method's failed jobs; and the
    columns of the methods' report parts.
    """
    rows = [_row(method, own) for method, own in zip(methods, estimates, strict=True)]
    names = {method.name for method in methods}
    absent = [name for name in dict.fromkeys(str(job["method"]) for job in failed if job.get("method")) if name not in names]
    rows.extend({"method": name, "kind": "failed", "n_seeds": 0} for name in absent)
    frame = pd.DataFrame(rows)
    if len(frame):
        frame["failed_jobs"] = [
            "; ".join(job_name(job) for job in failed if job.get("method") == name) for name in frame["method"]
        ]
    return frame


def job_name(job: dict[str, Any]) -> str:
    """What a failed job is called: its `job`, else its `folder`'s name, else its method."""
    return str(job.get("job") or str(job.get("folder") or "").rstrip("/").rsplit("/", 1)[-1] or job.get("method") or "?")


def readable(frame: pd.DataFrame) -> pd.DataFrame:
    """The columns a reader wants first, as text: 0.712 ± 0.004 [0.70, 0.73]. Empty columns are dropped."""
    here = [parts.of_kind(kind) for kind in frame["kind"].unique()]
    demanded = {column for part in here for column in part.readable_columns}
    rows = frame.to_dict("records")

    def add(columns: Mapping[str, tuple[str, str]], unasked: Callable[[str], bool]) -> None:
        for column, (title, pattern) in columns.items():
            if column in frame and (column in demanded or not unasked(column)):
                table[title] = [_cell(value, pattern) for value in frame[column]]

    table = pd.DataFrame({"Method": frame["method"]})
    if frame["test_set"].nunique() > 1:
        table["Test set"] = frame["test_set"].fillna("")
    table["Labels used"] = [
        _cell(row.get("labels_used"), "{:,.0f}") + _cell(row.get("labels_share"), " ({:.0%})") for row in rows
    ]
    table[next((part.runs for part in here if part.runs != "Seeds"), "Seeds")] = [f"{int(value)}" for value in frame["n_seeds"]]
    for key, title in (("accuracy", "Accuracy"), ("macro_f1", "Macro F1")):
        table[title] = [spread(row, key) for row in rows]
    add(QUALITY, lambda column: column == "coverage" and not (frame[column] < 1).any())
    for column in [column for column in frame.columns if column.endswith("/accuracy")]:
        table[f"{column.removesuffix('/accuracy')} acc."] = [spread(row, column) for row in rows]
    add(ACCOUNTS, ON_DEMAND.__contains__)
    return table[[column for column in table if table[column].ne("").any()]]


def formatted(table: Table) -> pd.DataFrame:
    """A report part's table as text, under its titles; the pattern `spread` also takes the spread and the interval."""
    rows = table.frame.to_dict("records")
    return pd.DataFrame({
        title: [spread(row, column) if pattern == "spread" else _cell(row.get(column), pattern) for row in rows]
        for column, (title, pattern) in table.columns.items()
    })  # fmt: skip


def front_table(spent: Mapping[str, float], unit: str, estimates: Mapping[str, Mapping[str, Estimate]]) -> Table:
    """The methods for which no other is both cheaper and more accurate, cheapest first."""
    accuracies = {name: estimates[name]["accuracy"] for name in spent}
    rows = [(name, spent[name], accuracies[name].mean) for name in pareto_front(spent, accuracies)]
    frame = pd.DataFrame(rows, columns=["method", "cost", "accuracy"])
    return WORDING.table("cost_front", frame, unit=unit[0].upper() + unit[1:])


def by_label(methods: Sequence[Method]) -> Table:
    """Precision, recall and F1 of each label, one row per method and label: means over seeds."""
    rows = []
    for method in methods:
        tables = np.stack([confusion(method.gold, predicted, len(method.labels)) for predicted in method.predicted])
        own = scores(tables)  # (seeds, labels)
        for place, label in enumerate(method.labels):
            row: dict[str, Any] = {"method": method.name, "label": label, "support": own["support"][0, place]}
            for name in ("precision", "recall", "f1"):
                row |= _mean_sd(name, own[name][:, place].tolist())
            rows.append(row)
    return WORDING.table("by_label", pd.DataFrame(rows))


def markdown(frame: pd.DataFrame) -> str:
    """A Markdown table of text cells; numbers are right-aligned."""
    ruler = ["---" if column in WORDS else "---:" for column in frame.columns]
    titles, *cells = [[markdown_cell(cell) for cell in row] for row in [list(frame.columns), *frame.to_numpy()]]
    return "".join(f"| {' | '.join(line)} |\n" for line in [titles, ruler, *cells])


def markdown_cell(value: Any) -> str:
    """A value as text that Markdown shows unchanged: no HTML, links, code, emphasis or further cells; on one line."""
    text = re.sub(r"[\\`*|]|(?<=\])(?=\()", r"\\\g<0>", " ".join(str(value).split()))
    return re.sub(r"<(?=[A-Za-z/!?])", "&lt;", re.sub(r"&(?=#?\w+;)", "&amp;", text))


def csv(frame: pd.DataFrame) -> str:
    """A table as CSV; a text or header that a spreadsheet would run as a formula gets an apostrophe in front."""
    return frame.rename(columns=quoted).apply(lambda column: column.map(quoted)).to_csv(index=False)


def spread(row: Mapping[Any, Any], key: str) -> str:
    """`0.712 ± 0.004 [0.70, 0.73]` from a row of `results`; without the ± for one seed, and the interval if there is none."""
    cells = (_cell(row.get(f"{key}{end}"), pattern) for end, pattern in SPREAD.items())
    return "".join(cells) if _present(row.get(key)) else ""


def _row(method: Method, estimates: dict[str, Estimate]) -> dict[str, Any]:
    row: dict[str, Any] = {
        "method": method.name, "kind": method.kind, "test_set": method.test_set, "test_rows": len(method.ids),
        "labels_used": method.mean_metric("data/kept"), "labels_share": method.mean_metric("data/kept_share"),
        "n_seeds": len(method.runs), "seeds": " ".join(str(run.seed) for run in method.runs if run.seed is not None),
    }  # fmt: skip
    for key, one in estimates.items():
        row |= {key: one.mean, f"{key}_sd": one.sd, f"{key}_lo": one.low, f"{key}_hi": one.high}
    if np.isfinite(method.probabilities).all(2).any():
        pairs = list(zip(method.probabilities, method.predicted, strict=True))
        row |= _mean_sd("micro_average_precision", [average_precisions(method.gold, p)["micro"] for p, _ in pairs])
        row |= _mean_sd("ece", [reliability(method.gold, p, guess).ece for p, guess in pairs])
    row["coverage"] = float((method.predicted >= 0).mean())
    for label in method.labels:  # one may be called `macro`
        row[f"{label}_f1" if f"{label}_f1" not in estimates else f"label_{label}_f1"] = method.mean_metric(f"test/{label}/f1")
    for key in [f"{also}/{score}" for also in _further_sets(method) for score in ALSO]:
        row |= _mean_sd(key, [run.metrics[key] for run in method.runs if key in run.metrics])
    row |= {column: method.mean_metric(key) for column, key in RECORDED.items()}
    part = parts.of_kind(method.kind)
    row |= dict.fromkeys(part.omitted)
    further = {**part.columns, **part.numbered_columns(method.runs[0].metrics)}
    row |= {column: method.mean_metric(key) for column, key in further.items()}
    row["device"] = ", ".join(dict.fromkeys(str(run.status["device"]) for run in method.runs if run.status.get("device")))
    return row


def _further_sets(method: Method) -> list[str]:
    keys = dict.fromkeys(key for run in method.runs for key in run.metrics)
    names = [key.removesuffix("/accuracy") for key in keys if key.endswith("/accuracy")]
    return [name for name in names if name not in ("test", "val", "train", "annotate")]


def _mean_sd(key: str, values: Sequence[float]) -> dict[str, float | None]:
    if not values:
        return {}
    return {key: float(np.mean(values)), f"{key}_sd": float(np.std(values, ddof=1)) if len(values) > 1 else None}


def _cell(value: Any, pattern: str) -> str:
    """A value as text, empty if it is missing; `pattern` is a format string or amount, millions, p, points."""
    if not _present(value):
        return ""
    if pattern == "millions":
        return f"{value / 1e6:.1f} M"
    return {"amount": amount, "p": p_value, "points": lambda share: points(share, 2)}.get(pattern, pattern.format)(value)


def _present(value: Any) -> bool:
    return value is not None and not (isinstance(value, float) and math.isnan(value))
