"""`stage=fewshot`: an LLM classifies the test rows once, with `shots.k` demonstrations in its prompt.

Needs labelled test rows and, for demonstrations, other labelled rows. Requests responses as `stage=annotate` does (same engine
and response cache), by default one per text at temperature 0. Writes predictions, metrics and figures, as training stages do;
fine-tuned models of the same study are compared with it on the same rows. `seed` draws the demonstrations.
"""

import json
import logging
from pathlib import Path
from typing import Any

import pandas as pd

from findistill.config.fields import declares
from findistill.core.files import read_json
from findistill.core.job import Job
from findistill.core.step import Settings
from findistill.methods import rows as reading
from findistill.methods import scoring
from findistill.methods.fewshot.responses import limited
from findistill.stats.alignment import align_predictions, prediction_frame

log = logging.getLogger(__name__)


def run(job: Job) -> None:
    data = reading.dataset(job)
    spent: list[dict[str, Any]] = []
    for number, (prefix, (rows, labels)) in enumerate(reading.test_sets(job).items()):
        folder = job.parents[f"responses/{number}"]
        answered = limited(job, rows, labels)
        frame = predictions(folder, answered, data.labels.names, labels.names, job.config.evaluate.label_map)
        scoring.record(job, prefix, frame, labels.names)
        if adapter := job.config.llm.get("adapter"):
            job.metrics |= scoring.overlap(adapter, frame, prefix)
        spent.append(used(folder))
    job.metrics |= costs(job.config, spent)
    if dropped := job.metrics["data/shots_dropped"]:
        log.info("dropped %d demonstrations that did not fit into their prompts", dropped)
    scoring.summary(job)


def predictions(
    folder: Path, rows: pd.DataFrame, names: tuple[str, ...], allowed: tuple[str, ...], label_map: Any = None
) -> pd.DataFrame:
    """Predictions over `allowed`, the test set's labels, from an LLM that chose among `names`.

    If only an answer is known and no distribution, its label has probability 1.
    """
    annotations, shares = reading.read_votes(folder, names)
    if f"p_{names[0]}" in annotations:
        annotations, shares = reading.read_votes(folder, names, "p")
    predicted = reading.optional_labels(annotations["label"])
    shares, labels = align_predictions(shares, predicted, names, allowed, model=str(folder), label_map=label_map)
    return prediction_frame(rows, shares, labels, allowed)


def used(folder: Path) -> dict[str, float]:
    """Cost, speed and dropped demonstrations of an artifact's responses, as recorded when they were requested."""
    with (folder / "samples.jsonl").open(encoding="utf-8") as lines:
        answers = [json.loads(line) for line in lines]
    return {
        **read_json(folder / "summary.json"),
        **read_json(folder / "speed.json"),
        "dropped": sum({answer["id"]: answer["dropped"] or 0 for answer in answers if answer["sample"] == 0}.values()),
    }


def costs(config: Settings, spent: list[dict[str, Any]]) -> dict[str, float]:
    """Total cost of all test sets, as metrics; latency is that of the first.

    A server's seconds are summed over its calls, `annotate.concurrency` of which run in parallel.
    """
    names = ("texts", "dropped", "tokens_in", "tokens_out", "seconds")
    texts, dropped, tokens_in, tokens_out, seconds = (float(sum(each[name] for each in spent)) for name in names)
    parallel = 1 if declares(config.llm, "local") else config.annotate.concurrency
    metrics = {name: value for name, value in spent[0].items() if name.startswith(("latency/", "model/"))}
    metrics |= {"data/shots_dropped": dropped, "fewshot/seconds": seconds}
    metrics["fewshot/tokens_per_text"] = (tokens_in + tokens_out) / texts
    if seconds:
        metrics["throughput/texts_per_s"] = parallel * texts / seconds
    if all(each["cost_usd"] is not None for each in spent):
        cost = float(sum(each["cost_usd"] for each in spent))
        metrics |= {"cost/usd": cost, "cost/usd_per_1000_texts": 1000 * cost / texts}
    return metrics
