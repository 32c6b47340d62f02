"""Create extractions, in which an LLM names the entities of rows, and estimate their requests and cost."""

import logging
import sys
from collections.abc import Sequence

import pandas as pd

from findistill.core.job import Job
from findistill.core.store import Work
from findistill.data.labels import COMPANY, SENTIMENT
from findistill.data.texts import TextData
from findistill.llm import extract
from findistill.llm.estimate import Estimate
from findistill.llm.extraction import template
from findistill.methods import rows as reading
from findistill.methods.annotate.annotations import cost_curve, rows_of, with_adapter
from findistill.methods.extract.steps import Extractions

log = logging.getLogger(__name__)


def extract_rows(work: Work) -> None:
    """Have the LLM name the entities of the step's rows, and write its votes."""
    rows, types = _rows(work)
    if rows.empty and work.step.rows.startswith("test/"):
        return  # the data has no test rows of its own, so the further sets move up and leave this place empty
    config, llm = work.config, with_adapter(work, work.config.llm)
    data = reading.dataset(work).card.name
    log.info("extracting %s from %s texts of %s with %s", ", ".join(types), f"{len(rows):,}", data, llm.name)
    extract.extract(
        rows, reading.demonstration_pool(work), types, llm, config.extract, config.shots, config.annotate, work.folder,
        cache=work.responses, max_memory=config.trainer.max_memory, curve=cost_curve(work),
    )  # fmt: skip


def types_of(data: TextData) -> Sequence[str]:
    """The entity types to name: the data's labels, or companies if it has no spans and its labels are sentiments."""
    names = data.labels.names
    return (COMPANY,) if "spans" not in data.frame and names == SENTIMENT else names


def _rows(work: Work) -> tuple[pd.DataFrame, Sequence[str]]:
    rows, _ = rows_of(work)
    return rows, types_of(reading.dataset(work))


def preview(job: Job) -> None:
    """`annotate.dry_run`: print the requests and cost; `annotate.show_prompt`: print a filled prompt. Nothing is sent."""
    steps = [step for step in job.step.inputs.values() if isinstance(step, Extractions)]
    for work in [job.store.at(step, job.folder) for step in steps]:
        config = work.config
        rows, types = _rows(work)
        if config.annotate.show_prompt and len(rows):
            first = rows.head(1)
            planned = extract.plan(first, reading.demonstration_pool(work), config.llm, config.shots)
            _, text, examples = next(iter(planned))
            for message in template(config.extract, types).messages(examples, text):
                sys.stdout.write(f"[{message['role']}]\n{message['content']}\n\n")
        if config.annotate.dry_run and len(rows):
            sys.stdout.write(f"{config.llm.name}, extract {config.extract.name}: {_estimate(work, rows, types).text()}\n")


def requests(work: Work) -> str:
    """The step's estimated requests and cost, in one line."""
    return _estimate(work, *_rows(work)).line()


def _estimate(work: Work, rows: pd.DataFrame, types: Sequence[str]) -> Estimate:
    config = work.config
    pool = reading.demonstration_pool(work)
    return extract.estimate(
        rows, pool, types, config.llm, config.extract, config.shots, config.annotate, cache=work.responses
    )  # fmt: skip
