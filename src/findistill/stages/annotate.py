"""`stage=annotate`: an LLM votes on unlabelled texts.

Needs a data set and, for shots, its labelled pool. Leaves the annotation artifact, which `stage=student` uses at every
threshold, and in the run folder what it cost and how good the annotator is wherever the source has gold labels.

`annotate.dry_run=true` says what it would ask and cost, `annotate.show_prompt=true` prints one filled prompt; neither asks.
"""

import logging
import sys
from typing import TYPE_CHECKING

from findistill.runs import job as jobs
from findistill.runs.files import replacing
from findistill.settings.rules import tunes
from findistill.settings.schema import Config
from findistill.stages import inputs
from findistill.stages.scoring import prediction_frame, summary

if TYPE_CHECKING:
    import pandas as pd

    from findistill.data.labels import LabelSet
    from findistill.runs.job import Job

log = logging.getLogger(__name__)

READS = ("data", "llm", "prompt", "shots", "annotate")


def reads(config: Config) -> tuple[str, ...]:
    return (*READS, "qlora", "trainer", "evaluate") if tunes(config) else READS


def run(job: "Job") -> None:
    from findistill.analysis import annotators, plots

    data = inputs.dataset(job)
    rows = inputs.unlabelled(job, data)
    voted = inputs.annotations(job, data, rows)
    folder = job.store.root / job.artifacts["annotate"]
    job.metrics |= annotators.measure(voted, folder, job.config.annotate.samples)
    _score(job, voted, data.labels)
    figures = plots.save(plots.agreement(voted), job.folder / "figures" / "agreement")
    job.tracker.figures(figures)
    log.info("annotations: %s", folder / "annotations.parquet")


def _score(job: "Job", voted: "pd.DataFrame", labels: "LabelSet") -> None:
    """Against the source's own labels, which the annotator never saw: the vote shares are its probabilities."""
    from findistill.analysis.metrics import evaluate

    known = voted[voted["gold"].notna()]
    if known.empty:
        return
    shares = known[[f"soft_{name}" for name in labels.names]].to_numpy()
    predicted = [label if isinstance(label, str) else None for label in known["label"]]
    frame = prediction_frame(known.assign(label=known["gold"]), shares, predicted, labels.names)
    with replacing(job.folder / "predictions.parquet") as aside:
        frame.to_parquet(aside, index=False)
    gold = frame["label"].tolist()
    job.metrics |= evaluate(gold, shares, predicted, labels.names, resamples=job.config.evaluate.resamples)
    summary(job)


def preview(config: Config) -> None:
    """Print a filled prompt, what the annotation would ask and cost, or both, without asking anything."""
    with jobs.aside(config) as job:
        for member in inputs.annotators(config):
            job.config = member
            _preview(job)


def _preview(job: "Job") -> None:
    from findistill.llm import demonstrations, prompts
    from findistill.llm.estimate import estimate

    config = job.config
    data = inputs.dataset(job)
    rows, pool = inputs.unlabelled(job, data), inputs.labelled_pool(job, data)
    template = prompts.template(config.prompt, data.labels)
    if config.annotate.show_prompt:
        first = rows["text"].iloc[:1].tolist()
        shown = demonstrations.choose(first, pool, data.labels, config.shots).of(0)
        for message in template.messages(shown, first[0]):
            sys.stdout.write(f"[{message['role']}]\n{message['content']}\n\n")
        if config.shots.rationales == "llm":
            sys.stdout.write("(the demonstrations' rationales are written by the llm when it runs)\n\n")
    if config.annotate.dry_run:
        exact = "in_process" in config.llm._target_ and not template.steps
        found = estimate(rows, pool, data.labels, config, inputs.journal(job), exact=exact)
        sys.stdout.write(f"{config.llm.name}, prompt {config.prompt.name}: {found.text()}\n")
