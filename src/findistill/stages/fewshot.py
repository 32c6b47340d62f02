"""`stage=fewshot`: an LLM classifies the test rows, each asked once, with `shots.k` demonstrations in its prompt.

Needs labelled test rows and, for demonstrations, labelled rows beside them. Asks as `stage=annotate` does (one engine, one
journal: nothing is asked twice), by default for one answer a text at temperature 0. Leaves predictions, metrics and
figures, as training stages do; fine-tuned models of the same study are compared with it on the same rows.

`seed` draws the demonstrations. Jobs that must be equal (no demonstrations, or the nearest, under several seeds) share
their answers, which are an artifact.
"""

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from findistill.runs.files import read_json, write_json
from findistill.runs.store import digest
from findistill.settings.compose import plain, with_overrides
from findistill.settings.rules import tunes
from findistill.stages import inputs, scoring, tuning

if TYPE_CHECKING:
    import pandas as pd

    from findistill.data import TextData
    from findistill.data.labels import LabelSet
    from findistill.llm.engine import Engine
    from findistill.runs.job import Job
    from findistill.settings.schema import LLM, Config

log = logging.getLogger(__name__)

READS = ("data", "llm", "prompt", "shots", "annotate", "fewshot", "evaluate")
TIMED = 10  # texts asked one by one for the latency


def reads(config: "Config") -> tuple[str, ...]:
    return (*READS, "qlora", "trainer") if tunes(config) else READS


def run(job: "Job") -> None:
    data = inputs.dataset(job)
    job.config = tuning.with_adapter(job, data, alike(job.config))
    pool = inputs.drop_tested(inputs.labelled_pool(job, data), inputs.test_sets(job, data))
    spent: list[dict[str, float]] = []
    for prefix, (rows, labels) in test_sets(job, data).items():
        folder = _asked(job, data, rows, pool)
        scoring.record(job, prefix, _predictions(folder, rows, data.labels.names, labels.names), labels.names)
        spent.append(_spent(folder))
    job.metrics |= _costs(job.config, spent)
    if dropped := job.metrics["data/shots_dropped"]:
        log.info("%d demonstrations did not fit into their prompts and were left out", dropped)
    scoring.summary(job)


def test_sets(job: "Job", data: "TextData") -> "dict[str, tuple[pd.DataFrame, LabelSet]]":
    """The test sets, each at most `fewshot.limit` rows: a stratified sample, the same for every llm, k and seed."""
    from findistill.data.splits import sample

    sets, limit = inputs.test_sets(job, data), job.config.fewshot.limit
    if limit is None:
        return sets
    return {prefix: (sample(rows, limit, job.config.data.seed, labels), labels) for prefix, (rows, labels) in sets.items()}


def alike(config: "Config") -> "Config":
    """The same settings, those that change nothing set to one value: jobs that must be equal then have one artifact."""
    if config.shots.k == 0:
        return with_overrides(config, "shots.selection=random shots.seed=0 shots.order=null", "shots")
    if config.shots.selection == "nearest":
        return with_overrides(config, "shots.seed=0", "shots")
    return config


def how(config: "Config") -> str:
    """`Template.scoring` for these settings: sum, mean or generation."""
    settings = config.fewshot
    likelihood = settings.scoring == "likelihood" or (settings.scoring == "auto" and hasattr(config.llm, "batch_tokens"))
    return settings.normalise if likelihood else "generation"


def _asked(job: "Job", data: "TextData", rows: "pd.DataFrame", pool: "pd.DataFrame") -> Path:
    """The artifact of the llm's answers to these rows."""
    from findistill.llm.annotate import annotate, annotation_key
    from findistill.llm.sizes import foresee

    config = job.config
    key: dict[str, Any] = {
        "settings": annotation_key(config),
        "scoring": how(config),
        "labels": list(data.labels.names),
        "texts": inputs.texts_hash(rows),
        "pool": digest(pool[["id", "text", "label"]].to_numpy().tolist(), 16),
    }

    def make(folder: Path) -> None:
        size = foresee(config.llm, config.trainer.max_memory, sampling=bool(config.prompt.steps) and how(config) != "generation")
        llm, shots = config.llm.name, config.shots
        log.info("asking %s for %s texts, %d demonstrations (%s)", llm, f"{len(rows):,}", shots.k, shots.selection)
        engine = _engine(config.llm)
        annotate(rows, pool, data.labels, config, folder, journal=inputs.journal(job), engine=engine, scoring=how(config))
        speed = _latency(engine, rows, pool, data.labels, config) if config.evaluate.latency else {}
        write_json(folder / "speed.json", speed | ({"model/parameters": size.parameters} if size else {}))

    return job.artifact("annotate", key, make, resumable=True)


_LAST: dict[str, "Engine"] = {}


def _engine(llm: "LLM") -> "Engine":
    """The engine for this llm. The last one stays loaded: the jobs of a sweep share a process."""
    from findistill.settings.build import build

    key = json.dumps(plain(llm), sort_keys=True)
    if key not in _LAST:
        _LAST.clear()  # before the next model takes its memory
        _LAST[key] = build(llm)  # type: ignore[arg-type]
    return _LAST[key]


def _predictions(folder: Path, rows: "pd.DataFrame", names: tuple[str, ...], allowed: tuple[str, ...]) -> "pd.DataFrame":
    """The predictions over `allowed`, the test set's labels, where the llm chose among `names`.

    Where only an answer is known and no distribution, all probability is its label's.
    """
    import pandas as pd

    answered = pd.read_parquet(folder / "annotations.parquet")
    kind = "p" if f"p_{names[0]}" in answered else "soft"
    probabilities = answered[[f"{kind}_{name}" for name in names]].to_numpy()
    predicted = [label if isinstance(label, str) else None for label in answered["label"]]
    if set(names) != set(allowed):
        given = probabilities[:, [names.index(name) for name in allowed if name in names]].sum(axis=1) > 0
        probabilities = scoring.forced_choice(probabilities, names, allowed)
        predicted = [allowed[at] if known else None for at, known in zip(probabilities.argmax(axis=1), given, strict=True)]
    else:
        probabilities = probabilities[:, [names.index(name) for name in allowed]]
    return scoring.prediction_frame(rows, probabilities, predicted, allowed)


def _latency(
    engine: "Engine", rows: "pd.DataFrame", pool: "pd.DataFrame", labels: "LabelSet", config: "Config"
) -> dict[str, float]:
    """Milliseconds from a text to its label, one text at a time, in this process; nothing for a server."""
    from time import perf_counter

    import numpy as np

    from findistill.llm import demonstrations, prompts
    from findistill.llm.engine import Sampling, Task

    if not hasattr(config.llm, "batch_tokens"):
        return {}
    sampling = Sampling(config.annotate.temperature, config.annotate.seed)
    template = engine.prepare(replace(prompts.template(config.prompt, labels), scoring=how(config)), sampling)
    texts = rows["text"].head(TIMED + 1).tolist()
    chosen = demonstrations.choose(texts, pool, labels, config.shots)
    took = []
    for row, text in enumerate(texts):
        started = perf_counter()
        list(engine.answers([Task("timed", text, chosen.of(row), (0,))], template, sampling))
        took.append(1000 * (perf_counter() - started))
    took = took[1:] or took  # the first one warms up
    return {"latency/p50_ms": float(np.percentile(took, 50)), "latency/p95_ms": float(np.percentile(took, 95))}


def _spent(folder: Path) -> dict[str, float]:
    """What the answers of an artifact took when they were asked."""
    with (folder / "samples.jsonl").open(encoding="utf-8") as lines:
        answers = [json.loads(line) for line in lines]
    return {
        **read_json(folder / "summary.json"),
        **read_json(folder / "speed.json"),
        "dropped": sum({answer["id"]: answer["dropped"] or 0 for answer in answers if answer["sample"] == 0}.values()),
    }


def _costs(config: "Config", spent: list[dict[str, Any]]) -> dict[str, float]:
    """Metrics of what all test sets took together; latency is the first one's.

    A server's seconds are those of its calls, `annotate.concurrency` of which are in flight.
    """

    def total(name: str) -> float:
        return float(sum(each[name] for each in spent))

    texts, side_by_side = total("texts"), 1 if hasattr(config.llm, "batch_tokens") else config.annotate.concurrency
    found = {
        "data/shots_dropped": total("dropped"),
        "fewshot/tokens_per_text": (total("tokens_in") + total("tokens_out")) / texts,
        "fewshot/seconds": total("seconds"),
        **{name: value for name, value in spent[0].items() if name.startswith(("latency/", "model/"))},
    }
    if found["fewshot/seconds"]:
        found["throughput/texts_per_s"] = side_by_side * texts / found["fewshot/seconds"]
    if all(each["cost_usd"] is not None for each in spent):
        found["cost/usd"] = total("cost_usd")
        found["cost/usd_per_1000_texts"] = 1000 * found["cost/usd"] / texts
    return found
