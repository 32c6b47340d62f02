"""Choosing between the swept settings of a sweep by folds of the labelled rows (`sweep.choose`).

Every combination is run once a fold, as a job of the study `<study>-folds`, and scored on rows that it has not seen
(Stone 1974). Test rows have no part in it, so the scores of what is chosen are as honest as those of one fixed recipe.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from findistill.core.files import read_json, write_whole

FILE = "choice.csv"  # in the study's folder
STUDY = "{}-folds"


@dataclass(frozen=True)
class Candidate:
    """One combination of a grid: its swept settings, all that a job is composed from, the run folders of its folds."""

    settings: str
    overrides: list[str]
    folders: list[Path]


def fold_overrides(study: str, fold: int) -> list[str]:
    """What makes a job one of a fold: nothing is measured that the choice does not need."""
    return [f"study={STUDY.format(study)}", f"data.fold={fold}", "evaluate.also=[]", "evaluate.latency=false"]


def scores(candidates: Sequence[Candidate], metric: str) -> pd.DataFrame:
    """A row a candidate, the best first: settings, mean and standard error over folds, and what a fold took in seconds.

    `seconds` counts all that a job needs, such as annotations, as if it had made them alone. Among equals the first is the
    best.
    """
    rows = []
    for candidate in candidates:
        metrics = [read_json(folder / "metrics.json") for folder in candidate.folders]
        values = np.array([each[f"test/{metric}"] for each in metrics])
        rows.append(
            {
                "settings": candidate.settings,
                metric: values.mean(),
                "standard_error": values.std(ddof=1) / np.sqrt(len(values)),
                "folds": len(values),
                "rows": int(sum(each["test/n"] for each in metrics)),
                "seconds": float(np.mean([seconds_alone(each) for each in metrics])),
            }
        )
    table = pd.DataFrame(rows).sort_values(metric, ascending=False, kind="stable")
    return table.assign(chosen=[True] + [False] * (len(rows) - 1))


def seconds_alone(metrics: Mapping[str, float]) -> float:
    """What a job would have taken, had it made all artifacts that it reads."""
    return metrics["time/wall_s"] - metrics["time/artifacts_made_s"] + metrics["time/artifacts_s"]


def choose(candidates: Sequence[Candidate], metric: str, study: Path) -> tuple[Candidate, str]:
    """The best candidate, and the comparison as lines for the log; leaves it as `choice.csv` in the study's folder."""
    table = scores(candidates, metric)
    write_whole(study / FILE, table.to_csv(index=False, float_format="%.6g"))
    best = next(one for one in candidates if one.settings == table["settings"].iloc[0])
    lines = [
        f"  {row[metric]:.3f} +- {row['standard_error']:.3f}  {row['seconds']:6.1f} s a fold  {row['settings']}"
        for _, row in table.iterrows()
    ]
    folds, rows = table[["folds", "rows"]].iloc[0]
    header = f"{metric} on {folds} folds of {rows:,} labelled rows, mean and standard error; the first is chosen:"
    return best, "\n".join([header, *lines])
