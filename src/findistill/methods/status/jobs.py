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

TO_DO = ("interrupted", "failed", "to run")  # what the same command would run
STATES = ("done", "pruned", "running", *TO_DO)


@dataclass(frozen=True)
class StudyJob:
    """A job of a study.

    Attributes:
        folder: its run folder, which does not exist if the job was never started.
        state: one of `STATES`. The status of a killed job still says running, but no process holds its lock: it is `interrupted`.
        status: the content of its `status.json`; empty if it was never started.
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
        """The newest line of progress; empty if there is none yet."""
        return _line(self.folder / run_folder.PROGRESS)

    @property
    def command(self) -> str:
        """The command that runs it again; empty if it was never started."""
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
    """The jobs of the study in `folder`: those started, and those that its commands have yet to run."""
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
    """How many jobs the study's searches may still start."""
    trials = sum(plan["trials"] or 0 for plan in study.plans(folder).values())
    return max(0, trials - len(of_state(jobs, "done", "pruned", "running"))) if trials else 0


@dataclass(frozen=True)
class Cost:
    """Time and money that a stage's completed jobs took.

    Attributes:
        seconds: wall time of each job.
        dollars: US dollars, of those that spent any.
    """

    seconds: list[float]
    dollars: list[float]

    @property
    def of_all(self) -> str:
        """Their total, in words."""
        total = " in total" if len(self.seconds) > 1 else ""
        price = f", ${sum(self.dollars):.4f}" if self.dollars else ""
        return f"took {duration(sum(self.seconds))}{price}{total}"

    @property
    def of_next(self) -> str:
        """The expected cost of another one, in words, as in a plan."""
        return expected_of(self.seconds, f", ${median(self.dollars):.4f}" if self.dollars else "")


def costs(jobs: Sequence[StudyJob]) -> dict[str, Cost]:
    """The cost of the completed jobs by stage; a job whose metrics cannot be read is skipped."""
    by_stage = {job.stage: Cost([], []) for job in jobs}
    for job in of_state(jobs, "done"):
        with suppress(OSError, ValueError, TypeError, KeyError):
            metrics = read_json(job.folder / "metrics.json")
            by_stage[job.stage].seconds.append(float(metrics["time/wall_s"]))
            by_stage[job.stage].dollars.extend([float(metrics["cost/usd"])] if metrics.get("cost/usd") else [])
    return by_stage


def cost_of(jobs: Sequence[StudyJob], costs: Mapping[str, Cost]) -> str:
    """The expected cost of `jobs` one after the other, in words; empty if one of their stages has no completed job."""
    if not jobs or not all(costs[job.stage].seconds for job in jobs):
        return ""
    dollars = sum(median(costs[job.stage].dollars) for job in jobs if costs[job.stage].dollars)
    price = f" and ${dollars:.4f}" if dollars else ""
    return f"about {duration(sum(median(costs[job.stage].seconds) for job in jobs))}{price} one after the other"


def logs(runs_dir: Path, name: str) -> list[Path]:
    """The log files of the workers of a study's sweeps, newest first."""
    files = [path for path in (runs_dir / ".workers" / name).glob("**/*") if path.suffix in (".out", ".err", ".log")]
    return sorted(files, key=lambda path: path.stat().st_mtime, reverse=True)
