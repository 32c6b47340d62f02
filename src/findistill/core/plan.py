"""The plan of a job or sweep: its steps, which of them exist, how many jobs share them, and the expected cost of each."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from findistill.core import run_folder
from findistill.core.files import read_json
from findistill.core.step import ModelFolder, Step, load, walk
from findistill.core.store import Store, artifact_seconds


@dataclass(frozen=True)
class PlannedJob:
    """One job: its overrides, its configuration and the last step of its graph."""

    overrides: Sequence[str]
    config: Any
    step: Step

    @property
    def folder(self) -> Path:
        return run_folder.folder_of(self.config, self.step, self.overrides)


@dataclass
class _Node:
    step: Step
    path: Path
    jobs: int = 0
    needed: bool = False  # by a job that is not done


def describe(plan: Iterable[PlannedJob]) -> str:
    """A table of the steps of all jobs, parents first, then the jobs, and how many of them are done and would run."""
    nodes: dict[str, _Node] = {}
    done, lines = 0, []
    for job in plan:
        store = Store(Path(job.config.runs_dir) / ".artifacts")
        folder = job.folder
        finished = run_folder.is_done(folder) and not job.step.live
        done += finished
        for step in walk(job.step):
            if step is job.step or isinstance(step, ModelFolder):
                continue
            path = store.folder(step)
            node = nodes.setdefault(path.name, _Node(step, path))
            node.jobs += 1
            node.needed |= not finished
        lines.append((job.step.name, job.step.key[:8], "done" if finished else "to run", "1", _job_cost(folder, finished)))
    costs = {name: _expected(node) for name, node in nodes.items() if node.needed and not node.path.exists()}
    rows = [(node.step.name, node.step.key, *_state(node, costs.get(name, ""))) for name, node in nodes.items()]
    text = aligned([("step", "key", "state", "jobs", "cost"), *rows, *lines])
    to_make = sum(node.needed and not node.path.exists() for node in nodes.values())
    return "\n".join([*text, f"{len(lines)} jobs: {done} done, {len(lines) - done} to run; {to_make} artifacts to create", ""])


def _state(node: _Node, cost: str) -> tuple[str, str, str]:
    if node.path.exists():
        return "exists", str(node.jobs), f"took {duration(artifact_seconds(node.path))}"
    return "to create" if node.needed else "not needed", str(node.jobs), cost


def _expected(node: _Node) -> str:
    """The step's own estimate, and how long steps of its kind took in this store."""
    store = Store(node.path.parent)
    earlier = [artifact_seconds(path) for path in store.root.glob(f"{node.step.name}-*") if not path.suffix]
    parts = []
    # Counting requests needs the data, which is cheap to create; an adapter or a teacher is not trained for an estimate.
    if node.step.estimate and all(store.exists(step) or step.cheap for step in walk(node.step) if step is not node.step):
        parts.append(load(node.step.estimate)(store.at(node.step, node.path)))
    if earlier:
        parts.append(f"about {duration(median(earlier))} (median of {len(earlier)} created so far)")
    return ", ".join(part for part in parts if part) or "unknown: none created yet"


def _job_cost(folder: Path, finished: bool) -> str:
    """How long the job took or, if it is not done, how long the study's done jobs of its stage took."""
    stage = folder.name.partition("-")[0]
    folders = [path for path in ([folder] if finished else folder.parent.glob(f"{stage}-*")) if run_folder.is_done(path)]
    times = [float(read_json(path / "metrics.json")["time/wall_s"]) for path in folders]
    return f"took {duration(times[0])}" if finished and times else expected_of(times)


def expected_of(seconds: Sequence[float], price: str = "") -> str:
    """The expected duration of another job, in words, from the seconds of earlier ones; `price` is appended to the time."""
    if not seconds:
        return "unknown: none run yet"
    return f"about {duration(median(seconds))}{price} (median of {len(seconds)} run so far)"


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """The rows of a table as lines, with all columns but the last padded to a common width."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    return ["  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]).rstrip() for row in rows]


def duration(seconds: float) -> str:
    """Seconds in words: 35.2 s, 12 min 3 s."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s"
