"""Preprocessing of the command line for Hydra: flags in any order, conf folders, model folders, renamed settings."""

import os
import re
from argparse import Namespace
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from hydra import initialize_config_dir
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode

from findistill.config.groups import config_dir, group_options
from findistill.config.packages import package_folder
from findistill.config.renames import refuse_renamed
from findistill.config.targets import check_names
from findistill.core.run_folder import LATEST
from findistill.errors import UserError

SWEEPER = "hydra_plugins.findistill_sweeper.ResumingSweeper"  # it checks every job before the first starts


def normalize_argv(arguments: Sequence[str]) -> list[str]:
    """The arguments as Hydra expects them.

    Flags are moved to the front, since Hydra's parser needs consecutive overrides and would reject `stage=student -m seed=0,1`.

    Raises:
        UserError: an unknown flag, incompatible flags, a folder that does not exist, a setting's old name.
    """
    options = get_args_parser()._option_string_actions
    # `wandb agent` passes settings as flags unless its command has ${args_no_hyphens}.
    arguments = [
        argument[2:] if re.match(r"--[\w./@]+=", argument) and argument.partition("=")[0] not in options else argument
        for argument in arguments
    ]
    sweep = [argument for argument in arguments if argument in ("-m", "--multirun")]
    parser = get_args_parser()
    parsed, unknown = parser.parse_known_args([*sweep, *(argument for argument in arguments if argument not in sweep)])
    if unknown:
        raise UserError(f"{unknown[0]}: no such flag, or a setting after a flag: put flags first; see findistill --hydra-help")
    modes = [f"--{mode}" for mode in ("run", "multirun", "cfg", "info") if getattr(parsed, mode)]
    if len(modes) > 1:
        raise UserError(f"{' and '.join(modes)} cannot be combined. --cfg shows a single job: omit -m")
    if parsed.experimental_rerun is not None:
        raise UserError("--experimental-rerun reads a pickle, which can run code: repeat the command in the job's command.txt")
    if parsed.config_path is not None:
        raise UserError("--config-path would replace findistill's own configuration: add a folder with --config-dir")
    flags = [argument for argument in arguments if argument not in parsed.overrides]
    add_conf_folders(arguments)
    overrides = with_model_folders([without_links(override) for override in parsed.overrides])
    refuse_renamed(overrides)
    if not (parsed.cfg or parsed.info or parsed.hydra_help or parsed.shell_completion):
        check_command(parsed, overrides)
    return [*flags, *overrides]


def check_command(parsed: Namespace, overrides: list[str]) -> None:
    """Compose the command's configuration and check the names in it before Hydra acts on any of them.

    Hydra creates callbacks and configures logging before a job starts, so a check in the job would be too late.
    """
    name = parsed.config_name or "config"
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        config = loader.load_configuration(name, overrides, RunMode.MULTIRUN, validate_sweep_overrides=False)
    check_names(config)
    sweeps = [each for each in OverridesParser.create().parse_overrides(overrides) if each.is_sweep_override()]
    swept = {each.get_key_element().lstrip("+") for each in sweeps} | set(config.hydra.sweeper.get("params") or ())
    foreign = config.hydra.sweeper._target_ != SWEEPER
    if unchecked := sorted(key for key in swept if foreign and (key == "experiment" or key.startswith("hydra"))):
        raise UserError(
            f"{unchecked[0]} cannot be swept by this hydra/sweeper, which does not check jobs in advance: sweep settings instead"
        )


def add_conf_folders(arguments: Sequence[str]) -> None:
    """Add the folders of `--config-dir` and `hydra.searchpath` to $FINDISTILL_CONF.

    Hydra itself would only use them to compose the command's configuration, not for data sets or options named in a setting.

    Raises:
        UserError: a folder does not exist.
    """
    folders = []
    for argument, following in pairwise([*arguments, ""]):
        name, _, value = argument.partition("=")
        if name in ("--config-dir", "-cd"):
            folders.append((f"{name} ", value or following))
        elif name == "hydra.searchpath":
            folders += [("hydra.searchpath=", path) for path in re.findall(r"(?:file|pkg)://[^\s,'\"\]]+", value)]
    for setting, path in folders:
        folder = Path(path.removeprefix("file://"))
        if path.startswith("pkg://"):
            folder = package_folder(*path.removeprefix("pkg://").split("/"))
        if not folder.is_dir():
            raise UserError(f"{setting}{path}: no such folder")
        folders_before = os.environ.get("FINDISTILL_CONF", "").split(os.pathsep)
        if str(folder.resolve()) not in folders_before:
            os.environ["FINDISTILL_CONF"] = os.pathsep.join(filter(None, (str(folder.resolve()), *folders_before)))


def without_links(override: str) -> str:
    """An override with `latest-` links resolved to run folders, since a job's recorded settings must not change later."""
    for text in re.findall(rf"[^\s,'\"=\[\]{{}}]*{LATEST}[a-z]+", override):
        if (link := Path(text)).is_symlink():
            override = override.replace(text, str(link.parent / link.readlink()))
    return override


def with_model_folders(overrides: Sequence[str]) -> list[str]:
    """Replace `student=FOLDER` and `teacher=FOLDER` by the group's `folder` option with that model."""
    expanded: list[str] = []
    for override in overrides:
        group, _, value = override.partition("=")
        if group in ("student", "teacher") and "/" in value and "," not in value:
            if not Path(value).is_dir():
                raise UserError(f"{override}: no such folder; options: {', '.join(group_options(group))}")
            expanded += [f"{group}=folder", f"{group}.model={Path(value).resolve()}", f"{group}.name={Path(value).name}"]
        else:
            expanded.append(override)
    return expanded
