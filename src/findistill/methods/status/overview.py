"""The studies of a folder: `stage=status` and `stage=report` without a named study."""

import re
import sys
from pathlib import Path

from findistill.config.groups import option_file
from findistill.core import run_folder, study
from findistill.core.plan import aligned
from findistill.errors import UserError
from findistill.methods.status.jobs import TO_DO, of_state, study_jobs
from findistill.methods.status.stage import named

WIDTH = 100  # characters of a study's description


def show(runs_dir: Path, stage: str) -> None:
    """List the studies in `runs_dir`.

    Raises:
        UserError: the stage needs one study, or there is none.
    """
    folders = [runs_dir / name for name in study.names(runs_dir)]
    if not folders:
        raise UserError(f"stage={stage}: {runs_dir} has no studies yet; to run one with a single job: findistill study=moon")
    lines, newest = _table(folders)
    sys.stdout.write("\n".join([*lines, ""]))
    if stage == "status":
        sys.stdout.write(f"next: findistill stage=status {named(newest)}\n      findistill stage=report {named(newest)}\n")
    else:
        command = f"findistill stage={stage} {named(newest)}"
        raise UserError(f"stage={stage} needs one study, but none is named; for the newest: {command}")


def _table(folders: list[Path]) -> tuple[list[str], Path]:
    """The lines of the list, and the study whose job started or ended last."""
    rows: list[tuple[str, ...]] = [("study", "done", "running", "failed", "left", "newest", "report", "about")]
    times = dict[Path, float]()
    for folder in folders:
        jobs = study_jobs(folder)
        counts = [str(len(of_state(jobs, *states))) for states in (["done"], ["running"], ["failed"], TO_DO)]
        newest = max((job.since for job in jobs if job.since), default=None)
        times[folder] = newest.timestamp() if newest else 0.0
        state = "current" if run_folder.report_is_current(folder) else "outdated" if (folder / "report.html").exists() else "none"
        rows.append((folder.name, *counts, f"{newest:%Y-%m-%d %H:%M}" if newest else "", state, about(folder)))
    return aligned(rows), max(times, key=lambda folder: times[folder])


def about(folder: Path) -> str:
    """What a study is about, in a line: the first sentence of its experiment's file, else its last command."""
    text = (study.commands(folder) or [""])[-1]
    if (match := re.search(r"\bexperiment=([\w-]+)", text)) and (file := option_file("experiment", match[1])):
        comments = [line.removeprefix("#").strip() for line in file.read_text(encoding="utf-8").splitlines() if line[:1] == "#"]
        sentence = re.split(r"(?<=[.:?]) ", " ".join(line for line in comments if not line.startswith("@")))[0]
        text = f"{match[1]}: {sentence.rstrip(':.')}"
    return text if len(text) <= WIDTH else f"{text[:WIDTH]}..."
