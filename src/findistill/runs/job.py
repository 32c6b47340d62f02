"""A job: one run of one stage with one resolved configuration, in a folder named after both."""

import logging
import os
import platform
import re
import resource
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from findistill import __version__
from findistill.errors import UserError
from findistill.runs import hardware
from findistill.runs.files import read_json, write_json, write_whole
from findistill.runs.store import Store, digest
from findistill.runs.tracking import Tracker, track
from findistill.settings.compose import plain
from findistill.settings.schema import Config, unpaced

log = logging.getLogger(__name__)


@dataclass
class Job:
    """What a stage gets to work with: its configuration, its folder, the artifacts, and where to report."""

    config: Config
    folder: Path
    store: Store
    tracker: Tracker
    metrics: dict[str, float] = field(default_factory=dict)
    artifacts: dict[str, str] = field(default_factory=dict)

    def artifact(self, kind: str, key: dict[str, Any], make: Any, *, resumable: bool = False) -> Path:
        """`Store.get`, with the artifact noted in this job's metrics and `artifacts.json`."""
        found = self.store.get(kind, key, make, resumable=resumable)
        self.artifacts[kind] = found.path.name
        name = f"time/{kind}_s"
        self.metrics[name] = self.metrics.get(name, 0.0) + found.seconds
        self.metrics["time/artifacts_made_s"] = self.metrics.get("time/artifacts_made_s", 0.0) + found.seconds * found.made
        return found.path


@contextmanager
def aside(config: Config, store: Store | None = None) -> Iterator[Job]:
    """A job that leaves artifacts alone: its folder goes when the block ends, and nothing is tracked.

    `store`: where the artifacts are; default: that of `config.runs_dir`.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        yield Job(config, folder, store or Store(Path(config.runs_dir) / ".artifacts"), Tracker(folder, "none"))


def sections(config: Config, reads: Sequence[str]) -> dict[str, Any]:
    """The part of the configuration that determines a job: its stage and the sections that stage reads, less `PACE`."""
    whole = plain(config)
    return {"stage": whole["stage"]["name"], **unpaced({name: whole[name] for name in reads})}


def folder_of(config: Config, reads: Sequence[str], overrides: Sequence[str]) -> Path:
    """`runs/<study>/<job>`: a readable slug of the overrides and a short hash of what determines the job.

    The hash alone identifies the job: the same settings reached by another command find the same folder.
    """
    study = study_folder(config)
    key = digest(sections(config, reads), 8)
    if known := sorted(study.glob(f"*-{key}")):
        return known[0]
    # Nothing that Hydra's grammar would want quoted: a run folder is itself a value of `evaluate.model`.
    parts = []
    for override in sorted(overrides):
        name, _, value = override.lstrip("+~").partition("=")
        # Only what the stage reads names its jobs: not where they go or how they are tracked.
        if name.partition(".")[0] in reads:
            parts.append(f"{name.rsplit('.', 1)[-1]}_{value}")
    slug = re.sub(r"[^\w.+-]+", "_", "-".join([config.stage.name, *parts]))
    return study / f"{slug[:100]}-{key}"


def study_folder(config: Config) -> Path:
    return Path(config.runs_dir) / config.study


def status(folder: Path) -> dict[str, Any]:
    """A job's `status.json`, or an empty dict where there is none to read."""
    try:
        found = read_json(folder / "status.json")
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def is_done(folder: Path) -> bool:
    return status(folder).get("state") == "done"


def masked(config: Config) -> DictConfig:
    """The resolved configuration, with passwords inside addresses hidden. Keys are never in it: only variables' names are."""
    copy = OmegaConf.create(plain(config))
    address = OmegaConf.select(copy, "llm.base_url")
    if address:
        copy.llm.base_url = re.sub(r"//[^/@]*@", "//***@", address)
    return copy


@contextmanager
def running(config: Config, folder: Path) -> Iterator[Job]:
    """Run a job in `folder`: status, configuration, metrics and tracking are kept right whatever happens inside.

    What an earlier failed or killed run left is cleared first. When the block ends, `metrics.json` is written and the
    state becomes `done`; when it raises, the state becomes `failed` with one line of the error.

    Raises:
        UserError: another process is running this job now.
    """
    from filelock import FileLock, Timeout

    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.with_name(f".{folder.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise UserError(f"{folder} is being run by another process; wait for it, or choose another study=NAME") from error
    started = datetime.now(UTC)
    state: dict[str, Any] = {
        "state": "running",
        "started": started.isoformat(timespec="seconds"),
        "ended": None,
        "host": platform.node(),
        "version": __version__,
        "git_commit": git_commit(),
        "device": hardware.describe(),
        "error": None,
    }
    try:
        for left in folder.iterdir():
            shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink()
        write_json(folder / "status.json", state)
        shown = masked(config)
        write_whole(folder / "config.yaml", OmegaConf.to_yaml(shown))
        _reset_peak_memory()
        wall, cpu = time.perf_counter(), time.process_time()
        with track(cast(Config, shown), folder) as tracker:
            job = Job(config, folder, Store(Path(config.runs_dir) / ".artifacts"), tracker)
            yield job
            job.metrics["time/wall_s"] = time.perf_counter() - wall
            job.metrics.setdefault("time/cpu_s", time.process_time() - cpu)
            job.metrics["memory/peak_mb"] = peak_memory_mb()
            job.metrics |= hardware.device_peak_mb()
            job.metrics = {name: float(value) for name, value in sorted(job.metrics.items())}
            write_json(folder / "metrics.json", job.metrics)
            write_json(folder / "artifacts.json", job.artifacts)
            tracker.finish_with(job.metrics)
        _close(folder, state, "done", None)
    except BaseException as error:
        interrupted = isinstance(error, KeyboardInterrupt | SystemExit)
        line = "interrupted" if interrupted else (str(error).strip().splitlines() or [type(error).__name__])[0]
        # On a full disk this may fail too; the state then stays `running`, which counts as not done.
        with suppress(OSError):
            _close(
                folder,
                state,
                "failed",
                line if interrupted or isinstance(error, UserError) else f"{type(error).__name__}: {line}",
            )
        raise
    finally:
        # The lock file itself goes too, so that a study's folder holds nothing but jobs; `running` makes it anew. It goes
        # first: another process that still opened it finds it unlinked, and does not share the folder with a third.
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


def _close(folder: Path, state: dict[str, Any], value: str, error: str | None) -> None:
    ended = datetime.now(UTC).isoformat(timespec="seconds")
    write_json(folder / "status.json", {**state, "state": value, "ended": ended, "error": error})


@cache
def git_commit() -> str | None:
    """The commit of the checkout that findistill runs from, `-dirty` behind it if changed; None when installed."""
    here = Path(__file__).parent
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            cwd=here, capture_output=True, text=True, timeout=5, check=True, env={**os.environ, "LC_ALL": "C"},
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def _reset_peak_memory() -> None:
    # Jobs of a sweep share a process, whose peak would otherwise be that of the largest job so far.
    with suppress(OSError), Path("/proc/self/clear_refs").open("w", encoding="ascii") as refs:
        refs.write("5")
    hardware.reset_device_peak()


def peak_memory_mb() -> float:
    """Peak resident memory in MB since the job began (since the process began where the system cannot reset it)."""
    with suppress(OSError), Path("/proc/self/status").open(encoding="ascii", errors="replace") as lines:
        for line in lines:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1024 if platform.system() == "Linux" else peak / 1024**2
