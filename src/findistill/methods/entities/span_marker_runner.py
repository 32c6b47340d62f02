"""Trains a SpanMarker, and predicts with one: a script for the environment that has the package span_marker.

It does not import findistill, whose environment has another transformers. `train FOLDER` reads request.json, train.jsonl and
validation.jsonl in FOLDER (`words`, `entities`: first word, last word, label), prints a line of JSON for each step and epoch,
and writes model/ and history.json there.
`predict FOLDER` loads the model, prints `ready`, and answers each line of standard input, a list of lists of words, with one
line: the entities of each list, [first word, last word, label, probability].
"""

import json
import random
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from span_marker import SpanMarkerModel, Trainer
from span_marker.data_collator import SpanMarkerDataCollator
from transformers import TrainerCallback, TrainingArguments

BATCH = 32
ANSWERS, sys.stdout = sys.stdout, sys.stderr  # so that libraries do not print among the answers


def answer(value: Any) -> None:
    print(value if isinstance(value, str) else json.dumps(value), file=ANSWERS, flush=True)


class TightCollator(SpanMarkerDataCollator):
    """Pads to the longest input of a batch, not to the model's maximum as the library does: the same outputs, faster."""

    marker_max_length: int

    def __call__(self, features: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        lengths = (len(each["input_ids"]) + len(each["input_ids"]) % 2 + 2 * each["num_spans"] for each in features)
        maximum = self.tokenizer.model_max_length
        spans, self.marker_max_length = self.marker_max_length, (max(lengths) + maximum % 2 - maximum) // 2
        try:
            return super().__call__(features)  # pads to maximum + 2 * marker_max_length
        finally:
            self.marker_max_length = spans


def load_model(where: str, **settings: Any) -> Any:
    model = SpanMarkerModel.from_pretrained(where, **settings)
    model.data_collator = TightCollator(model.tokenizer, model.data_collator.marker_max_length)
    return model


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def tagged(rows: list[dict[str, Any]], number: dict[str, int]) -> Any:
    """Rows in SpanMarker's training format: `tokens`, and `ner_tags` as numbers of BIO tags."""
    tags = []
    for row in rows:
        own = [0] * len(row["words"])
        for first, last, label in row["entities"]:
            own[first] = number[f"B-{label}"]
            own[first + 1 : last + 1] = [number[f"I-{label}"]] * (last - first)
        tags.append(own)
    return Dataset.from_dict({"tokens": [row["words"] for row in rows], "ner_tags": tags})


def entities(model: Any, words: list[list[str]]) -> list[list[list[Any]]]:
    """The entities of each list of words, in the lists' order; predicted in batches of similar length."""
    order = sorted((at for at in range(len(words)) if words[at]), key=lambda at: -len(words[at]))
    predicted: list[list[list[Any]]] = [[] for _ in words]
    for start in range(0, len(order), BATCH):
        part = order[start : start + BATCH]
        for at, own in zip(part, model.predict([words[at] for at in part], batch_size=BATCH), strict=True):
            predicted[at] = [
                [each["word_start_index"], each["word_end_index"] - 1, each["label"], float(each["score"])] for each in own
            ]
    return predicted


def exact_f1(rows: list[dict[str, Any]], predicted: list[list[list[Any]]]) -> float:
    gold = [{tuple(each) for each in row["entities"]} for row in rows]
    guess = [{tuple(each[:3]) for each in own} for own in predicted]
    both = sum(map(len, gold)) + sum(map(len, guess))
    return 2 * sum(len(one & other) for one, other in zip(gold, guess, strict=True)) / both if both else 0.0


class Best(TrainerCallback):
    """Computes exact F1 on the validation rows after each epoch, keeps the best epoch's model, and prints progress."""

    def __init__(self, folder: Path, rows: list[dict[str, Any]]) -> None:
        self.folder, self.rows, self.best, self.started = folder, rows, -1.0, time.perf_counter()
        self.history: list[dict[str, float]] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        answer({"step": state.global_step, "steps": state.max_steps})

    def on_epoch_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        losses = [each["loss"] for each in state.log_history if "loss" in each]
        row = {"epoch": round(state.epoch or 0), "train/loss": losses[-1] if losses else 0.0}
        if self.rows:
            model.eval()
            row["val/f1"] = row["val/macro_f1"] = exact_f1(self.rows, entities(model, [each["words"] for each in self.rows]))
            model.train()
        row["seconds"], self.started = time.perf_counter() - self.started, time.perf_counter()
        self.history.append(row)
        if not self.rows or row["val/f1"] > self.best:
            self.best = row.get("val/f1", 0.0)
            model.save_pretrained(self.folder / "model")
        answer(row)


def train(folder: Path) -> None:
    request = json.loads((folder / "request.json").read_text(encoding="utf-8"))
    random.seed(request["seed"])
    np.random.seed(request["seed"])
    torch.manual_seed(request["seed"])
    rows, validation = rows_of(folder / "train.jsonl"), rows_of(folder / "validation.jsonl")
    tags = ["O", *(f"{prefix}-{label}" for label in request["labels"] for prefix in "BI")]
    model = load_model(
        request["start"], labels=tags, model_max_length=request["max_length"], marker_max_length=request["marker_length"],
        entity_max_length=request["entity_length"],
    )  # fmt: skip
    arguments = TrainingArguments(
        output_dir=str(folder / "trainer"), learning_rate=request["learning_rate"], num_train_epochs=request["epochs"],
        per_device_train_batch_size=request["batch_size"], weight_decay=request["weight_decay"], seed=request["seed"],
        warmup_ratio=request["warmup"], use_cpu=request["cpu"], save_strategy="no", eval_strategy="no", report_to=[],
        logging_steps=10, disable_tqdm=True, bf16=request["precision"] == "bf16-mixed", fp16=request["precision"] == "16-mixed",
        group_by_length=True,  # an input has two tokens for each candidate span, so lengths differ more than texts do
    )  # fmt: skip
    best = Best(folder, validation)
    trainer = Trainer(
        model=model, args=arguments, train_dataset=tagged(rows, {tag: at for at, tag in enumerate(tags)}), callbacks=[best]
    )
    started, processor = time.perf_counter(), time.process_time()
    trainer.train()
    took = {"train_s": time.perf_counter() - started, "cpu_s": time.process_time() - processor}
    size = sum(value.numel() for value in model.parameters())
    result = {"history": best.history, **took, "parameters": size, "megabytes": 4 * size / 1e6}
    (folder / "history.json").write_text(json.dumps(result), encoding="utf-8")


def predict(folder: Path) -> None:
    model = load_model(str(folder)).eval()
    if torch.cuda.is_available() and "--cpu" not in sys.argv:
        model.cuda()
    answer("ready")
    for line in sys.stdin:
        answer(entities(model, json.loads(line)))


if __name__ == "__main__":
    {"train": train, "predict": predict}[sys.argv[1]](Path(sys.argv[2]))
