"""`stage=status`: the state of a study's jobs, what is left and its expected cost, and the command that resumes it."""

import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from findistill.core import run_folder, study
from findistill.core.plan import aligned, duration
from findistill.methods.status.jobs import STATES, TO_DO, Cost, StudyJob, cost_of, costs, logs, of_state, study_jobs, trials_left

ROWS = 20  # per stage and state; further ones are counted


def show(runs_dir: Path, name: str, _: Any = None) -> None:
    """Print the status of the study `name`.

    Raises:
        UserError: there is no such study.
    """
    sys.stdout.write(describe(study.existing(runs_dir, name)))


def describe(folder: Path) -> str:
    """A table of a study's jobs, with completed ones by stage, then the number in each state, logs, report and next command."""
    jobs = study_jobs(folder)
    took, trials, unfinished = costs(jobs), trials_left(folder, jobs), of_state(jobs, *TO_DO)
    rows = [row for stage in took for row in _rows([job for job in jobs if job.stage == stage], took)]
    counts = [f"{len(of_state(jobs, state))} {state}" for state in STATES if of_state(jobs, state)]
    counts += [f"up to {trials} trials to start"] if trials else []
    expected = f"; remaining: {cost}" if (cost := cost_of(unfinished, took)) else ""
    lines = [*aligned([("job", "state", "jobs", "cost"), *rows]), f"{len(jobs)} jobs: {', '.join(counts)}{expected}"]
    if (files := logs(folder.parent, folder.name)) and len(of_state(jobs, "done")) < len(jobs):
        lines.append(f"logs: {folder.parent / '.workers' / folder.name}, newest: {files[0]}")
    current, page = run_folder.report_is_current(folder), folder / "report.html"
    if page.exists():
        lines.append(f"report: {page}{'' if current else ', outdated: it lacks jobs that ended since'}")
    return "\n".join([*lines, *next_commands(folder, jobs, bool(trials), current), ""])


def _rows(jobs: Sequence[StudyJob], took: Mapping[str, Cost]) -> Iterator[tuple[str, str, str, str]]:
    """The rows of one stage: one for its done jobs, one for each other job."""
    if done := of_state(jobs, "done"):
        yield done[0].stage, "done", str(len(done)), took[done[0].stage].of_all
    for state in STATES[1:]:
        here = of_state(jobs, state)
        yield from ((job.folder.name, state, "1", _in_words(job, took)) for job in here[:ROWS])
        if len(here) > ROWS:
            yield f"... and {len(here) - ROWS} more", state, str(len(here) - ROWS), ""


def _in_words(job: StudyJob, took: Mapping[str, Cost]) -> str:
    """What is known about a job that is not done."""
    if job.state == "to run":
        return took[job.stage].of_next
    host = f" on {job.status['host']}" if job.status.get("host") else ""
    lasted = duration(job.seconds) if job.seconds is not None else ""
    if job.state in ("failed", "pruned"):
        return f"after {lasted}: {job.status.get('error')}" if lasted else str(job.status.get("error"))
    began = f"since {job.since:%Y-%m-%d %H:%M}" if job.since else "since an unknown time"
    ending = {"running": f" ({lasted})" if lasted else "", "interrupted": ", its process is gone"}[job.state]
    return "; ".join(filter(None, (f"{began}{host}{ending}", job.progress)))


def next_commands(folder: Path, jobs: Sequence[StudyJob], searching: bool, current: bool) -> list[str]:
    """The commands that run what is left, else the one that makes the report."""
    unfinished = {job.folder.name for job in of_state(jobs, *TO_DO)}
    plans = study.plans(folder)
    commands = [command for command, plan in plans.items() if unfinished & {*plan["jobs"]} or (searching and plan["trials"])]
    planned = {name for plan in plans.values() for name in plan["jobs"]}
    if not searching:  # a search replaces failed jobs by others
        alone = [job.command for job in of_state(jobs, *TO_DO) if job.folder.name not in planned and job.command]
        commands += list(dict.fromkeys(alone))[:ROWS]
    if unfinished and not commands:
        return ["next: run the commands that started these jobs again; they resume"]
    if not commands and not current and of_state(jobs, "done"):
        commands = [f"findistill stage=report {named(folder)}"]
    if any("***" in command for command in commands):
        commands.append("(*** is a key, which is never stored: fill it in)")
    return [f"{'      ' if number else 'next: '}{command}" for number, command in enumerate(commands)]


def named(folder: Path) -> str:
    """The overrides that select a study."""
    return shlex.join([f"study={folder.name}", *([] if str(folder.parent) == "runs" else [f"runs_dir={folder.parent}"])])
