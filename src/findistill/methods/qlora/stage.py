"""`stage=qlora`: tune an in-process language model on human labels, its weights frozen and quantised (QLoRA) or not (LoRA).

Needs a labelled data set and an `llm` that runs in this process. Prompts are those of annotation, without
demonstrations; the answer is the label's word. The epoch is selected on validation rows; each test row is scored once, by the
probabilities of the label words, with the adapter loaded from disk.

Writes the adapter (never the base) to `model/`, predictions, metrics and figures, and with `qlora.merge` the merged model to
`merged/`. An adapter is tuned once: other stages reuse it with `llm.adapter=tune`, or by this run folder's path.
"""

import logging
import shutil
from typing import cast

import numpy as np

from findistill.config.instantiate import build
from findistill.core.files import read_json
from findistill.core.job import Job
from findistill.data.labels import LabelSet
from findistill.inference.latency import llm_latency
from findistill.llm.config import InProcessLLM
from findistill.llm.in_process import InProcessEngine
from findistill.llm.label_reader import label_probabilities
from findistill.llm.prompts import template
from findistill.methods import rows as reading
from findistill.methods import scoring
from findistill.methods.provenance import provenance
from findistill.methods.qlora.adapters import SUMMARY
from findistill.methods.qlora.card import write_adapter_card
from findistill.models.causal_lm import merged
from findistill.stats.alignment import align_predictions, prediction_frame

log = logging.getLogger(__name__)

METRICS = {  # name in the artifact's summary -> metric
    "texts": "data/kept", "train_s": "time/train_s", "cpu_s": "time/cpu_s", "best_epoch": "train/best_epoch",
    "examples_per_s": "train/examples_per_s", "parameters": "model/parameters", "trainable": "model/trainable",
    "megabytes": "model/mb", "host_peak_mb": "memory/train_peak_mb", "device_peak_mb": "memory/train_device_peak_mb",
}  # fmt: skip


def run(job: Job) -> None:
    data, tests, folder = reading.dataset(job), reading.test_sets(job), job.parents["adapter"]
    summary = read_json(folder / SUMMARY)
    job.metrics |= {metric: summary[name] for name, metric in METRICS.items() if summary[name] is not None}
    job.metrics |= {"data/kept_share": 1.0, "train/minutes": summary["train_s"] / 60}
    best = summary["history"][summary["best_epoch"] - 1]
    job.metrics |= {name: value for name, value in best.items() if name.startswith("val/")}
    shutil.copytree(folder / "model", job.folder / "model")
    score(job, tests, data.labels, summary["history"])
    texts = int(job.metrics["data/kept"])
    write_adapter_card(job.folder / "model", job.whole, data.labels.names, texts, provenance(job), job.metrics)
    if job.config.qlora.merge:
        merge(job)
    scoring.summary(job)


def score(job: Job, tests: reading.TestSets, labels: LabelSet, history: list[dict[str, float]]) -> None:
    """Score the tuned model once on every test set, and write predictions, metrics and figures."""
    form = template(job.config.prompt, labels)
    engine = cast(InProcessEngine, build(job.config.llm, "llm", adapter=str(job.folder / "model")))
    texts, seconds = 0, 0.0
    for prefix, (rows, label_set) in tests.items():
        shares, took = label_probabilities(engine, form, rows["text"].tolist())
        texts, seconds = texts + len(rows), seconds + took
        predicted = [labels.names[column] for column in np.argmax(shares, axis=1)]
        aligned, names = align_predictions(
            shares, predicted, labels.names, label_set.names, model="llm", label_map=job.config.evaluate.label_map
        )
        frame = prediction_frame(rows, aligned, names, label_set.names)
        scoring.record(job, prefix, frame, label_set.names, history)
    job.metrics["throughput/texts_per_s"] = texts / seconds
    if job.config.evaluate.latency:
        first = next(iter(tests.values()))[0]["text"].tolist()
        job.metrics |= llm_latency(lambda texts: label_probabilities(engine, form, texts), first)


def merge(job: Job) -> None:
    """Write the merged model, dequantised to `llm.dtype`, so that plain transformers opens it."""
    llm = cast(InProcessLLM, job.config.llm)
    whole = merged(llm.model, str(job.folder / "model"))
    whole.save_pretrained(job.folder / "merged")
    for path in (job.folder / "model").iterdir():
        if path.name.startswith(("tokenizer", "special_tokens", "spiece", "chat_template", "vocab", "merges")):
            shutil.copy(path, job.folder / "merged")
    log.info("merged model: %s", job.folder / "merged")
