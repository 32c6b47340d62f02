"""A job's run folder: its path, whether the job is done, its metrics. Cheap to import, since planning needs nothing else."""

import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from findistill.config.fields import result_settings, without_secrets
from findistill.core.files import read_json, write_json
from findistill.core.hashing import SETTLED_S, damaged, digest
from findistill.core.step import Step, changed_files
from findistill.errors import UserError

if TYPE_CHECKING:
    from findistill.schema import Config


def sections(config: "Config", step: Step) -> dict[str, Any]:
    """The part of the configuration that the job's graph reads: its stage, and sections without runtime-only settings.

    Individual settings, read from a section that is not read completely, have dotted names.
    """
    whole: dict[str, Any] = {name: result_settings(config[name], references=True) for name in step.sections_read}  # type: ignore[index]
    settings: dict[str, Any] = {"stage": step.name}
    for name in step.settings_read:
        section, _, setting = name.partition(".")
        if not setting:
            settings[name] = whole[section]
        elif setting in whole[section]:  # else it is runtime-only
            settings[name] = whole[section][setting]
    return settings


PROGRESS = "progress.txt"  # the progress of a running job, in one line
REPORT = "report.json"  # beside a study's page: the jobs that it covers, and the best of them
COMMAND = "command.txt"  # the command that repeats the job
LATEST = "latest-"  # `runs/<study>/latest-<stage>` links to the newest done job of a stage
OF_A_FILE = ("path", "text_column", "label_column", "id_column", "delimiter", "encoding", "columns")  # not in names
RESULTS = ("model", "merged", "onnx", "annotations", "predictions")  # folders of a run folder that other jobs use
KEY = 8  # characters of a job's key in its name
SLUG = 60  # characters of a job's name before its key: short enough to type, and W&B panels do not truncate it


def folder_of(config: "Config", step: Step, overrides: Sequence[str]) -> Path:
    """`runs/<study>/<job>`: a readable slug of the overrides and the beginning of the key of the job's last step.

    The key alone identifies the job: another command that leads to the same settings finds the same folder.
    """
    study, key = study_folder(config), step.key[:KEY]
    name = _names(study).get(key) or f"{_slug(config.stage.name, step.sections_read, overrides)}-{key}"
    return study / name


def _names(study: Path) -> dict[str, str]:
    """Key -> name of the jobs of a study. Listed once while a sweep is planned, which looks for each of its jobs."""
    try:
        changed = study.stat().st_mtime_ns
    except OSError:
        return {}
    if time.time() - changed / 1e9 < SETTLED_S:  # it may change again without another time
        return _listed.__wrapped__(study, changed)
    return _listed(study, changed)


@lru_cache(maxsize=1)
def _listed(study: Path, changed: int) -> dict[str, str]:
    return {name.rpartition("-")[2]: name for name in sorted((path.name for path in study.iterdir()), reverse=True)}


def _slug(stage: str, reads: Sequence[str], overrides: Sequence[str]) -> str:
    """The stage and as many settings as fit: group choices (value only), other settings, then those of data and evaluation."""
    settings = [without_secrets(override).lstrip("+~").partition("=") for override in overrides]
    # Only what the graph reads goes into the name, not output folders or tracking.
    named = [(name, value) for name, _, value in settings if name.partition(".")[0] in reads]
    named = [(name, value) for name, value in named if name not in {f"data.{one}" for one in OF_A_FILE}]
    slug = stage
    for name, value in sorted(named, key=lambda one: ("." in one[0], one[0].startswith(("data.", "evaluate.")), one)):
        is_choice = "." not in name and name != "seed"
        part = value if is_choice else f"{name.rpartition('.')[2]}_{value}"
        # No characters that Hydra's grammar requires quotes for: a run folder is itself a value of `evaluate.model`.
        part = re.sub(r"[^\w.+-]+", "_", part)
        if len(slug) + len(part) < SLUG:
            slug = f"{slug}-{part}"
    return slug


def jobs(study: Path, pattern: str = "*") -> Iterator[Path]:
    """The run folders of a study, in any state, without the `latest-` links."""
    folders = (path.parent for path in sorted(study.glob(f"{pattern}/status.json")))
    return (folder for folder in folders if not folder.name.startswith((LATEST, ".")))  # a kill may leave a temporary link


def link_latest(folder: Path, stage: str) -> None:
    """Point `latest-<stage>` of the study at a done job; does nothing if the file system has no symlinks."""
    with suppress(OSError):
        aside = folder.with_name(f".{LATEST}{stage}.{os.getpid()}")
        aside.unlink(missing_ok=True)
        aside.symlink_to(folder.name, target_is_directory=True)
        aside.replace(folder.with_name(f"{LATEST}{stage}"))


def done_jobs(study: Path) -> dict[str, Any]:
    """The done jobs of a study: name -> when each ended."""
    states = {job.name: status(job) for job in jobs(study)}
    return {name: state.get("ended") for name, state in states.items() if state.get("state") == "done"}


def report_is_current(study: Path) -> bool:
    """Whether the study's report covers exactly the jobs that are done now, as they last ended, and is undamaged."""
    with suppress(OSError, ValueError, TypeError, KeyError, AttributeError):
        record = read_json(study / REPORT)
        return bool(record["jobs"] == done_jobs(study)) and bool(record["files"]) and damaged(study, record["files"]) is None
    return False


def best_job(study: Path) -> Path | None:
    """The run folder of the job that the study's current report has as the best; None if there is none."""
    name = read_json(study / REPORT).get("best") if report_is_current(study) else None
    return study / name if name else None


def what_changed(folder: Path, step: Step) -> str | None:
    """One line if a done job of this study had the same name and settings, but other file contents; else None."""
    slug = folder.name.rpartition("-")[0]
    for job in jobs(folder.parent, f"{slug}-{'?' * KEY}"):  # all jobs' lineages would take longer than a small job
        if status(job).get("state") != "done":
            continue
        with suppress(OSError, ValueError, KeyError):
            if names := changed_files(read_json(job / "lineage.json"), step.lineage()):
                return f"{', '.join(names)} changed since {job.name}: running again"
    return None


def study_folder(config: "Config") -> Path:
    return Path(config.runs_dir) / config.study


def status(folder: Path) -> dict[str, Any]:
    """A job's `status.json`, or an empty dict if it is missing or unreadable."""
    with suppress(OSError, ValueError, TypeError):
        return dict(read_json(folder / "status.json"))
    return {}


def lock_of(folder: Path) -> FileLock:
    """The lock that is held while a job runs.

    It is in the store: a kill leaves the lock file behind, and a study's folder should contain nothing but jobs.
    """
    return FileLock(folder.parent.parent / ".artifacts" / f"job-{digest([folder.parent.name, folder.name])}.lock")


def is_running(folder: Path) -> bool:
    """Whether a process is running the job now. A job in state `running` whose lock is free was interrupted."""
    if status(folder).get("state") != "running" or not Path(lock_of(folder).lock_file).exists():
        return False
    try:
        with lock_of(folder).acquire(timeout=0):
            return False
    except (Timeout, OSError):  # locked; or another user's, or on a read-only disk: trust its state
        return True


def note_death(folder: Path, key: str, reason: str) -> None:
    """Mark a job as failed whose process ended without doing so; does nothing while another process is running it."""
    with suppress(Timeout), lock_of(folder).acquire(timeout=0):
        before = status(folder)
        if before.get("state") not in ("done", "failed"):
            folder.mkdir(parents=True, exist_ok=True)
            write_json(folder / "status.json", {"key": key, **before, "state": "failed", "error": reason})


def is_done(folder: Path) -> bool:
    """Whether the job succeeded and its files are unchanged. A job with a damaged file is run again."""
    recorded = status(folder)
    return recorded.get("state") == "done" and damaged(folder, recorded.get("files", {})) is None


def results(folder: Path) -> list[str]:
    """The files of a run folder that hold results: no figures, cards, logs or checkpoints."""
    files = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    own = [file for file in files if len(file.parts) == 1 or file.parts[0] in RESULTS]
    return [str(file) for file in own if file.suffix not in (".md", ".txt", ".lock") and file.name != "status.json"]


def artifact_of(folder: Path, kind: str) -> Path | None:
    """The artifact of a kind that the job in `folder` used; None if it used none, or `folder` is no run folder."""
    used = read_json(folder / "artifacts.json") if (folder / "artifacts.json").is_file() else {}
    return folder.resolve().parents[1] / ".artifacts" / used[kind] if kind in used else None


def objective(config: "Config", folder: Path) -> float | None:
    """The metric of a done job that a hyper-parameter search optimises.

    `objective` names it; the default is the monitored validation score (`trainer.monitor`), if the stage has one.

    Raises:
        UserError: `objective` names a metric that the job does not have.
    """
    metrics = read_json(folder / "metrics.json")
    name = config.objective or config.trainer.monitor
    if config.objective and name not in metrics:
        names = sorted(key for key in metrics if key.startswith(("val/", "test/")) and not key.endswith(("_lo", "_hi")))
        raise UserError(f"objective={name}: {folder} has no such metric; available: {', '.join(names)}")
    return metrics.get(name)
