"""What a command says when it is done: where the result lies, and what one would type next."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from findistill.config.fields import without_secrets
from findistill.core.run_folder import LATEST

if TYPE_CHECKING:
    from findistill.schema import Config

# Settings that describe this command and not the next one's rows, models or prompts.
OF_THIS_COMMAND = ("stage", "annotate.dry_run", "annotate.show_prompt", "plan", "evaluate.model")


def closing_lines(config: "Config", folder: Path, overrides: Sequence[str]) -> str:
    """The run folder and the next commands."""
    link = _link(config, folder)
    where = f"run folder: {folder}" + (f" (also {link})" if link.exists() else "")
    return "\n".join([where, *next_lines(config, folder, overrides)])


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
