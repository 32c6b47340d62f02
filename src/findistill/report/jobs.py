"""The jobs of a study, one row each: its scores, how it differs from the job before it, and the command that repeats it."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from findistill.config.overrides import flatten
from findistill.core.run_folder import COMMAND
from findistill.report.methods import APART, Method
from findistill.report.runs import Entry
from findistill.stats.metrics import confusion, scores

ELSEWHERE = tuple(name for name in APART if name != "seed")  # settings that change no result
LONGEST = 160  # characters of the changed settings on the page; jobs.csv has all
# Column of jobs.csv -> its title on the page. Columns without a value are dropped.
TITLES = {
    "number": "#", "method": "Method", "seed": "Seed", "test_set": "Test set", "accuracy": "Accuracy", "macro_f1": "Macro F1",
    "state": "State", "changed": "Changed since the job above", "command": "Command", "job": "Job folder", "wall_s": "Wall s",
    "device": "Device", "commit": "Commit", "version": "Version", "started": "Started", "wandb": "W&B",
}  # fmt: skip
WORDS = ("Method", "Seed", "Test set", "State", "Changed since the job above", "Command", "Job folder", "Device", "Commit",
         "Version", "Started", "W&B")  # fmt: skip


def jobs_table(entries: Sequence[Entry], methods: Sequence[Method]) -> pd.DataFrame:
    """One row per job with the columns of `TITLES`, and `error`; jobs are grouped by method, in the order of the methods.

    `changed`: the settings that can change a result and differ from those of the job above, `seed: 0 → 1`.
    """
    of_run = {run.folder: (place, at, method) for place, method in enumerate(methods) for at, run in enumerate(method.runs)}
    last = (len(methods), 0, None)
    ordered = sorted(entries, key=lambda entry: of_run.get(entry.folder, last)[:2])
    rows: list[dict[str, Any]] = []
    above: Mapping[str, Any] = {}
    for number, entry in enumerate(ordered, start=1):
        _, at, method = of_run.get(entry.folder, last)
        settings = {name: section for name, section in entry.config.items() if name not in ELSEWHERE}
        if isinstance(stage := settings.get("stage"), Mapping):
            settings["stage"] = stage.get("name")  # the rest of the section follows from it
        rows.append({
            "number": number, **_scores(method, at, entry), "state": entry.status.get("state", "starting"),
            "changed": "; ".join(_changes(above, settings)) if above and settings else "", "command": _command(entry),
            "job": f"{entry.folder.parent.name}/{entry.folder.name}",
            "wall_s": entry.run.metrics.get("time/wall_s") if entry.run else None, "device": entry.status.get("device"),
            "commit": entry.status.get("git_commit"), "version": entry.status.get("version"),
            "started": entry.status.get("started"),
            "wandb": (entry.status.get("wandb") or {}).get("url"), "error": entry.status.get("error"),
        })  # fmt: skip
        above = settings or above
    return pd.DataFrame(rows, columns=[*TITLES, "error"])


def _scores(method: Method | None, at: int, entry: Entry) -> dict[str, Any]:
    if method is None:
        stage = entry.config.get("stage") or {}
        name = entry.run.method if entry.run else stage.get("name", "")
        return {"method": name, "seed": entry.run.seed if entry.run else entry.config.get("seed")}
    table = scores(confusion(method.gold, method.predicted[at], len(method.labels)))
    return {
        "method": method.name, "seed": method.runs[at].seed, "test_set": method.test_set,
        "accuracy": float(table["accuracy"]), "macro_f1": float(table["macro_f1"]),
    }  # fmt: skip


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    first, second = flatten(before), flatten(now)
    keys = [key for key in dict.fromkeys([*second, *first]) if first.get(key) != second.get(key)]
    return [f"{key}: {_value(first.get(key))} → {_value(second.get(key))}" for key in keys]


def _value(value: Any) -> str:
    return "none" if value in (None, "", {}) else str(value)


def _command(entry: Entry) -> str:
    path = entry.folder / COMMAND
    return path.read_text(encoding="utf-8", errors="replace").strip() if path.is_file() else ""


def as_text(table: pd.DataFrame) -> pd.DataFrame:
    """The jobs as text under the page's titles, without empty columns, and without test sets if there is only one."""
    table = table.assign(
        state=[f"{state}: {why}" if why else state for state, why in zip(table["state"], table["error"], strict=True)]
    )
    frame = pd.DataFrame({title: [_cell(column, value) for value in table[column]] for column, title in TITLES.items()})
    alike = {TITLES["test_set"]} if frame[TITLES["test_set"]].nunique() == 1 else set()
    return frame[[title for title in frame if title not in alike and frame[title].ne("").any()]]


def _cell(column: str, value: Any) -> str:
    if value is None or value != value:
        return ""
    if column in ("accuracy", "macro_f1"):
        return f"{value:.3f}"
    if column == "wall_s":
        return f"{value:,.1f}"
    if column == "commit":
        return str(value)[:8] + ("-dirty" if str(value).endswith("-dirty") else "")
    if column == "wandb":
        return str(value) if str(value).startswith(("https://", "http://")) else ""
    if column == "changed" and len(value) > LONGEST:
        return value[: LONGEST - 1] + "…"
    return str(value)
