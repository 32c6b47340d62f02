"""Training throughput: `findistill.training.trainer` against the Hugging Face Trainer.

Same weights (MiniLM-L6), texts, batch size, truncation, precision and number of steps; texts are tokenised beforehand for
both, with no validation, logging or saving in the timed part. The two alternate, and their medians are compared.

    python benchmarks/training_throughput.py [--steps 30] [--repeats 3] [--precision auto]

Reads twitter_financial_news from $FINDISTILL_DATA (or `../shared/data` next to the checkout), else the demo corpus.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that spin while they wait halve a shared machine's speed
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import pandas as pd
from demo_corpus import generate
from rates import print_rates

from findistill.core import hardware
from findistill.data.config import Data
from findistill.data.labels import LabelSet
from findistill.data.loading import load
from findistill.errors import UserError
from findistill.models.config import Encoder
from findistill.models.encoders import quiet
from findistill.models.weights import locate
from findistill.training.config import Trainer
from findistill.training.loop import Session
from findistill.training.trainer import Examples, fit

BATCH, LENGTH, RATE = 32, 64, 5e-5


def examples(n: int) -> tuple[Examples, LabelSet, str]:
    """The first n training rows of real tweets, or of the generated demo corpus."""
    try:
        data = load(Data(_target_="findistill.data.sources.tfns.read", name="tfns"))
    except UserError:
        labels = LabelSet(("negative", "neutral", "positive"))
        return Examples.from_frame(pd.DataFrame(generate(n)), labels), labels, "demo"
    return Examples.from_frame(data.split("train").head(n), data.labels), data.labels, data.card.name


def ours(train: Examples, labels: LabelSet, precision: str, folder: Path) -> float:
    """Seconds of one epoch with `fit`."""
    encoder = Encoder(name="minilm_l6", model="embedded:minilm_l6", epochs=1, batch_size=BATCH, max_length=LENGTH)
    settings = Trainer(precision=precision, learning_rate=RATE)
    none = Examples([], [], np.zeros((0, len(labels)), np.float32), np.zeros(0, np.int64))
    return fit(encoder, None, labels, train, none, Session(settings, folder, tokens_cache=folder / "tokens")).train_s


def theirs(train: Examples, labels: LabelSet, precision: str, folder: Path, *, grouped: bool) -> float:
    """Seconds of one epoch with transformers' Trainer and its defaults (fused AdamW, dynamic padding)."""
    import torch
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
        PrinterCallback,
        Trainer,
        TrainingArguments,
    )

    where = locate("embedded:minilm_l6")
    tokenizer = AutoTokenizer.from_pretrained(where)
    with quiet():
        model = AutoModelForSequenceClassification.from_pretrained(where, num_labels=len(labels), dtype=torch.float32)
    encoded = tokenizer(train.texts, truncation=True, max_length=LENGTH)["input_ids"]
    rows = [{"input_ids": ids, "label": int(label)} for ids, label in zip(encoded, train.hard, strict=True)]
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=BATCH,
        num_train_epochs=1,
        learning_rate=RATE,
        warmup_steps=0.1,
        weight_decay=0.01,
        bf16=precision == "bf16",
        fp16=precision == "16",
        use_cpu=hardware.device() == "cpu",
        train_sampling_strategy="group_by_length" if grouped else "random",
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    trainer = Trainer(model=model, args=arguments, train_dataset=rows, data_collator=DataCollatorWithPadding(tokenizer))
    trainer.remove_callback(PrinterCallback)
    started = time.perf_counter()
    trainer.train()
    return time.perf_counter() - started


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--precision", default="auto", choices=["auto", "32", "bf16", "16"])
    parser.add_argument("--grouped", action="store_true", help="the peer groups by length too (it does not by default)")
    options = parser.parse_args()
    precision = hardware.precision(options.precision)
    train, labels, name = examples(options.steps * BATCH)
    seconds: dict[str, list[float]] = {"findistill": [], "transformers.Trainer": []}
    with tempfile.TemporaryDirectory() as folder:
        ours(train, labels, precision, Path(folder))  # warms up both: imports, tokens, kernels
        for _ in range(options.repeats):
            seconds["findistill"].append(ours(train, labels, precision, Path(folder)))
            peer = theirs(train, labels, precision, Path(folder), grouped=options.grouped)
            seconds["transformers.Trainer"].append(peer)
    print(f"MiniLM-L6, {name}, {len(train)} examples, batch {BATCH}, length {LENGTH}, {precision}, {hardware.describe()}")
    ratio = print_rates(seconds, len(train), "examples")
    print(f"ratio {ratio:.2f}")
    return 0 if ratio >= 1 else 1


if __name__ == "__main__":
    sys.exit(main())
