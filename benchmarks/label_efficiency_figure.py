"""The tables and the figure of the study `label_efficiency`: accuracy and macro F1 by number of labels, with SetFit as a peer.

Five seeds for one number of labels take the better part of an hour on two cores, so each number is swept separately
and the rows of the reports are collected in `experiments/label_efficiency/DATA`:

    python benchmarks/label_efficiency_figure.py                                        # the figures of the committed tables
    python benchmarks/label_efficiency_figure.py --add runs/label_efficiency            # after the rows of this study are added
    python benchmarks/label_efficiency_figure.py --add runs/label_efficiency --labels 100  # a study of one number of labels

Existing rows for the same method and number of labels are replaced.
"""

import argparse
import re
from pathlib import Path

import pandas as pd

from findistill.report import style
from findistill.report.budgets import BUDGET, Point, figure_of
from findistill.stats.intervals import Estimate

STUDY = Path(__file__).parents[1] / "experiments" / "label_efficiency"
METHOD = re.compile(rf"^(?P<name>.*?),? \({re.escape(BUDGET)}=(?P<labels>\d+)\)$")
# For each table of a report: the columns that name methods, and the other columns that identify a row.
TABLES = {
    "table.csv": (["method"], []),
    "by_label.csv": (["method"], ["label"]),
    "teacher_share.csv": (["method", "teacher"], []),
    "comparisons.csv": (["a", "b"], ["family"]),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", type=Path, default=STUDY)
    parser.add_argument("--add", type=Path, nargs="+", default=[], metavar="FOLDER", help="study folders that contain a report")
    parser.add_argument("--labels", type=int, help="the number of labels, for studies whose methods do not name it")
    options = parser.parse_args()
    for folder in options.add:
        for name in TABLES:
            if (folder / name).exists():
                add(folder / name, options.study, options.labels)
    peers = options.study / "setfit.csv"
    for path in sorted(options.study.glob("*/table.csv")):
        table = pd.read_csv(path)
        if peers.exists():
            rows = pd.read_csv(peers)
            table = pd.concat([table, rows[rows["test_set"] == path.parent.name]])
        lines = {name: points for name, points in curves(table).items() if len(points) > 1}
        dashed = {split(row["method"])[0] for row in table.to_dict("records") if row["kind"] in ("baseline", "peer")}
        if not lines:  # only one number of labels so far
            continue
        (path.parent / "figures").mkdir(exist_ok=True)
        for written in style.save(figure_of(lines, dashed), path.parent / "figures" / "labels", vector=True):
            print(written)


def add(report: Path, study: Path, labels: int | None) -> None:
    """Add the rows of a report's table to the table of their data set."""
    named, others = TABLES[report.name]
    rows = pd.read_csv(report)
    for column in named:
        rows[column] = [name if METHOD.match(name) or not labels else f"{name} ({BUDGET}={labels})" for name in rows[column]]
    for data, own in rows.groupby("test_set", sort=False):
        path = study / str(data) / report.name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            own = pd.concat([pd.read_csv(path), own]).drop_duplicates([*named, *others], keep="last")
        order = own[named[0]].map(lambda method: split(method)[1])
        own.assign(order=order).sort_values("order", kind="stable").drop(columns="order").to_csv(path, index=False)


def curves(table: pd.DataFrame) -> dict[str, list[Point]]:
    """The points of each method, fewest labels first."""
    points: dict[str, list[Point]] = {}
    for row in table.to_dict("records"):
        name, labels = split(row["method"])
        scores = {
            key: Estimate(row[key], row[f"{key}_sd"], row[f"{key}_lo"], row[f"{key}_hi"], ()) for key in ("accuracy", "macro_f1")
        }
        points.setdefault(name, []).append((labels, scores))
    return {name: sorted(own, key=lambda point: point[0]) for name, own in points.items()}


def split(method: str) -> tuple[str, int]:
    """Split a method into its name and its number of labels."""
    match = METHOD.match(method)
    if match is None:
        raise SystemExit(f"'{method}' does not name {BUDGET}: set it with --labels")
    return match["name"], int(match["labels"])


if __name__ == "__main__":
    main()
