"""Annotation: an LLM labels rows, or the votes of several LLMs are combined; and estimates of requests and cost."""

import logging
import sys
from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import OmegaConf

from findistill.config.expand import annotators
from findistill.config.fields import declares
from findistill.core.files import read_json
from findistill.core.job import Job
from findistill.core.step import load
from findistill.core.store import Work
from findistill.data.labels import LabelSet
from findistill.llm import demonstrations, prompts
from findistill.llm.aggregate import aggregate
from findistill.llm.annotate import annotate, vote
from findistill.llm.curve import CostCurve
from findistill.llm.estimate import Estimate, estimate
from findistill.llm.identity import selected
from findistill.methods import rows as reading
from findistill.methods.annotate.card import write_annotation_card
from findistill.methods.annotate.steps import HALF, LABELLED, TRAINING, Annotations

log = logging.getLogger(__name__)


def annotate_rows(work: Work) -> None:
    """Have the LLM label the step's rows, and write its votes."""
    rows, labels = rows_of(work)
    if work.step.rows != TRAINING and rows.empty:
        return  # the data has no test rows, so there is one test set less than planned
    llm = with_adapter(work, work.config.llm)
    log.info("annotating %s texts of %s with %s", f"{len(rows):,}", reading.dataset(work).card.name, llm.name)
    if "folds" in work.parents:
        votes = load("findistill.methods.cross_fit.folds:predict_texts")(work, rows["text"].tolist())
        vote(votes, rows, labels, work.config.annotate, work.folder)
    else:
        annotate_with(work, llm, rows, reading.demonstration_pool(work), labels, work.folder)
    describe(work)


def describe(work: Work) -> None:
    """Write the data card next to the annotations."""
    votes, summary = pd.read_parquet(work.folder / "annotations.parquet"), read_json(work.folder / "summary.json")
    write_annotation_card(work.folder, work.step.record, work.store.root, summary, votes=votes, texts=True)


def annotate_with(
    work: Work, llm: Any, rows: pd.DataFrame, pool: pd.DataFrame, labels: LabelSet, folder: Path, **options: Any
) -> None:
    """Have `llm` label `rows` with the step's prompt, shots and annotate sections; responses are cached in the store."""
    config = work.config
    annotate(
        rows, pool, labels, llm, config.prompt, config.shots, config.annotate, folder,
        cache=work.responses, max_memory=config.trainer.max_memory, curve=cost_curve(work), **options,
    )  # fmt: skip


def cost_curve(work: Work) -> CostCurve:
    """The job's only cost curve, which all annotators of an ensemble and all test sets share."""
    curve: CostCurve = work.store.shared.setdefault("cost curve", CostCurve(work.loggers))
    return curve


def rows_of(work: Work) -> tuple[pd.DataFrame, Any]:
    """The rows to annotate and the labels to choose from, by the step's `rows`; augmented texts come without their labels."""
    data, settings = reading.dataset(work), work.config.annotate
    if work.step.rows in (LABELLED, HALF):
        pool = reading.demonstration_pool(work)
        most = len(pool) // 2 if work.step.rows == HALF else len(pool)
        return reading.draw(pool, min(settings.measure_on, most), work.config.data.seed), data.labels
    if work.step.rows != TRAINING:
        tests = list(reading.test_sets(work).values())
        number = int(work.step.rows.partition("/")[2])
        return (tests[number][0] if number < len(tests) else data.frame.head(0)), data.labels
    rows = reading.rows_to_annotate(data, settings.limit, work.config.data.seed)
    new = reading.augmented_rows(work)
    if len(new):
        rows = pd.concat([rows, new.assign(label=None)], ignore_index=True)
    return rows, data.labels


def with_adapter(work: Work, llm: Any) -> Any:
    """The `llm` section, with the adapter tuned for it if the step has such a parent."""
    if "adapter" not in work.parents:
        return llm
    return OmegaConf.merge(llm, {"adapter": str(Path(work.parents["adapter"]) / "model")})


def combine(work: Work) -> None:
    """Aggregate the members' votes on the same texts."""
    folders, labelled = (
        [path for role, path in work.parents.items() if role.startswith(f"{kind}/")] for kind in ("member", "labelled")
    )
    if not any((folder / "annotations.parquet").is_file() for folder in folders):
        return  # a test set less than planned, see annotate_rows
    names = [annotator_name(member.config) for member in work.step.members]
    aggregate(folders, names, reading.dataset(work).labels, work.config.annotate.combine, work.folder, labelled)
    describe(work)


def annotator_name(config: Any) -> str:
    """The name of an annotator in an ensemble: its LLM and prompt or, for recorded answers, the rows and column used."""
    llm = config.llm
    if not declares(llm, "recorded"):
        return f"{llm.name} {config.prompt.name}"
    return " ".join(part for part in (llm.name, selected(llm.get("where")), llm.get("label_column")) if part)


def preview(job: Job) -> None:
    """`annotate.dry_run`: print an estimate of requests and cost; `annotate.show_prompt`: a filled prompt. Nothing is sent."""
    for work in [job.store.at(Annotations(config), job.folder) for config in annotators(job.step.whole)]:
        config = work.config
        if config.annotate.show_prompt:
            rows, labels = rows_of(work)
            first = rows["text"].iloc[:1].tolist()
            examples = demonstrations.select(first, reading.demonstration_pool(work), labels, config.shots).of(0)
            for message in prompts.template(config.prompt, labels).messages(examples, first[0]):
                sys.stdout.write(f"[{message['role']}]\n{message['content']}\n\n")
            if config.shots.rationales == "llm":
                sys.stdout.write("(the LLM writes the demonstrations' rationales at run time)\n\n")
        if config.annotate.dry_run:
            sys.stdout.write(f"{config.llm.name}, prompt {config.prompt.name}: {_estimate(work).text()}\n")


def requests(work: Work) -> str:
    """What the step would request and cost, in one line."""
    return _estimate(work).line()


def _estimate(work: Work) -> Estimate:
    rows, labels = rows_of(work)
    exact = declares(work.config.llm, "in_process") and not work.config.prompt.steps
    return estimate_with(work, rows, reading.demonstration_pool(work), labels, exact=exact)


def estimate_with(work: Work, rows: pd.DataFrame, pool: pd.DataFrame, labels: LabelSet, *, exact: bool) -> Estimate:
    """What `annotate_with` would still request for `rows`."""
    config = work.config
    return estimate(
        rows, pool, labels, config.llm, config.prompt, config.shots, config.annotate, cache=work.responses, exact=exact
    )
