"""What a command says when it is done: where the result lies, and what one would type next."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from findistill.config.fields import without_secrets
from findistill.core.run_folder import LATEST, status

if TYPE_CHECKING:
    from findistill.schema import Config

FEW = 3  # folders that a command names one by one
# Settings that describe this command and not the next one's rows, models or prompts.
OF_THIS_COMMAND = ("stage", "annotate.dry_run", "annotate.show_prompt", "plan", "evaluate.model")


def closing_lines(config: "Config", folder: Path, overrides: Sequence[str]) -> str:
    """The run folder and the next commands."""
    link = _link(config, folder)
    where = f"run folder: {folder}" + (f" (also {link})" if link.exists() else "")
    sync = sync_line(folder)
    return "\n".join([where, *next_lines(config, folder, overrides), *([sync] if sync else [])])


def sync_line(folder: Path) -> str | None:
    """The command that sends the W&B runs of a job or of a study which are offline, or broke off; None where there are none."""
    jobs = [folder, *(path.parent for path in folder.glob("*/wandb") if not path.parent.is_symlink())]
    offline = {job for job in jobs if any(_unsent(run) for run in job.glob("wandb/offline-run-*"))}
    broken = {job for job in jobs if ((status(job).get("wandb") or {}).get("complete") is False)}
    where = [shlex.quote(str(folder / "wandb"))] if folder in offline | broken else []
    if len(others := sorted((offline | broken) - {folder})) > FEW:
        where.append(f"{shlex.quote(str(folder))}/*/wandb")
    else:
        where += [shlex.quote(str(job / "wandb")) for job in others]
    online = "--include-online " if broken else ""
    return f"W&B runs that are not sent: wandb sync {online}{' '.join(where)}" if where else None


def _unsent(run: Path) -> bool:
    return any(run.glob("*.wandb")) and not any(run.glob("*.wandb.synced"))


def next_lines(config: "Config", folder: Path, overrides: Sequence[str], *, report: bool = True) -> list[str]:
    """The next commands, which `conf/stage/<stage>.yaml` names with placeholders; without `report` those but the report's.

    `{settings}` is what the user set for this job, `{study}` the study, `{latest}` the link to the newest job of the stage.
    """
    settings = [one for one in overrides if one.lstrip("+~").partition("=")[0] not in OF_THIS_COMMAND]
    here = [one for one in settings if one.startswith("runs_dir=")]
    link = _link(config, folder)
    values = {
        "settings": shlex.join(map(without_secrets, settings)),
        "study": shlex.join([f"study={config.study}", *here]),
        "latest": shlex.quote(str(link if link.exists() else folder)),
    }
    commands = [
        command.format(**values).strip()
        for command in config.stage.next
        if (report or "stage=report" not in command) and ("{latest}/onnx" not in command or (folder / "onnx").is_dir())
    ]
    return [f"{'next: ' if number == 0 else '      '}{command}" for number, command in enumerate(commands)]


def _link(config: "Config", folder: Path) -> Path:
    return folder.with_name(f"{LATEST}{config.stage.name}")
