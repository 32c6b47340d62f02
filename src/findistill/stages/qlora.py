"""`stage=qlora`: tune an in-process language model on human labels, its weights frozen and quantised (QLoRA) or not (LoRA).

Needs a labelled data set and an `llm` that runs in this process. Prompts are those that annotation asks, without
demonstrations; the answer is the label's word. Epochs are chosen on validation rows; each test row is read once, by the
probabilities of the labels' words, from the adapter as it lies on disk.

Leaves the adapter in `model/`, never the base, predictions, metrics and figures, and with `qlora.merge` the whole model in
`merged/`. The same tuning is made once: other stages use it by `llm.adapter=tune`, or by this run folder's path.
"""

import logging
import shutil
from typing import TYPE_CHECKING, cast

from findistill.runs.files import read_json
from findistill.settings.schema import InProcessLLM
from findistill.stages import inputs, scoring
from findistill.stages.tuning import TUNED, trainer_of, tuned

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from findistill.data.labels import LabelSet
    from findistill.llm.in_process import InProcessEngine
    from findistill.llm.prompts import Template
    from findistill.runs.job import Job

log = logging.getLogger(__name__)

READS = ("data", "llm", "prompt", "qlora", "trainer", "evaluate", "seed")

TIMED = 20  # texts asked one at a time


def run(job: "Job") -> None:
    config = job.config
    data = inputs.dataset(job)
    tests = inputs.test_sets(job, data)
    folder = tuned(job, data, trainer_of(config), config.seed, job.tracker.lightning_loggers())
    took = read_json(folder / TUNED)
    account(job, took)
    shutil.copytree(folder / "model", job.folder / "model")
    score(job, tests, data.labels, took["history"])
    if config.qlora.merge:
        merge(job)
    scoring.summary(job)


def account(job: "Job", took: dict[str, float | list[dict[str, float]]]) -> None:
    """What tuning took, from the artifact, into the metrics."""
    names = {
        "texts": "data/kept", "train_s": "time/train_s", "cpu_s": "time/cpu_s", "best_epoch": "train/best_epoch",
        "examples_per_s": "train/examples_per_s", "parameters": "model/parameters", "trainable": "model/trainable",
        "megabytes": "model/mb", "host_peak_mb": "memory/train_peak_mb", "device_peak_mb": "memory/train_device_peak_mb",
    }  # fmt: skip
    job.metrics |= {metric: cast(float, took[name]) for name, metric in names.items() if took[name] is not None}
    job.metrics |= {"data/kept_share": 1.0, "train/minutes": cast(float, took["train_s"]) / 60}
    best = cast(list[dict[str, float]], took["history"])[int(cast(float, took["best_epoch"])) - 1]
    job.metrics |= {name: value for name, value in best.items() if name.startswith("val/")}


def score(
    job: "Job", tests: "dict[str, tuple[pd.DataFrame, LabelSet]]", labels: "LabelSet", history: list[dict[str, float]]
) -> None:
    """Ask the tuned model about every test set once, and leave predictions, metrics and figures."""
    import numpy as np

    from findistill.llm.in_process import InProcessEngine
    from findistill.llm.prompts import template
    from findistill.settings.build import build

    asked = template(job.config.prompt, labels)
    engine = cast(InProcessEngine, build(job.config.llm, adapter=str(job.folder / "model")))  # type: ignore[arg-type]
    texts, seconds = 0, 0.0
    for prefix, (rows, label_set) in tests.items():
        shares, took = ask(engine, asked, rows["text"].tolist())
        texts, seconds = texts + len(rows), seconds + took
        if set(label_set.names) == set(labels.names):
            shares = shares[:, [labels.index(name) for name in label_set.names]]
        else:
            shares = scoring.forced_choice(shares, labels.names, label_set.names)
        predicted = [label_set.names[column] for column in np.argmax(shares, axis=1)]
        scoring.record(job, prefix, scoring.prediction_frame(rows, shares, predicted, label_set.names), label_set.names, history)
    job.metrics["throughput/texts_per_s"] = texts / seconds
    if job.config.evaluate.latency:
        first = next(iter(tests.values()))[0]["text"].tolist()[:TIMED]
        single = [1000 * ask(engine, asked, [text])[1] for text in first]
        job.metrics |= {f"latency/p{share}_ms": float(np.percentile(single, share)) for share in (50, 95)}


def ask(engine: "InProcessEngine", asked: "Template", texts: list[str]) -> "tuple[np.ndarray, float]":
    """(n, n_labels) probabilities of the labels' words, and the seconds that reading them took, loading left out."""
    import numpy as np

    from findistill.llm.engine import Sampling, Task

    tasks = [Task(str(number), text, (), (0,)) for number, text in enumerate(texts)]
    scores, seconds = np.zeros((len(texts), len(asked.words))), 0.0
    for batch in engine.answers(tasks, asked, Sampling(0.0, 0)):
        for answer in batch:
            scores[int(answer.id)] = list((answer.log_probabilities or {}).values())
            seconds += answer.seconds
    return np.exp(scores), seconds


def merge(job: "Job") -> None:
    """Leave the tuned model as one, its weights as numbers of `llm.dtype`: plain transformers opens it."""
    from findistill.runs.language_model import merged

    llm = cast(InProcessLLM, job.config.llm)
    whole = merged(llm.model, str(job.folder / "model"))
    whole.save_pretrained(job.folder / "merged")
    for path in (job.folder / "model").iterdir():
        if path.name.startswith(("tokenizer", "special_tokens", "spiece", "chat_template", "vocab", "merges")):
            shutil.copy(path, job.folder / "merged")
    log.info("the whole model, adapter added in: %s", job.folder / "merged")
