"""Artifacts: folders created once, named by the key of the step that creates them.

A folder under its final name is complete. It is created as `<name>.partial`, under a lock, and renamed once it is complete
and on disk; a resumable step continues from the partial folder of a killed process. `artifact.json` seals the files: if a
full disk, a power cut or a user has changed one since, the artifact is moved aside and created again.
"""

import logging
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from findistill.core.files import read_json, sync, sync_tree, write_json
from findistill.core.hashing import damaged, digest, seal
from findistill.core.step import Step, load

log = logging.getLogger(__name__)

RECORD = "artifact.json"


@dataclass(frozen=True)
class Artifact:
    """A complete folder; `made` is whether this call created it, `seconds` how long creating it took, now or earlier."""

    path: Path
    made: bool
    seconds: float


@dataclass
class Work:
    """The argument of a step's implementation: the step, its declared settings, its folder, its parents' folders by role."""

    step: Any
    config: Any  # Settings, or the one section that the step is about
    folder: Path
    parents: Mapping[str, Path]
    store: "Store"

    @property
    def tokens(self) -> Path:
        """The cache of tokenised texts, shared across the store."""
        return self.store.root / "tokens"

    @property
    def loggers(self) -> list[Any]:
        """The Lightning loggers of the current job."""
        return self.store.loggers()

    @property
    def responses(self) -> Path:
        """The folder with the cache of all language model responses of this store."""
        return self.store.root / "responses"


@dataclass
class Store:
    """The artifacts under one folder, shared by all jobs and processes that use it.

    `used` has every artifact that this object returned, by kind. `loggers` creates the Lightning loggers of the current
    job, if any. `shared` holds objects that the steps of one job share while it runs, by name.
    """

    root: Path
    used: dict[str, list[Artifact]] = field(default_factory=dict)
    loggers: Callable[[], list[Any]] = list
    shared: dict[str, Any] = field(default_factory=dict)

    def at(self, step: Step, folder: Path) -> Work:
        """The work of a step, whose parents are created, but not the step itself."""
        return Work(step, step.config, folder, self.parents(step), self)

    def folder(self, step: Step) -> Path:
        return self.root / f"{step.name}-{step.key}"

    def build(self, step: Step) -> Path:
        """The folder of a step's artifact, created (with the parents that it needs) if it does not exist."""
        path = self.folder(step)
        # Parents are created before this artifact is locked, since they may take long.
        work = None if damage(path) is None else self.at(step, path.with_suffix(".partial"))
        return self._get(path, step.record, lambda partial: step.run(work or self.at(step, partial)), step.resumable)

    def parents(self, step: Step) -> dict[str, Path]:
        """The folders of a step's parents, by role; models outside the store stay in place.

        Raises:
            UserError: the step's `check` rejects it.
        """
        if step.check:
            cheap = {role: self.build(parent) for role, parent in step.inputs.items() if parent.cheap}
            load(step.check)(Work(step, step.config, self.root, cheap, self))
        return {role: self.locate(parent) for role, parent in step.inputs.items()}

    def locate(self, step: Step) -> Path:
        """The path of a step's result: from `build`, or a model's own folder or hub id."""
        return Path(step.reference) if step.reference is not None else self.build(step)

    def exists(self, step: Step) -> bool:
        """Whether a step's artifact, or the model outside the store, exists (hub ids are assumed to)."""
        if step.reference is None:
            return self.folder(step).exists()
        return Path(step.reference).exists() or not Path(step.reference).is_absolute()

    def get(self, kind: str, key: Mapping[str, Any], make: Callable[[Path], None], *, resumable: bool = False) -> Path:
        """A folder cached by a key that is only known while a step runs, such as a teacher's outputs on some texts."""
        return self._get(self.root / f"{kind}-{digest(key)}", key, make, resumable)

    def _get(self, path: Path, record: Mapping[str, Any], make: Callable[[Path], None], resumable: bool) -> Path:
        """Concurrent jobs that need the same artifact wait for the one that creates it."""
        built = False
        if damage(path) is not None:
            self.root.mkdir(parents=True, exist_ok=True)
            lock = FileLock(path.with_suffix(".lock"))
            try:
                lock.acquire(timeout=0)
            except Timeout:
                log.info("another job is creating %s; waiting", path.name)
                lock.acquire()
            try:
                if (reason := damage(path)) is not None:
                    if path.exists():
                        log.warning("%s: %s; keeping it as %s and creating it again", path, reason, _set_aside(path).name)
                    _make(path, record, make, resumable)
                    built = True
            finally:
                lock.release()
        artifact = Artifact(path, built, artifact_seconds(path))
        self.used.setdefault(path.name.rpartition("-")[0], []).append(artifact)
        return path


def _make(path: Path, record: Mapping[str, Any], make: Callable[[Path], None], resumable: bool) -> None:
    partial = path.with_suffix(".partial")
    if partial.exists() and not resumable:
        shutil.rmtree(partial)
    partial.mkdir(exist_ok=True)
    before, started = artifact_seconds(partial), time.perf_counter()
    try:
        make(partial)
        seconds = before + time.perf_counter() - started
        names = [str(file.relative_to(partial)) for file in partial.rglob("*") if file.is_file() and file.name != RECORD]
        files = seal(partial, names)
        write_json(partial / RECORD, {"key": dict(record), "seconds": seconds, "made": time.time(), "files": files})
        sync_tree(partial)
    except BaseException:
        if resumable:
            write_json(partial / RECORD, {"seconds": before + time.perf_counter() - started})
        else:
            shutil.rmtree(partial, ignore_errors=True)
        raise
    partial.rename(path)
    sync(path.parent)


def record_of(folder: Path) -> dict[str, Any]:
    """The content of `artifact.json`: the artifact's key, seconds and sealed files; empty if it cannot be read."""
    with suppress(OSError, ValueError, TypeError):
        return dict(read_json(folder / RECORD))
    return {}


def damage(folder: Path) -> str | None:
    """Why an artifact cannot be used as it is, in words; None if it can."""
    if not folder.exists():
        return "it does not exist"
    record = record_of(folder)
    if "key" not in record or not isinstance(record.get("files", {}), dict):
        return f"{RECORD} cannot be read"
    name = damaged(folder, record.get("files", {}))
    return f"{name} has changed or is missing" if name else None


def _set_aside(path: Path) -> Path:
    number = 1 + sum(1 for _ in path.parent.glob(f"{path.name}.damaged-*"))
    return path.rename(path.with_name(f"{path.name}.damaged-{number}"))


def artifact_seconds(folder: Path) -> float:
    """How long creating a complete or partial artifact took; 0 if it has no record of that."""
    with suppress(ValueError, TypeError, KeyError):
        return float(record_of(folder)["seconds"])
    return 0.0
