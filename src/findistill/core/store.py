"""Artifacts: folders made once, named by the key of the step that makes them.

A folder under its final name is complete. It is made as `<name>.partial`, under a lock, and renamed when it is done and on
the disk; a resumable step finds there what an earlier, killed process left. `artifact.json` seals its files: one that a full
disk, a power cut or a hand has changed since is moved aside and made again.
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
    """A complete folder; `made` tells whether this call made it, `seconds` how long making it took, then or now."""

    path: Path
    made: bool
    seconds: float


@dataclass
class Work:
    """What the implementation of a step gets: the step, the settings it declared, its folder, its parents' folders by role."""

    step: Any
    config: Any  # Settings, or the one section that the step is about
    folder: Path
    parents: Mapping[str, Path]
    store: "Store"

    @property
    def tokens(self) -> Path:
        """The cache of tokenised texts, shared by everything in the store."""
        return self.store.root / "tokens"

    @property
    def loggers(self) -> list[Any]:
        """Lightning loggers of the job that this work is done for."""
        return self.store.loggers()

    @property
    def responses(self) -> Path:
        """The folder of all responses that language models ever gave in this store."""
        return self.store.root / "responses"


@dataclass
class Store:
    """The artifacts under one folder, shared by all jobs and processes that use it.

    `used` has every artifact that this object gave out, by kind. `loggers` makes the Lightning loggers of the job that
    a step trains for, if any. `shared` is what the steps of one job share while it runs, by a name of theirs.
    """

    root: Path
    used: dict[str, list[Artifact]] = field(default_factory=dict)
    loggers: Callable[[], list[Any]] = list
    shared: dict[str, Any] = field(default_factory=dict)

    def at(self, step: Step, folder: Path) -> Work:
        """The work of a step, its parents made, without making the step itself."""
        return Work(step, step.config, folder, self.parents(step), self)

    def folder(self, step: Step) -> Path:
        return self.root / f"{step.name}-{step.key}"

    def build(self, step: Step) -> Path:
        """The folder of a step's artifact, made (with the parents that it needs) if it does not exist."""
        path = self.folder(step)
        # The parents come before the lock on this one, since making them may take long.
        work = None if damage(path) is None else self.at(step, path.with_suffix(".partial"))
        return self._get(path, step.record, lambda partial: step.run(work or self.at(step, partial)), step.resumable)

    def parents(self, step: Step) -> dict[str, Path]:
        """The folders of a step's parents, by role; a model from outside the store is where it is.

        Raises:
            UserError: the step's `check` refuses it.
        """
        if step.check:
            cheap = {role: self.build(parent) for role, parent in step.inputs.items() if parent.cheap}
            load(step.check)(Work(step, step.config, self.root, cheap, self))
        return {role: self.locate(parent) for role, parent in step.inputs.items()}

    def locate(self, step: Step) -> Path:
        """Where a step's result is: `build`, or a model's own folder or hub id."""
        return Path(step.reference) if step.reference is not None else self.build(step)

    def exists(self, step: Step) -> bool:
        """Whether a step's artifact, or the model outside the store, is there (a hub id counts as there)."""
        if step.reference is None:
            return self.folder(step).exists()
        return Path(step.reference).exists() or not Path(step.reference).is_absolute()

    def get(self, kind: str, key: Mapping[str, Any], make: Callable[[Path], None], *, resumable: bool = False) -> Path:
        """A folder cached by content: what is known only while a step runs, such as a teacher's outputs on some texts."""
        return self._get(self.root / f"{kind}-{digest(key)}", key, make, resumable)

    def _get(self, path: Path, record: Mapping[str, Any], make: Callable[[Path], None], resumable: bool) -> Path:
        """Jobs that want the same artifact at the same time wait for the one that makes it."""
        built = False
        if damage(path) is not None:
            self.root.mkdir(parents=True, exist_ok=True)
            lock = FileLock(path.with_suffix(".lock"))
            try:
                lock.acquire(timeout=0)
            except Timeout:
                log.info("%s is being made by another job; waiting for it", path.name)
                lock.acquire()
            try:
                if (reason := damage(path)) is not None:
                    if path.exists():
                        log.warning("%s: %s; it is kept as %s and made again", path, reason, _set_aside(path).name)
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
    """What `artifact.json` says of an artifact: its key, seconds and sealed files; empty where it cannot be read."""
    with suppress(OSError, ValueError, TypeError):
        return dict(read_json(folder / RECORD))
    return {}


def damage(folder: Path) -> str | None:
    """Why an artifact cannot be used as it is, in words; None where it can."""
    if not folder.exists():
        return "it is not there"
    record = record_of(folder)
    if "key" not in record or not isinstance(record.get("files", {}), dict):
        return f"{RECORD} cannot be read"
    name = damaged(folder, record.get("files", {}))
    return f"{name} is not as it was written" if name else None


def _set_aside(path: Path) -> Path:
    number = 1 + sum(1 for _ in path.parent.glob(f"{path.name}.damaged-*"))
    return path.rename(path.with_name(f"{path.name}.damaged-{number}"))


def artifact_seconds(folder: Path) -> float:
    """How long making a complete artifact, or half of one, took; 0 where it does not say."""
    with suppress(ValueError, TypeError, KeyError):
        return float(record_of(folder)["seconds"])
    return 0.0
