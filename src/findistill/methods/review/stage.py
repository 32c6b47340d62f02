"""`stage=review`: push the texts that an annotator is least certain of, and pull the reviewers' decisions.

One command does both and can be repeated: it adds missing texts and reads the decisions made so far. Writes
`reviewed.parquet`, which `data.reviewed` turns into human labels, `conflicts.csv`, and a summary.
"""

import logging
from collections.abc import Mapping

import pandas as pd

from findistill.core.files import replacing, write_json, write_whole
from findistill.core.job import Job
from findistill.core.store import Work
from findistill.data.reviewed import ACCEPTED
from findistill.errors import UserError
from findistill.methods import rows as reading
from findistill.methods.review import decisions, suggestions
from findistill.methods.review.agreement import agreement
from findistill.methods.review.backends import Content, backend
from findistill.methods.review.decisions import CONFLICT, Suggestion
from findistill.report import tables

log = logging.getLogger(__name__)


def check(work: Work) -> None:
    """Check the back end before an annotator is paid for."""
    backend(work.config.review).check()


def run(job: Job) -> None:
    settings, rows = job.config.review, suggestions.read(job.parents["annotations"])
    question, ranked = suggestions.question(rows, reading.dataset(job)), suggestions.ordered(rows)
    by_id = {each.id: each for each in ranked}
    place = backend(settings)
    content = place.read(question, by_id)
    check_same_texts(content, by_id, place.place)
    reviewed = decisions.frame(content.decisions, by_id, question, settings.adjudicator)
    with replacing(job.folder / "reviewed.parquet") as path:
        reviewed.to_parquet(path, index=False)
    conflicts = decisions.conflicts(reviewed, question)
    write_whole(job.folder / "conflicts.csv", tables.csv(conflicts))
    pushed = place.push(question, ranked[: settings.size])
    summarise(job, content, reviewed, pushed)
    for warning in content.warnings:
        log.warning("%s", warning)
    log.info("review in %s: %s", place.place, place.advice)
    if accepted := int(job.metrics["review/accepted"]):
        log.info(
            "%d texts now have human %ss: use them with data.reviewed=%s",
            accepted,
            question.column.rstrip("s"),
            job.folder / "reviewed.parquet",
        )
    if len(conflicts):
        log.info(
            "reviewers disagree on %d texts, which have no human label yet: see %s; review.adjudicator=NAME lets one decide",
            len(conflicts), job.folder / "conflicts.csv",
        )  # fmt: skip


def check_same_texts(content: Content, by_id: Mapping[str, Suggestion], place: str) -> None:
    """Raise UserError if the place holds texts other than the suggestions: their decisions would be mixed up."""
    remedy = "use another project or file for these (review.project=NAME, review.files=[NAME.csv])"
    for text_id, text in content.texts.items():
        if text_id in by_id and text != by_id[text_id].text:
            raise UserError(
                f"{place}: the id {text_id} has a different text there ({text[:40]!r}) than here "
                f"({by_id[text_id].text[:40]!r}); {remedy}"
            )
    if content.texts and not content.texts.keys() & by_id.keys():
        raise UserError(f"{place} holds {len(content.texts):,} texts, none of them among the suggestions; {remedy}")


def summarise(job: Job, content: Content, reviewed: pd.DataFrame, pushed: int) -> None:
    """Write counts and agreement to the metrics, `summary.json` and the log."""
    decided = reviewed[reviewed["status"] != decisions.SKIPPED]
    by_status = {
        name: int(rows["id"].nunique())
        for name, rows in reviewed.groupby("status")
        if name in (ACCEPTED, CONFLICT, decisions.SKIPPED)
    }
    changed = decided["changed"].dropna()
    measures = {
        "review/pushed": pushed,
        "review/texts": len(content.texts) + pushed,
        "review/decided": decided["id"].nunique(),
        "review/decisions": len(decided),
        "review/reviewers": decided["reviewer"].nunique(),
        "review/accepted": by_status.get(ACCEPTED, 0),
        "review/conflicts": by_status.get(CONFLICT, 0),
        "review/skipped": by_status.get(decisions.SKIPPED, 0),
        **({"review/changed_share": float(changed.astype(bool).mean())} if len(changed) else {}),
        **({"review/seconds_per_text": float(decided["seconds"].median())} if decided["seconds"].notna().any() else {}),
        **agreement(content.decisions),
    }
    job.metrics |= {name: float(value) for name, value in measures.items()}
    reviewers = {
        name: {
            "decisions": len(own),
            "seconds_per_text": None if own["seconds"].isna().all() else round(float(own["seconds"].median()), 2),
            "changed": int(own["changed"].eq(True).sum()),
        }
        for name, own in decided.groupby("reviewer")
    }
    write_json(job.folder / "summary.json", {**measures, "reviewers": reviewers})
    log.info(
        "pushed %d texts; %d texts in total, %d decided (%d accepted, %d in conflict, %d skipped)",
        pushed, measures["review/texts"], measures["review/decided"], measures["review/accepted"], measures["review/conflicts"],
        measures["review/skipped"],
    )  # fmt: skip
    for name, own in reviewers.items():
        seconds = "" if own["seconds_per_text"] is None else f", {own['seconds_per_text']:.1f} s per text"
        log.info("%s: %d decisions, %d changed from the suggestion%s", name, own["decisions"], own["changed"], seconds)
    values = ", ".join(f"{name.partition('/')[2]} {value:.3f}" for name, value in agreement(content.decisions).items())
    if values:
        log.info("agreement between reviewers: %s", values)
