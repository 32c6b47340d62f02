"""A job: one run of one stage with one resolved configuration, in a folder named after both.

The stage is the last step of a graph, and the job's identity is that step's key: settings, parents, and the content of
every input file.
"""

import logging
import platform
import shutil
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import Timeout

from findistill import __version__
from findistill.config.compose import plain
from findistill.config.fields import without_secrets
from findistill.config.instantiate import check_targets
from findistill.config.restore import as_yaml
from findistill.core import hardware, run_folder, termination
from findistill.core.files import synced_together, write_json, write_whole
from findistill.core.hashing import damaged, seal
from findistill.core.progress import noted_in
from findistill.core.run_folder import link_latest, lock_of, results, what_changed
from findistill.core.run_folder import status as status_of
from findistill.core.search import PrunedError
from findistill.core.step import Step, walk
from findistill.core.store import Store, Work, artifact_seconds
from findistill.core.study import command_line
from findistill.core.tracking import Attempt, Tracker, track
from findistill.errors import BusyError, UserError, first_line

if TYPE_CHECKING:
    from findistill.schema import Config

log = logging.getLogger(__name__)

# Kept from an earlier run of the same job: training and prediction resume from it, review decisions must survive an unreachable
# server, and offline W&B runs wait to be sent.
REUSED = ("checkpoints", "reviewed.parquet", "predictions", "wandb")


@dataclass
class Job(Work):
    """The argument of a stage's implementation: a step's work, the tracker, and the complete configuration to describe it."""

    tracker: Tracker
    whole: Any
    metrics: dict[str, float] = field(default_factory=dict)


def run(config: "Config", step: Step, folder: Path, overrides: Sequence[str] = ()) -> None:
    """Run a job with a validated configuration: check the code that it names, then run its stage in `folder`.

    Args:
        overrides: what the configuration was composed from, for `command.txt`.

    Raises:
        UserError: code that is not allowed, a job that another process is running, or whatever the stage raises.
    """
    check_targets(config, {*step.settings_read, "logger"})
    if change := what_changed(folder, step):
        log.info("%s", change)
    with running(config, step, folder, overrides) as job:
        step.run(job)


@contextmanager
def ephemeral(step: Step, config: "Config") -> Iterator[Job]:
    """A job for a preview: no parents are created, its folder is deleted when the block ends, and nothing is tracked."""
    with tempfile.TemporaryDirectory() as scratch:
        folder, store = Path(scratch), Store(Path(config.runs_dir) / ".artifacts")
        yield Job(step, step.config, folder, {}, store, Tracker(folder), config)


def masked(config: "Config") -> dict[str, Any]:
    """The resolved configuration without passwords and keys, for files and trackers."""
    values: dict[str, Any] = without_secrets(plain(config))
    return values


@contextmanager
def running(config: "Config", step: Step, folder: Path, overrides: Sequence[str] = ()) -> Iterator[Job]:
    """Run a job in `folder`, keeping status, configuration, metrics and tracking consistent whatever happens in the block.

    The output of an earlier run is cleared first, except what is `REUSED`. When the block ends, `metrics.json` is written and
    the state becomes `done`; if it raises, `failed` (`pruned` if a search ended it) with one line of the error.

    Raises:
        BusyError: another process is running this job.
    """
    folder.mkdir(parents=True, exist_ok=True)
    store = Store(Path(config.runs_dir) / ".artifacts")
    lock = lock_of(folder)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        busy = f"another process is running {folder}; wait for it, or choose another study=NAME"
        raise BusyError(busy, lambda: lock.acquire().lock.release()) from error
    status: dict[str, Any] = {
        "state": "running", "started": _now(), "ended": None, "host": platform.node(), "version": __version__,
        "git_commit": git_commit(), "device": hardware.describe(), "error": None, "key": step.key,
    }  # fmt: skip
    if (before := status_of(folder)).get("state") == "done" and (name := damaged(folder, before.get("files", {}))):
        log.warning("%s: %s has changed or is missing; running the job again", folder, name)
    try:
        for path in folder.iterdir():
            if path.name not in REUSED:
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        with synced_together(folder, but=REUSED):
            write_json(folder / "status.json", status)
            resolved = masked(config)
            write_whole(folder / "config.yaml", as_yaml(resolved))
            write_whole(folder / run_folder.COMMAND, command_line(overrides) + "\n")
            write_json(folder / "lineage.json", step.lineage())
            hardware.reset_peak_memory()
            wall, cpu = time.perf_counter(), time.process_time()
            attempt = Attempt(step.key, step.sections_read, status["git_commit"], before)
            with noted_in(folder), track(resolved, folder, config.logger, attempt) as tracker:
                store.loggers = tracker.lightning_loggers
                job = Job(step, step.config, folder, store.parents(step), store, tracker, config)
                yield job
                job.metrics |= artifact_times(step, store)
                job.metrics["time/wall_s"] = time.perf_counter() - wall
                job.metrics.setdefault("time/cpu_s", time.process_time() - cpu)
                job.metrics["memory/peak_mb"] = hardware.peak_memory_mb()
                job.metrics |= hardware.device_peak_mb()
                job.metrics = {name: float(value) for name, value in sorted(job.metrics.items())}
                write_json(folder / "metrics.json", job.metrics)
                write_json(folder / "artifacts.json", artifacts_read(step, store))
                tracker.finish_with(job.metrics)
                tracker.lineage(step, store)
            if reference := tracker.reference():
                status["wandb"] = reference
        files = seal(folder, results(folder))
        write_json(folder / "status.json", {**status, "state": "done", "ended": _now(), "files": files})
        link_latest(folder, config.stage.name)
    except BaseException as error:
        termination.acknowledge()
        interrupted = isinstance(error, KeyboardInterrupt | SystemExit) or termination.requested()
        line = "interrupted" if interrupted else first_line(error)
        # On a full disk this may fail too; the state then stays `running`, which counts as not done.
        state = "pruned" if isinstance(error, PrunedError) else "failed"
        if not interrupted and not isinstance(error, UserError | PrunedError):
            line = f"{type(error).__name__}: {line}"
        with suppress(OSError):
            write_json(folder / "status.json", {**status, "state": state, "ended": _now(), "error": without_secrets(line)})
        raise
    finally:
        lock.release()


def artifacts_read(step: Step, store: Store) -> dict[str, str]:
    """The folder names of all artifacts behind the job's results, by kind, the job's own parents first.

    Several of one kind are distinguished by the parent's role (`teacher/embeddings`) or by number (`data/1`).
    """
    graph = [*step.inputs.items(), *((node.name, node) for node in walk(step) if node is not step)]
    read = [(role, store.folder(node).name) for role, node in graph if node.reference is None and store.exists(node)]
    read += [(kind, artifact.path.name) for kind, artifacts in store.used.items() for artifact in artifacts]
    names: dict[str, str] = {}
    for role, name in read:
        kind = name.rpartition("-")[0]
        if name not in names.values():
            number = sum(key.partition("/")[0] == kind for key in names)
            names[role if role.startswith(f"{kind}/") else f"{kind}/{number}" if number else kind] = name
    return names


def artifact_times(step: Step, store: Store) -> dict[str, float]:
    """Seconds that it took to create the artifacts of the job's graph, by kind and in total, and those that this job created."""
    names = dict.fromkeys(store.folder(node).name for node in walk(step) if node is not step)
    built = {artifact.path.name: artifact for artifacts in store.used.values() for artifact in artifacts}
    seconds: dict[str, float] = defaultdict(float)
    for name in {**names, **built}:
        seconds[f"time/{name.rpartition('-')[0]}_s"] += artifact_seconds(store.root / name)
    build_s = sum(artifact.seconds for artifact in built.values() if artifact.made)
    return {**seconds, "time/artifacts_s": sum(seconds.values()), "time/artifacts_made_s": build_s}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@cache
def git_commit() -> str | None:
    """The commit of the checkout that findistill runs from, with `-dirty` appended if it has changes; None when installed."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    with suppress(OSError, subprocess.SubprocessError):
        here, quiet = Path(__file__).parent, subprocess.DEVNULL
        return subprocess.check_output(command, cwd=here, stderr=quiet, text=True, timeout=5).strip() or None
    return None
