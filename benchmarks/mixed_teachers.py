"""How accurate a teacher and logistic regression on frozen embeddings are together, before a student learns from them.

For finished students of `distill=logit`, scores their teacher, logistic regression on the same labels, and three ways to
combine the two, on training texts whose labels were hidden from all of them. No test row is read. The combination used by
`distill=mixed` was chosen this way:

    python benchmarks/mixed_teachers.py runs/label_efficiency/student-*logit* --csv experiments/label_efficiency/mixing.csv
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import accuracy_score, f1_score

from findistill.config.restore import read_config
from findistill.core import run_folder
from findistill.inference.predict import open_classifier
from findistill.models.linear import fit_linear
from findistill.training.teacher_outputs import mean_logits

TEXTS = 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", help="run folders of students of distill=logit")
    parser.add_argument("--csv", type=Path, help="write the means over seeds to this file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    scores = pd.DataFrame([row for run in options.runs for row in combinations(run)])
    by = ["data", "labels", "combination"]
    means = scores.groupby(by, sort=False).agg(seeds=("seed", "nunique"), rows=("rows", "first"), accuracy=("accuracy", "mean"),
                                               macro_f1=("macro_f1", "mean"))  # fmt: skip
    print(means.round(3).to_string())
    if options.csv:
        means.round(4).reset_index().to_csv(options.csv, index=False)


def combinations(run: Path) -> Iterator[dict[str, object]]:
    """A row for each way to combine the two."""
    config = read_config(run / "config.yaml")
    frame = pd.read_parquet(artifact(run, "data") / "texts.parquet")
    labelled = frame[frame["split"] == "pool"]
    hidden = frame[frame["split"] == "train"]
    hidden = hidden.sample(min(TEXTS, len(hidden)), random_state=0)
    texts = hidden["text"].tolist()
    teacher = open_classifier(str(artifact(run, "teacher")))
    linear = fit_linear("embeddings", labelled["text"].tolist(), labelled["label"].tolist())
    names = list(linear.labels)
    answers = teacher(texts, config.trainer)
    first = answers.probabilities[:, [answers.labels.index(name) for name in names]]
    second = linear.probabilities(texts)
    logs = [np.log(each.clip(1e-30)) for each in (first, second)]
    ways = {
        "teacher alone": first, "frozen embeddings alone": second, "mean of probabilities": first + second,
        "mean of log-probabilities": logs[0] + logs[1], "mean of logits on one scale": mean_logits(logs),
    }  # fmt: skip
    for way, values in ways.items():
        predicted, gold = np.asarray(names)[values.argmax(axis=1)], hidden["label"]
        yield {
            "data": config.data.name, "labels": config.data.labelled, "seed": config.seed, "rows": len(texts), "combination": way,
            "accuracy": accuracy_score(gold, predicted), "macro_f1": f1_score(gold, predicted, average="macro"),
        }  # fmt: skip


def artifact(run: Path, kind: str) -> Path:
    path = run_folder.artifact_of(run, kind)
    if path is None:
        raise SystemExit(f"{run} names no artifact of the kind {kind}")
    return path


if __name__ == "__main__":
    main()
