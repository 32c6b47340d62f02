"""Asking an LLM about the rows of one test set."""

import json
import logging
from dataclasses import replace

import pandas as pd

from findistill.config.compose import plain
from findistill.config.fields import declares
from findistill.config.instantiate import build
from findistill.core.files import write_json
from findistill.core.store import Work
from findistill.data.labels import LabelSet
from findistill.data.splits import sample
from findistill.inference.latency import LLM_TEXTS, llm_latency
from findistill.llm import demonstrations, prompts
from findistill.llm.config import LLM
from findistill.llm.engine import Engine, Request, Sampling
from findistill.methods import rows as reading
from findistill.methods.annotate.annotations import annotate_with, estimate_with, with_adapter
from findistill.methods.fewshot.steps import scoring_mode
from findistill.models.memory import check_memory

log = logging.getLogger(__name__)


def ask(work: Work) -> None:
    """Write the responses to the step's test set and their speed; nothing if the data has no such set."""
    config, data = work.config, reading.dataset(work)
    rows, pool = rows_of(work)
    if rows.empty:
        return
    llm, scoring = with_adapter(work, config.llm), scoring_mode(config)
    size = check_memory(llm, config.trainer.max_memory, sampling=bool(config.prompt.steps) and scoring != "generation")
    shots = config.shots
    log.info("requesting labels of %s texts from %s, %d shots (%s)", f"{len(rows):,}", llm.name, shots.k, shots.selection)
    engine = loaded_engine(llm)
    annotate_with(work, llm, rows, pool, data.labels, work.folder, engine=engine, scoring=scoring)
    speed = _latency(work, engine, rows, pool, data.labels) if config.evaluate.latency and declares(llm, "in_process") else {}
    write_json(work.folder / "speed.json", speed | ({"model/parameters": size.parameters} if size else {}))


def requests(work: Work) -> str:
    """The step's estimated requests and cost, in one line."""
    config = work.config
    rows, pool = rows_of(work)
    if rows.empty:
        return "no requests"
    exact = declares(config.llm, "in_process") and scoring_mode(config) != "generation"
    return estimate_with(work, rows, pool, reading.dataset(work).labels, exact=exact).line()


def rows_of(work: Work) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows of the step's test set, and the pool of demonstrations.

    The last set has no rows if the data has no test rows of its own: the further sets then move up.
    """
    tests = reading.test_sets(work)
    pool = reading.drop_test_overlap(reading.demonstration_pool(work), tests)
    if work.step.number >= len(tests):
        return pool.head(0), pool
    return limited(work, *list(tests.values())[work.step.number]), pool


def limited(work: Work, rows: pd.DataFrame, labels: LabelSet) -> pd.DataFrame:
    """At most `fewshot.limit` rows: a stratified sample, the same for every llm, k and seed."""
    limit = work.config.fewshot.limit
    return rows if limit is None else sample(rows, limit, work.config.data.seed, labels)


_LAST: dict[str, Engine] = {}


def loaded_engine(llm: LLM) -> Engine:
    """The engine for this llm. The last one stays loaded: the jobs of a sweep share a process."""
    key = json.dumps(plain(llm), sort_keys=True)
    if key not in _LAST:
        _LAST.clear()  # frees memory before the next model is loaded
        _LAST[key] = build(llm, "llm")  # type: ignore[arg-type]
    return _LAST[key]


def _latency(work: Work, engine: Engine, rows: pd.DataFrame, pool: pd.DataFrame, labels: LabelSet) -> dict[str, float]:
    """Milliseconds from a text to its label, one text at a time, in this process."""
    config = work.config
    sampling = Sampling(config.annotate.temperature, config.annotate.seed)
    template = engine.prepare(replace(prompts.template(config.prompt, labels), scoring=scoring_mode(config)), sampling)
    texts = rows["text"].head(LLM_TEXTS + 1).tolist()
    examples = demonstrations.select(texts, pool, labels, config.shots)
    requests = {text: Request("timed", text, examples.of(row), (0,)) for row, text in enumerate(texts)}
    return llm_latency(lambda batch: list(engine.responses([requests[text] for text in batch], template, sampling)), texts)
