"""The best settings of a sweep by cross-validation on the labelled rows (`sweep.choose`), and the table that shows why.

Every combination of the swept settings is run once per fold and scored on held-out rows (Stone 1974). Test rows are not used,
so the test scores of the chosen settings are as unbiased as those of one fixed recipe.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from findistill.core.files import read_json, write_whole

FILE = "choice.csv"  # in the study's folder
TITLES = {"accuracy": "accuracy", "macro_f1": "macro F1"}


@dataclass(frozen=True)
class Choice:
    """What a report says about a choice."""

    title: str
    table: pd.DataFrame  # cells as text


def choose(candidates: Mapping[str, Sequence[Path]], metric: str, study: Path) -> tuple[str, str]:
    """The best of the candidates and the comparison as text, which is also written to `choice.csv` in the study's folder.

    Args:
        candidates: swept settings -> the run folders of their folds.
        metric: `accuracy` or `macro_f1`.
    """
    scores = compare(candidates, metric)
    write_whole(study / FILE, scores.to_csv(index=False, float_format="%.6g"))
    choice = described(scores)
    lines = [f"  {'  '.join(row)}" for row in choice.table.itertuples(index=False)]
    return str(scores["settings"].iloc[0]), "\n".join([choice.title, *lines])


def compare(candidates: Mapping[str, Sequence[Path]], metric: str) -> pd.DataFrame:
    """One row per candidate, the best first: settings, mean and standard error over folds, and seconds per fold.

    `seconds` counts all artifacts that a job needs, such as annotations, as if it had made them itself. Ties keep their order.
    """
    rows = []
    for settings, folders in candidates.items():
        metrics = [read_json(folder / "metrics.json") for folder in folders]
        values = np.array([each[f"test/{metric}"] for each in metrics])
        rows.append(
            {
                "settings": settings,
                metric: values.mean(),
                "standard_error": values.std(ddof=1) / np.sqrt(len(values)),
                "folds": len(values),
                "rows": int(sum(each["test/n"] for each in metrics)),
                "seconds": float(np.mean([_seconds_alone(each) for each in metrics])),
            }
        )
    return pd.DataFrame(rows).sort_values(metric, ascending=False, kind="stable").reset_index(drop=True)


def _seconds_alone(metrics: Mapping[str, float]) -> float:
    """Seconds that a job would have taken if it had made all artifacts that it reads."""
    return metrics["time/wall_s"] - metrics["time/artifacts_made_s"] + metrics["time/artifacts_s"]


def read_choice(study: Path) -> Choice | None:
    """The choice that a study's jobs come from, if there was one."""
    path = study / FILE
    return described(pd.read_csv(path)) if path.exists() else None


def described(scores: pd.DataFrame) -> Choice:
    metric = next(name for name in TITLES if name in scores)
    best = scores.iloc[0]
    spread = [f"{mean:.3f} ± {error:.3f}" for mean, error in zip(scores[metric], scores["standard_error"], strict=True)]
    title = TITLES[metric]
    table = pd.DataFrame(
        {
            "Settings": scores["settings"].astype(str),
            f"{title[0].upper()}{title[1:]} ± standard error": spread,
            "Seconds a fold": [f"{seconds:,.0f}" for seconds in scores["seconds"]],
        }
    )
    return Choice(f"Chosen on {best['folds']} folds of {best['rows']:,} labelled rows by {title}, best first", table)
