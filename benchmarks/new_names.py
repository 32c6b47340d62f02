"""Recall of names that occur in no training headline against names that do: how much an entity model has memorised.

Reads finished jobs of studies whose models were trained on human labels or not at all. Names are compared without case and
whitespace:

    python benchmarks/new_names.py runs/company_ner_cpu --csv experiments/company_ner/sentfin/new_names.csv
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from findistill.core import run_folder
from findistill.data.name_clusters import fold_name
from findistill.data.spans import from_cell
from findistill.report.runs import collect


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("studies", type=Path, nargs="+", help="study folders")
    parser.add_argument("--csv", type=Path, help="write the table to this file")
    options = parser.parse_args()
    rows = pd.DataFrame([row for study in options.studies for row in recalls(study)])
    groups = rows.groupby(["method", "names"], sort=False)
    recall = {"recall": ("recall", "mean"), "recall_sd": ("recall", "std")}
    table = groups.agg(seeds=("seed", "nunique"), mentions=("mentions", "first"), **recall)
    print(table.round(3).to_string())
    if options.csv:
        table.round(4).reset_index().to_csv(options.csv, index=False)


def recalls(study: Path) -> Iterator[dict[str, object]]:
    """The recall of each scored job, in one row for names in training texts and one for new names; boundaries must match."""
    training: dict[Path, set[str]] = {}
    for run in collect(study).runs:
        assert run.folder is not None
        data = run_folder.artifact_of(run.folder, "data")
        assert data is not None
        if data not in training:
            texts = pd.read_parquet(data / "texts.parquet")
            training[data] = set(mentions(texts[texts["split"] != "test"], "spans").map(fold_name))
        gold = mentions(run.predictions, "spans")
        predicted = mentions(run.predictions, "predicted")
        right = gold.index.isin(predicted.index)
        known = gold.map(fold_name).isin(training[data]).to_numpy()
        for names, chosen in (("in training texts", known), ("new", ~known)):
            yield {
                "method": run.method, "names": names, "seed": run.seed, "mentions": chosen.sum(), "recall": right[chosen].mean()
            }  # fmt: skip


def mentions(frame: pd.DataFrame, column: str) -> "pd.Series[str]":
    """The surface form of each mention, indexed by text, start, end and label."""
    cells = zip(frame["id"], frame["text"], frame[column], strict=True)
    surfaces = {
        (key, span.start, span.end, span.label): text[span.start : span.end]
        for key, text, cell in cells
        if cell is not None
        for span in from_cell(cell)
    }
    return pd.Series(surfaces, dtype=object)


if __name__ == "__main__":
    main()
