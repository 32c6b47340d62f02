"""What a command prints when it is done: where the results are, and which commands come next."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from findistill.config.fields import without_secrets
from findistill.core.run_folder import LATEST, status
from findistill.core.study import with_conf_folders

if TYPE_CHECKING:
    from findistill.schema import Config

FEW = 3  # folders listed one by one in a command; more become a glob
# Settings of this command alone, which are not passed on to the next ones.
OF_THIS_COMMAND = ("stage", "annotate.dry_run", "annotate.show_prompt", "plan", "evaluate.model")


def closing_lines(config: "Config", folder: Path, overrides: Sequence[str]) -> str:
    """The run folder, the next commands and, if any W&B run is unsent, the command that sends it."""
    link = _link(config, folder)
    where = f"run folder: {folder}" + (f" (also {link})" if link.exists() else "")
    sync = sync_line(folder)
    return "\n".join([where, *next_lines(config, folder, overrides), *([sync] if sync else [])])


def sync_line(folder: Path) -> str | None:
    """The command that uploads the offline or incomplete W&B runs of a job or study; None if there are none."""
    jobs = [folder, *(path.parent for path in folder.glob("*/wandb") if not path.parent.is_symlink())]
    offline = {job for job in jobs if any(_unsent(run) for run in job.glob("wandb/offline-run-*"))}
    broken = {job for job in jobs if ((status(job).get("wandb") or {}).get("complete") is False)}
    where = [shlex.quote(str(folder / "wandb"))] if folder in offline | broken else []
    if len(others := sorted((offline | broken) - {folder})) > FEW:
        where.append(f"{shlex.quote(str(folder))}/*/wandb")
    else:
        where += [shlex.quote(str(job / "wandb")) for job in others]
    online = "--include-online " if broken else ""
    return f"unsynced W&B runs: wandb sync {online}{' '.join(where)}" if where else None


def _unsent(run: Path) -> bool:
    return any(run.glob("*.wandb")) and not any(run.glob("*.wandb.synced"))


def next_lines(config: "Config", folder: Path, overrides: Sequence[str], *, report: bool = True) -> list[str]:
    """The next commands, from the templates in `conf/stage/<stage>.yaml`; without `report`, `stage=report` is left out.

    `{settings}` stands for the user's overrides of this job, `{study}` for the study, `{latest}` for the link to the job's
    folder, or the folder itself if it is not the stage's latest job.
    """
    settings = [one for one in overrides if one.lstrip("+~").partition("=")[0] not in OF_THIS_COMMAND]
    here = [one for one in settings if one.startswith("runs_dir=")]
    link = _link(config, folder)
    values = {
        "settings": shlex.join(map(without_secrets, settings)),
        "study": shlex.join([f"study={config.study}", *here]),
        "latest": shlex.quote(str(link if link.resolve() == folder.resolve() else folder)),
    }
    commands = [
        with_conf_folders(command.format(**values).strip())
        for command in config.stage.next
        if (report or "stage=report" not in command) and ("{latest}/onnx" not in command or (folder / "onnx").is_dir())
    ]
    return [f"{'next: ' if number == 0 else '      '}{command}" for number, command in enumerate(commands)]


def _link(config: "Config", folder: Path) -> Path:
    return folder.with_name(f"{LATEST}{config.stage.name}")
