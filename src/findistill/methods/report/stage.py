"""`stage=report`: tables, figures and page of a study, with baselines beside the trained models.

Reads the completed jobs of `runs/<study>/`, creates the missing baselines (artifacts, like everything that is shared), and
writes `table.csv`, `table.md`, `comparisons.csv`, `report.html` and `figures/` to the study's folder.
"""

import logging
from dataclasses import replace
from pathlib import Path

from findistill.core import run_folder
from findistill.core import study as study_record
from findistill.core.files import write_json
from findistill.core.hashing import seal
from findistill.core.store import Store
from findistill.errors import UserError
from findistill.methods.baselines.runs import baseline_runs, votes_of_students
from findistill.methods.report import across
from findistill.methods.report.texts import texts_to_show
from findistill.report import parts
from findistill.report.choice import read_choice
from findistill.report.config import Report
from findistill.report.methods import Run, gather
from findistill.report.page import build_report
from findistill.stats.cost import machine_cost

log = logging.getLogger(__name__)


def make(runs_dir: Path, study: str, settings: Report) -> None:
    """Write the report of a study from its completed jobs.

    Raises:
        UserError: there is no such study, or it has no completed job.
    """
    folder, compared = runs_dir / study, list(settings.compare)
    folders = across.folders_of(runs_dir, study, compared)
    jobs = run_folder.done_jobs(folder)  # listed before reading: a job that ends meanwhile may be missing from the page
    runs, failed, left_out, entries = across.collect_all(folders)
    if not runs:
        reasons = "; ".join(f"{job['job']}: {job['error']}" for job in [*left_out, *failed][:3])
        raise UserError(
            f"study={study}: no job in {', '.join(map(str, folders))} is done and scored, so there is nothing to report"
            + (f" ({reasons})." if reasons else ".")
            + "\nAnnotations are scored only if the data has gold labels."
        )
    published = settings.published or next((run.config["report"]["published"] for run in runs if "report" in run.config), None)
    store = Store(runs_dir / ".artifacts")
    runs = [_priced(run, settings.usd_per_hour) for run in runs]
    others = [run for run in runs if not parts.of_kind(run.kind).classifies]
    runs = [run for run in runs if parts.of_kind(run.kind).classifies]
    annotations = votes_of_students(runs, store)
    runs += baseline_runs(runs, settings.baselines, store)
    for part in parts.registered().values():
        runs = part.prepare(runs)
    if compared:
        runs = across.named_by_study(runs)
        across.check_common_rows(gather(runs))
        folder.mkdir(exist_ok=True)
    files = build_report(
        study, [*runs, *others], failed, folder, left_out=left_out, published=published, resamples=settings.resamples,
        annotations=annotations, choice=read_choice(folder), entries=entries, families=across.families if compared else None,
        texts=texts_to_show(runs, entries, store) if settings.texts else None,
        command="\n".join(line for one in folders for line in study_record.commands(one)) or None,
    )  # fmt: skip
    written = [*folder.glob("*.csv"), files.table_md, files.html, *(path for path in folder.glob("figures/*") if path.is_file())]
    names = [str(path.relative_to(folder)) for path in written]
    best = files.best.name if files.best and files.best.parent == folder else None
    write_json(folder / run_folder.REPORT, {"jobs": jobs, "best": best, "files": seal(folder, names)})
    for job in left_out:
        log.warning("done, but not in the report: %s: %s", job["job"], job["error"])
    log.info("\n%s", files.table_md.read_text(encoding="utf-8"))
    log.info("table: %s\nreport: %s\nfigures: %s", files.table_csv, files.html, folder / "figures")
    if best:
        log.info("best job: %s", folder / best)


def _priced(run: Run, usd_per_hour: float | None) -> Run:
    """Add the cost of its predictions, if they were timed on this machine: a server has its own price."""
    here = "latency/p50_ms" in run.metrics
    return replace(run, metrics=run.metrics | machine_cost(run.metrics, usd_per_hour)) if here else run
