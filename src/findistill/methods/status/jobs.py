"""The jobs of a study and their states, from the files in its folder alone."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any

from findistill.core import run_folder, study
from findistill.core.files import read_json
from findistill.core.plan import duration, expected_of

TO_DO = ("interrupted", "failed", "to run")  # what the same command runs
STATES = ("done", "pruned", "running", *TO_DO)


@dataclass(frozen=True)
class StudyJob:
    """A job of a study.

    Attributes:
        folder: its run folder, which a job that was never begun has not.
        state: one of `STATES`. One that was killed says that it is running, but no process has its lock: it is `interrupted`.
        status: what its `status.json` says; empty where it was never begun.
    """

    folder: Path
    state: str
    status: dict[str, Any]

    @property
    def stage(self) -> str:
        return self.folder.name.partition("-")[0]

    @property
    def since(self) -> datetime | None:
        """When it ended, or else started."""
        return _time(self.status.get("ended")) or _time(self.status.get("started"))

    @property
    def seconds(self) -> float | None:
        """How long it took, or has been running."""
        start, end = _time(self.status.get("started")), _time(self.status.get("ended"))
        if start and not end and self.state == "running":
            end = datetime.now(start.tzinfo)
        return (end - start).total_seconds() if start and end else None

    @property
    def progress(self) -> str:
        """The newest line of progress; empty where it has said nothing yet."""
        return _line(self.folder / run_folder.PROGRESS)

    @property
    def command(self) -> str:
        """The command that makes it again; empty where it was never begun."""
        return _line(self.folder / run_folder.COMMAND)


def _line(path: Path) -> str:
    with suppress(OSError, UnicodeDecodeError):
        return path.read_text(encoding="utf-8").strip()
    return ""


def _time(text: Any) -> datetime | None:
    with suppress(TypeError, ValueError):
        return datetime.fromisoformat(text).astimezone()
    return None


def study_jobs(folder: Path) -> list[StudyJob]:
    """The jobs of the study in `folder`: those that were begun, and those that its commands have yet to run."""
    started = [StudyJob(job, _state(job), run_folder.status(job)) for job in run_folder.jobs(folder)]
    names = {job.folder.name for job in started}
    planned = dict.fromkeys(name for plan in study.plans(folder).values() for name in plan["jobs"])
    return [*started, *(StudyJob(folder / name, "to run", {}) for name in planned if name not in names)]


def _state(folder: Path) -> str:
    recorded = run_folder.status(folder).get("state")
    if recorded in ("done", "pruned", "failed"):
        return str(recorded)
    return "running" if run_folder.is_running(folder) else "interrupted"


def of_state(jobs: Sequence[StudyJob], *states: str) -> list[StudyJob]:
    return [job for job in jobs if job.state in states]


def trials_left(folder: Path, jobs: Sequence[StudyJob]) -> int:
    """How many jobs the study's searches may still begin."""
    trials = sum(plan["trials"] or 0 for plan in study.plans(folder).values())
    return max(0, trials - len(of_state(jobs, "done", "pruned", "running"))) if trials else 0


@dataclass(frozen=True)
class Cost:
    """What the done jobs of a stage took.

    Attributes:
        seconds: wall time, one number a job.
        dollars: US dollars, of those that spent some.
    """

    seconds: list[float]
    dollars: list[float]

    @property
    def of_all(self) -> str:
        """In words: what they took together."""
        together = " together" if len(self.seconds) > 1 else ""
        price = f", ${sum(self.dollars):.4f}" if self.dollars else ""
        return f"took {duration(sum(self.seconds))}{price}{together}"

    @property
    def of_next(self) -> str:
        """In words: what a further one is expected to take, as in a plan."""
        return expected_of(self.seconds, f", ${median(self.dollars):.4f}" if self.dollars else "")


def costs(jobs: Sequence[StudyJob]) -> dict[str, Cost]:
    """What the done jobs took, by stage; a job whose numbers cannot be read counts for none."""
    by_stage = {job.stage: Cost([], []) for job in jobs}
    for job in of_state(jobs, "done"):
        with suppress(OSError, ValueError, TypeError, KeyError):
            metrics = read_json(job.folder / "metrics.json")
            by_stage[job.stage].seconds.append(float(metrics["time/wall_s"]))
            by_stage[job.stage].dollars.extend([float(metrics["cost/usd"])] if metrics.get("cost/usd") else [])
    return by_stage


def cost_of(jobs: Sequence[StudyJob], costs: Mapping[str, Cost]) -> str:
    """In words: what `jobs` are expected to take one after the other; empty where a stage of theirs was never run."""
    if not jobs or not all(costs[job.stage].seconds for job in jobs):
        return ""
    dollars = sum(median(costs[job.stage].dollars) for job in jobs if costs[job.stage].dollars)
    price = f" and ${dollars:.4f}" if dollars else ""
    return f"about {duration(sum(median(costs[job.stage].seconds) for job in jobs))}{price} one after the other"


def logs(runs_dir: Path, name: str) -> list[Path]:
    """The files that the workers of a study's sweeps printed into, newest first."""
    files = [path for path in (runs_dir / ".workers" / name).glob("**/*") if path.suffix in (".out", ".err", ".log")]
    return sorted(files, key=lambda path: path.stat().st_mtime, reverse=True)
