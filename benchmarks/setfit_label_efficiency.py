"""SetFit (Tunstall et al. 2022) on the labelled rows of the study `label_efficiency`, with the same test rows.

For each number of labels and each seed, all-MiniLM-L6-v2 (22.7 M parameters) is fine-tuned on the rows drawn by `data.labelled`
and `data.labelled_seed`, by SetFit's trainer with its default learning rates and then its logistic regression; unlabelled rows
are not used. SetFit runs in a separate environment, which sees this one's torch and transformers.

    python benchmarks/setfit_label_efficiency.py [--data tfns] [--labels 50,100,...] [--seeds 5] [--steps 500]

`setfit_trainings.csv` has a line per training with its predictions, one digit per test row; trainings already listed are
skipped. `setfit.csv` has their means with intervals over seeds and test rows, computed as in a report. 2,000 labels make two
million pairs, so the number of optimiser steps is bounded; with fewer than about 100 labels, SetFit's default single epoch is
shorter than the bound.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from peers import peer_python

REQUIREMENTS = ["setfit==1.2.0", "sentence-transformers==6.2.0", "evaluate==0.4.6"]
COLUMNS = ("data", "labels", "seed", "steps", "accuracy", "macro_f1", "train_s", "cpu_s", "predicted")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="tfns")
    parser.add_argument("--labels", default="50,100,250,500,1000,2000")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--env", type=Path, default=Path(".bench/setfit"))
    parser.add_argument("--out", type=Path, default=Path("experiments/label_efficiency"))
    parser.add_argument("--peer", help=argparse.SUPPRESS)  # a training's folder, in SetFit's environment
    options = parser.parse_args()
    if options.peer:
        peer(Path(options.peer))
        return
    python = peer_python(options.env, "setfit", REQUIREMENTS)
    for seed in range(options.seeds):
        for labels in map(int, options.labels.split(",")):
            key = {"data": options.data, "labels": str(labels), "seed": str(seed), "steps": str(options.steps)}
            if not any(key.items() <= row.items() for row in lines(options.out / "setfit_trainings.csv")):
                append(options.out / "setfit_trainings.csv", key | train(python, options.data, labels, seed, options.steps))
                summarise(options.out)


def lines(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def append(path: Path, row: dict[str, str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow(row)
    print(", ".join(f"{name} {value}" for name, value in row.items() if name != "predicted"), flush=True)


def summarise(folder: Path) -> None:
    """Means over seeds, with the columns of a report's table."""
    import numpy as np
    import pandas as pd

    import findistill
    from findistill.stats.intervals import seed_means

    rows = []
    trainings = pd.read_csv(folder / "setfit_trainings.csv", dtype={"predicted": str})
    for (data, labels, steps), own in trainings.groupby(["data", "labels", "steps"]):
        test = findistill.load_dataset(data, labelled=labels, labelled_seed=0, validation=0).test["label"]
        names = sorted(test.unique())
        gold = np.array([names.index(label) for label in test])
        predicted = np.array([[int(digit) for digit in one] for one in own["predicted"]])
        row = {
            "method": f"SetFit, minilm_l6 (data.labelled={labels})", "kind": "peer", "test_set": data, "test_rows": len(gold),
            "labels_used": labels, "n_seeds": len(own), "seeds": " ".join(map(str, own["seed"])), "steps": steps,
            "train_s": own["train_s"].mean(), "cpu_s": own["cpu_s"].mean(),
        }  # fmt: skip
        for key, one in seed_means(gold, predicted, len(names)).items():
            row |= {key: one.mean, f"{key}_sd": one.sd, f"{key}_lo": one.low, f"{key}_hi": one.high}
        rows.append(row)
    pd.DataFrame(rows).to_csv(folder / "setfit.csv", index=False)


def train(python: Path, data: str, labels: int, seed: int, steps: int) -> dict[str, str]:
    """Train in SetFit's environment, and score its predictions as a study does."""
    from sklearn.metrics import accuracy_score, f1_score

    import findistill
    from findistill.models.weights import locate

    texts = findistill.load_dataset(data, labelled=labels, labelled_seed=seed, validation=0)
    pool, test = texts.train, texts.test
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        request = {
            "model": str(locate("embedded:minilm_l6")), "texts": pool["text"].tolist(), "labels": pool["label"].tolist(),
            "test": test["text"].tolist(), "seed": seed, "steps": steps,
        }  # fmt: skip
        (folder / "request.json").write_text(json.dumps(request))
        subprocess.run([python, __file__, "--peer", str(folder)], check=True, stdout=subprocess.DEVNULL)
        answer = json.loads((folder / "answer.json").read_text())
    gold = test["label"].tolist()
    names = sorted(set(gold))
    return {
        "predicted": "".join(str(names.index(label)) for label in answer["predicted"]),
        "accuracy": f"{accuracy_score(gold, answer['predicted']):.4f}",
        "macro_f1": f"{f1_score(gold, answer['predicted'], labels=names, average='macro', zero_division=0):.4f}",
        "train_s": f"{answer['train_s']:.1f}",
        "cpu_s": f"{answer['cpu_s']:.1f}",
    }


def peer(folder: Path) -> None:
    """Train and predict; runs in SetFit's environment."""
    import torch
    from datasets import Dataset
    from setfit import SetFitModel, Trainer, TrainingArguments

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    request = json.loads((folder / "request.json").read_text())
    names = sorted(set(request["labels"]))
    model = SetFitModel.from_pretrained(request["model"], labels=names, device="cpu")
    arguments = TrainingArguments(
        output_dir=str(folder / "out"), batch_size=16, num_epochs=1, max_steps=request["steps"], seed=request["seed"],
        report_to="none", save_strategy="no", logging_strategy="no",
    )  # fmt: skip
    rows = Dataset.from_dict({"text": request["texts"], "label": [names.index(label) for label in request["labels"]]})
    start, processor = time.perf_counter(), time.process_time()
    Trainer(model=model, args=arguments, train_dataset=rows).train()
    times = {"train_s": time.perf_counter() - start, "cpu_s": time.process_time() - processor}
    predicted = [str(label) for label in model.predict(request["test"])]
    (folder / "answer.json").write_text(json.dumps({"predicted": predicted, **times}))


if __name__ == "__main__":
    sys.exit(main())
