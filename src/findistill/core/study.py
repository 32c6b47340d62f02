"""A study: jobs that belong together. Its record lists the settings that may differ between them."""

import logging
import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from findistill.config.fields import without_secrets
from findistill.config.overrides import flatten, within
from findistill.core import run_folder
from findistill.core.files import read_json, write_json, write_whole
from findistill.errors import UserError, did_you_mean

log = logging.getLogger(__name__)

UNCHECKED = "default"  # the unnamed study, whose jobs may differ in everything
ALWAYS_VARIES = ("seed", "data.labelled_seed")
PLAN = "plan.json"  # the jobs that a study's commands are to run


def _record(path: Path) -> dict[str, Any] | None:
    """The content of `study.json`; None if it is missing or unreadable."""
    if not path.exists():
        return None
    try:
        record = read_json(path)
        stages = [(stage["varied"], stage["fixed"].items()) for stage in record["stages"].values()]
        return dict(record) if record["study"] and stages is not None else None
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        log.warning("%s cannot be read; rewriting it", path)
        return None


def admit(folder: Path, name: str, jobs: Iterable[Mapping[str, Any]], varied: Iterable[str]) -> None:
    """Check that `jobs` belong to the study in `folder`, and record the settings that vary.

    Args:
        folder: the study's folder.
        name: the study's name.
        jobs: what determines each job (`findistill.core.run_folder.sections`).
        varied: keys or groups that this command sweeps or that `sweep.vary` allows: `distill.min_agreement`, `data`.

    Raises:
        UserError: a setting that may not vary differs from the study's, or the folder belongs to another study.
    """
    path = folder / "study.json"
    record = _record(path) or {"study": name, "stages": {}}
    if record.get("study") != name:
        raise UserError(
            f"study={name}: {folder} belongs to the study {record.get('study')!r}.\n"
            "Choose another study=NAME or another runs_dir, or rename the folder back."
        )
    if name == UNCHECKED:
        return
    written, jobs = repr(record), list(jobs)
    for stage_name in {job["stage"] for job in jobs}:
        if not any(run_folder.is_done(one) for one in folder.glob(f"{stage_name}-*")):  # no results to be comparable to
            record["stages"].pop(stage_name, None)
    for job in jobs:
        stage = record["stages"].setdefault(job["stage"], {"varied": [], "fixed": flatten(job)})
        stage["varied"] = sorted({*stage["varied"], *varied, *ALWAYS_VARIES})
        free, fixed, here = stage["varied"], stage["fixed"], flatten(job)
        # A section that only some jobs read differs because of a setting that all of them read, and that setting is compared.
        unread = [name for name in job if not any(within(key, [name]) for key in fixed)]
        fixed.update({key: value for key, value in here.items() if within(key, unread)})
        unequal = [key for key in sorted({*fixed, *here}) if fixed.get(key) != here.get(key)]
        differing = [key for key in unequal if within(key, job) and not within(key, free)]
        if differing:
            pairs = [(key, fixed.get(key), here.get(key)) for key in differing[:3]]
            values = "; ".join(f"{key}: {before!r} in the study, {now!r} in this command" for key, before, now in pairs)
            more = f" (and {len(differing) - 3} more)" if len(differing) > 3 else ""
            raise UserError(
                f"study={name} has different fixed settings: {values}{more}.\n"
                f"Choose another study=NAME, or allow the difference: sweep.vary=[{','.join(differing[:3])}]"
            )
    if repr(record) != written or not path.exists():
        write_json(path, record)


def commands(folder: Path) -> list[str]:
    """The commands that created the study, oldest first; lines left incomplete by a power cut are skipped."""
    path = folder / "commands.txt"
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    return [line.strip() for line in lines if line.endswith("\n") and not set(line) & {"\0", "\ufffd"}]


def command_line(arguments: Iterable[str]) -> str:
    """The shell command for these arguments, without secrets, and with $FINDISTILL_CONF as it is set now."""
    return with_conf_folders(" ".join(["findistill", *(shlex.quote(without_secrets(each)) for each in arguments)]))


def with_conf_folders(command: str) -> str:
    """The shell command with $FINDISTILL_CONF as it is set now, which `--config-dir` extends."""
    folders = os.environ.get("FINDISTILL_CONF")
    return f"FINDISTILL_CONF={shlex.quote(folders)} {command}" if folders else command


def note_command(folder: Path, arguments: Iterable[str], *, jobs: Sequence[str] = (), trials: int | None = None) -> None:
    """Add a command to those of the study, once and without secrets, and record what it is to run there.

    Args:
        folder: the study's folder.
        arguments: the command, without its name.
        jobs: the names of its jobs' folders, if known beforehand.
        trials: the maximum number of jobs, if a search chooses them.
    """
    before, command = commands(folder), command_line(arguments)
    if command not in before:
        write_whole(folder / "commands.txt", "\n".join([*before, command]) + "\n")
    noted = plans(folder)
    every = {**noted, command: {"jobs": list(jobs), "trials": trials}}
    current = {each: plan for each, plan in every.items() if each in (*before, command)}
    if current != noted:
        write_json(folder / PLAN, current)


def plans(folder: Path) -> dict[str, dict[str, Any]]:
    """What each command of the study is to run: command -> `jobs` (folder names) and `trials`."""
    with suppress(OSError, ValueError, TypeError, KeyError, AttributeError):
        recorded = read_json(folder / PLAN)
        return {str(command): {"jobs": list(plan["jobs"]), "trials": plan["trials"]} for command, plan in recorded.items()}
    return {}


def names(runs_dir: Path) -> list[str]:
    """The studies in `runs_dir`."""
    folders = {path.parent for mark in ("study.json", "commands.txt") for path in runs_dir.glob(f"*/{mark}")}
    folders |= {path.parents[1] for path in runs_dir.glob("*/*/status.json")}
    return sorted(folder.name for folder in folders if not folder.name.startswith("."))


def existing(runs_dir: Path, name: str) -> Path:
    """The folder of a study.

    Raises:
        UserError: there is no study of this name.
    """
    folder = runs_dir / name
    if not folder.is_dir():
        studies = names(runs_dir)
        near = did_you_mean(name, known=studies)
        raise UserError(f"study={name}: {folder} does not exist{near}; studies in {runs_dir}: {', '.join(studies) or 'none yet'}")
    return folder
