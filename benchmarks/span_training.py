"""Training throughput of a GLiNER: findistill's loop against GLiNER's own trainer, same weights, texts, loss and steps.

A new GLiNER on the embedded MiniLM and synthetic headlines, one epoch, no validation, nothing saved in the timed part. The two
alternate, and their medians are compared. Needs the package gliner (pip install 'findistill[gliner]').

    python benchmarks/span_training.py [--steps 30] [--repeats 3] [--threads 2]
"""

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that spin while they wait halve a shared machine's speed
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from gliner.training import Trainer as GlinerTrainer
from gliner.training import TrainingArguments
from rates import print_rates
from span_prediction import NAMES, headlines
from transformers import PrinterCallback

from findistill.core import hardware
from findistill.data.spans import Marked, Span
from findistill.methods.entities import gliner_model as method
from findistill.methods.entities.config import Gliner
from findistill.models.gliner_model import Use, begin
from findistill.training.config import Trainer
from findistill.training.gliner import Focal, WindowRows
from findistill.training.loop import Session

LABELS = ("company",)
SECTION = Gliner(epochs=1, min_steps=None)


def marked(count: int) -> Marked:
    texts = headlines(count)
    spans = [[Span(at, at + len(name), "company") for name in NAMES if (at := text.find(name)) >= 0][:1] for text in texts]
    return Marked(texts, spans)


def ours(train: Marked, folder: Path) -> float:
    """Seconds of one epoch with `fit`."""
    session = Session(Trainer(accelerator="cpu", precision="32"), folder)
    return method.fit(SECTION, list(LABELS), train, Marked([], []), session).train_s


def theirs(train: Marked, folder: Path) -> float:
    """Seconds of one epoch with GLiNER's Trainer, using the same two learning rates, schedule, loss and weight decay."""
    torch.manual_seed(0)
    model = begin(SECTION.encoder, max_width=SECTION.max_width, max_length=SECTION.max_length).train()
    rows = WindowRows.of(model, train, Use.of(LABELS, None, None, SECTION.max_length))
    wording = dict(zip(LABELS, LABELS, strict=True))
    examples: list[Any] = [rows.cut.example(at, train.texts, train.spans[rows.cut.text[at]], wording) for at in range(len(rows))]
    focal = Focal(SECTION.focal_alpha, SECTION.focal_gamma)
    arguments = TrainingArguments(
        output_dir=str(folder), per_device_train_batch_size=SECTION.batch_size, num_train_epochs=1,
        learning_rate=SECTION.learning_rate, others_lr=SECTION.head_learning_rate, weight_decay=0.01, others_weight_decay=0.01,
        warmup_steps=0.1, focal_loss_alpha=focal.alpha, focal_loss_gamma=focal.gamma, use_cpu=True, save_strategy="no",
        logging_strategy="no", report_to="none", disable_tqdm=True,
    )  # fmt: skip
    trainer = GlinerTrainer(
        model=model, args=arguments, train_dataset=examples, data_collator=model._create_data_collator(),
        processing_class=model.data_processor.transformer_tokenizer,
    )  # fmt: skip
    trainer.remove_callback(PrinterCallback)
    started = time.perf_counter()
    trainer.train()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    train = marked(options.steps * SECTION.batch_size)
    seconds: dict[str, list[float]] = {"findistill": [], "GLiNER's own trainer": []}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(options.repeats + 1):  # the first round warms both up
            for name, run in (("findistill", ours), ("GLiNER's own trainer", theirs)):
                took = run(train, Path(folder) / name)
                if number:
                    seconds[name].append(took)
    print(f"a new GLiNER on MiniLM-L6, {len(train.texts)} headlines, batch {SECTION.batch_size}, {hardware.describe()}")
    ratio = print_rates(seconds, len(train.texts), "texts")
    print(f"ratio {ratio:.3f}: {100 * (1 / ratio - 1):+.1f}% of the library's own time")


if __name__ == "__main__":
    main()
