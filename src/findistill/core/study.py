"""A study: jobs that belong together. Its record says which settings may differ between them."""

import logging
import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from findistill.config.fields import without_secrets
from findistill.config.overrides import within
from findistill.core import run_folder
from findistill.core.files import read_json, write_json, write_whole
from findistill.core.step import flatten
from findistill.errors import UserError, did_you_mean

log = logging.getLogger(__name__)

# Anyone may try anything in the unnamed study; seeds are what a study repeats over.
UNCHECKED = "default"
ALWAYS_VARIES = ("seed", "data.labelled_seed")
PLAN = "plan.json"  # what the commands of a study are to run


def _record(path: Path) -> dict[str, Any] | None:
    """What `study.json` says; None where there is none, or none that can be read."""
    if not path.exists():
        return None
    try:
        record = read_json(path)
        stages = [(stage["varied"], stage["fixed"].items()) for stage in record["stages"].values()]
        return dict(record) if record["study"] and stages is not None else None
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        log.warning("%s cannot be read, and is written again", path)
        return None


def admit(folder: Path, name: str, jobs: Iterable[Mapping[str, Any]], varied: Iterable[str]) -> None:
    """Check that `jobs` belong to the study in `folder`, and note the settings they vary.

    Args:
        folder: the study's folder.
        name: the study's name.
        jobs: what determines each job (`findistill.core.run_folder.sections`).
        varied: keys or groups that this command sweeps or that `sweep.vary` allows: `distill.min_agreement`, `data`.

    Raises:
        UserError: a setting outside the varied ones differs from the study's, or the folder belongs to another study.
    """
    path = folder / "study.json"
    record = _record(path) or {"study": name, "stages": {}}
    if record.get("study") != name:
        raise UserError(
            f"study={name}: {folder} holds the study {record.get('study')!r}.\n"
            "Choose another study=NAME or another runs_dir, or rename the folder back."
        )
    if name == UNCHECKED:
        return
    written, jobs = repr(record), list(jobs)
    for stage_name in {job["stage"] for job in jobs}:
        if not any(run_folder.is_done(one) for one in folder.glob(f"{stage_name}-*")):  # nothing that these have to go with
            record["stages"].pop(stage_name, None)
    for job in jobs:
        stage = record["stages"].setdefault(job["stage"], {"varied": [], "fixed": flatten(job)})
        stage["varied"] = sorted({*stage["varied"], *varied, *ALWAYS_VARIES})
        free, fixed, here = stage["varied"], stage["fixed"], flatten(job)
        # What only some jobs read differs because of a setting that all of them read: that one is compared.
        unread = [name for name in job if not any(within(key, [name]) for key in fixed)]
        fixed.update({key: value for key, value in here.items() if within(key, unread)})
        differing = [
            key
            for key in sorted({*fixed, *here})
            if within(key, job) and fixed.get(key) != here.get(key) and not within(key, free)
        ]
        if differing:
            pairs = [(key, fixed.get(key), here.get(key)) for key in differing[:3]]
            values = "; ".join(f"{key}: the study has {before!r}, this command {now!r}" for key, before, now in pairs)
            more = f" (and {len(differing) - 3} more)" if len(differing) > 3 else ""
            raise UserError(
                f"study={name} has other fixed settings: {values}{more}.\n"
                f"Choose another study=NAME, or let it differ: sweep.vary=[{','.join(differing[:3])}]"
            )
    if repr(record) != written or not path.exists():
        write_json(path, record)


def commands(folder: Path) -> list[str]:
    """The commands that made the study, oldest first; a line that a power cut left half written is none."""
    path = folder / "commands.txt"
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    return [line.strip() for line in lines if line.endswith("\n") and not set(line) & {"\0", "\ufffd"}]


def command_line(arguments: Iterable[str]) -> str:
    """What to type for these arguments: without secrets, and with the folders of configuration that are set now."""
    folders = os.environ.get("FINDISTILL_CONF")
    words = [f"FINDISTILL_CONF={shlex.quote(folders)}"] if folders else []
    return " ".join([*words, "findistill", *(shlex.quote(without_secrets(each)) for each in arguments)])


def note_command(folder: Path, arguments: Iterable[str], *, jobs: Sequence[str] = (), trials: int | None = None) -> None:
    """Add a command to those that made the study, once, without secrets, and note what it is to run there.

    Args:
        folder: the study's folder.
        arguments: the command, without its name.
        jobs: the names of its jobs' folders, where they are known beforehand.
        trials: how many jobs it runs at most, where a search chooses them.
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
    """What each command of the study is to run: command -> `jobs`, the names of folders, and `trials`."""
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
        UserError: there is none of this name.
    """
    folder = runs_dir / name
    if not folder.is_dir():
        studies = names(runs_dir)
        near = did_you_mean(name, known=studies)
        raise UserError(f"study={name}: {folder} does not exist{near}; studies in {runs_dir}: {', '.join(studies) or 'none yet'}")
    return folder
