"""The application: compose the configuration, check it, run the stage. Nothing heavy is imported here."""

import errno
import logging
import os
import re
import signal
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from textwrap import fill
from types import FrameType
from typing import Any, NoReturn, cast

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from findistill.errors import SweepError, UserError
from findistill.runs import job as jobs
from findistill.runs import study
from findistill.settings import rules
from findistill.settings.compose import config_dir, options
from findistill.settings.schema import Config
from findistill.stages import load, reads

log = logging.getLogger("findistill")

HELP = """\
findistill: label financial text with an LLM, distil it into small models, and measure every step.

  findistill stage=student study=moon                        one job: annotate what is needed, train a student, score it
  findistill -m stage=student study=moon distill=cls,reg distill.min_agreement=5,6,7,8 seed=0,1,2
                                                             a sweep; the same command again continues it
  findistill stage=report study=moon                         tables, figures and report.html of a study
  findistill -m experiment=reddit_cls_vs_reg                 a named study with its own sweep

Groups, each set by GROUP=OPTION:
{groups}
Any setting can be overridden: data.path=my.csv shots.k=8 trainer.max_epochs=3 seed=1. See them all with --cfg job.
Data sets are read from $FINDISTILL_DATA first, then from the hub. Output goes to runs/<study>/<job>/ (runs_dir=...).
More flags (shell completion, config search path, ...): findistill --hydra-help
"""


@hydra.main(version_base="1.3", config_path=str(config_dir()), config_name="config")
def run(config: DictConfig) -> None:
    """One job: Hydra's task function, in this process or in a launcher's worker."""
    configure_log()
    if HydraConfig.get().mode == hydra.types.RunMode.MULTIRUN:
        run_job(cast(Config, config))
        return
    try:
        run_job(cast(Config, config))
    except Exception as error:
        raise Passed(error) from error


class Passed(BaseException):
    """Carries a single job's error past Hydra, which would print lines of its own."""


def run_job(config: Config) -> None:
    """Check the configuration, then run its stage in its folder, unless that was done before.

    Raises:
        UserError: the configuration or the data has a mistake that the user can mend.
    """
    rules.check(config)
    stage = load(config.stage.name)
    if config.stage.name == "report":
        stage.make(Path(config.runs_dir), config.study, config.report)
        return
    if rules.is_preview(config):
        stage.preview(config)
        return
    overrides = list(HydraConfig.get().overrides.task)
    folder = jobs.folder_of(config, reads(config), overrides)
    if jobs.is_done(folder):
        log.info("already done: %s", folder)
        return
    if HydraConfig.get().mode == hydra.types.RunMode.RUN:
        settings = jobs.sections(config, reads(config))
        study.admit(jobs.study_folder(config), config.study, [settings], config.sweep.vary)
    with jobs.running(config, folder) as job:
        stage.run(job)


def configure_log() -> None:
    """Messages of findistill go to stderr, plain; other libraries speak only when something is wrong."""
    if log.handlers:
        return
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False


def help_text() -> str:
    lines = []
    for group, choices in options().items():
        names = ", ".join(choices)
        lines.append(f"  {group:<11} {names}\n")
    return HELP.format(groups="".join(lines))


def arranged(arguments: Sequence[str]) -> list[str]:
    """Flags first: Hydra's parser takes overrides in one row only, and would refuse `stage=student -m seed=0,1`."""
    sweep = [argument for argument in arguments if argument in ("-m", "--multirun")]
    turned = [*sweep, *with_folders([argument for argument in arguments if argument not in sweep])]
    given, unknown = get_args_parser().parse_known_args(turned)
    if unknown:
        raise UserError(f"{unknown[0]}: no such flag, or a setting behind one; findistill --hydra-help shows the flags")
    modes = [f"--{mode}" for mode in ("run", "multirun", "cfg", "info") if getattr(given, mode)]
    if len(modes) > 1:
        raise UserError(f"{' and '.join(modes)} do not go together. --cfg shows a single job: leave -m out to see it")
    return turned


def with_folders(arguments: Sequence[str]) -> list[str]:
    """Turn `student=FOLDER` and `teacher=FOLDER` into the group's `folder` option with that model."""
    turned: list[str] = []
    for argument in arguments:
        group, _, value = argument.partition("=")
        if group in ("student", "teacher") and "/" in value and "," not in value:
            if not Path(value).is_dir():
                raise UserError(f"{argument}: no such folder; there are also {', '.join(options()[group])}")
            turned += [f"{group}=folder", f"{group}.model={Path(value).resolve()}", f"{group}.name={Path(value).name}"]
        else:
            turned.append(argument)
    return turned


def main() -> NoReturn:
    """The console script. Exit code 0: done; 1: a job failed; 2: a mistake in the command or its data; 130: Ctrl-C."""
    if "--help" in sys.argv[1:] or "-h" in sys.argv[1:]:
        sys.stdout.write(help_text())
        sys.exit(0)
    trace = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises its errors, and they are worded here
    signal.signal(signal.SIGTERM, _terminated)
    configure_log()
    try:
        sys.argv[1:] = arranged(sys.argv[1:])
        run()
    except Passed as passed:
        _explain(passed.args[0], trace)
    except (KeyboardInterrupt, Exception) as error:
        _explain(error, trace)
    sys.exit(0)


def _explain(error: BaseException, trace: bool) -> NoReturn:
    """Word the error, or raise it as it is where it is not the user's to mend."""
    if isinstance(error, KeyboardInterrupt):
        _leave("interrupted; the same command continues", 130, trace)
    if isinstance(error, SweepError):
        _leave(str(error), 1, trace)
    if isinstance(error, UserError):
        _leave(str(error), 2, trace)
    if isinstance(error, HydraException | OmegaConfBaseException):
        _leave(in_plain_words(error), 2, trace)
    if (number := _system_error(error)) in PLACES:
        name = getattr(error, "filename", None)
        remedy = "Free some space" if number in (errno.ENOSPC, errno.EDQUOT) else "Check the path and its permissions"
        _leave(f"{f'{name}: ' if name else ''}{os.strerror(number)}.\n{remedy}, or move the output: runs_dir=DIR", 2, trace)
    raise error


# What is wrong with a place on disk, not with the program.
PLACES = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.ENOTDIR, errno.EEXIST)


def _system_error(error: BaseException) -> int:
    """The operating system's number for the error, 0 where it has none."""
    if isinstance(error, OSError) and error.errno:
        return error.errno
    # safetensors and tokenizers tell it in words only, and numpy tells how much was written.
    told = re.search(r"\(os error (\d+)\)", str(error))
    return int(told[1]) if told else errno.ENOSPC if re.fullmatch(r"\d+ requested and \d+ written", str(error)) else 0


def _leave(message: str, code: int, trace: bool) -> NoReturn:
    if trace:
        logging.getLogger("findistill").error("", exc_info=True)
    sys.stderr.write(f"findistill: {message}\n")
    sys.exit(code)


def _terminated(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


KINDS = {"Integer": "a whole number is needed", "Float": "a number is needed", "Boolean": "true or false is needed"}


def in_plain_words(error: BaseException) -> str:
    """One or two lines for an error of Hydra's: the setting, what is wrong with it, and the nearest that exists."""
    text = str(error)
    if isinstance(error, OverrideParseException):
        return f"{error.override}: cannot be read ({text.partition(chr(10))[0]}). Special characters need quotes: KEY='\"...\"'"
    if found := re.match(r"Ambiguous value for argument '([^=']+)=([^']*)'", text):
        key, values = found.groups()
        return f"{key}={values}: several values make a sweep, findistill -m ...; a list needs brackets, {key}=[{values}]"
    cause = str(error.__cause__ or "").partition("\n")[0]
    if found := re.match(r"Could not (?:override|append to config|delete from config)[^']*'([^']+)'", text):
        return f"{found[1]}: no such setting.{_suggestion(found[1].partition('=')[0])}"
    if found := re.search(r"(?:In '[^']*': )?Could not find '([^']+)'", text):
        group, _, option = found[1].rpartition("/")
        offered = list(options().get(group, {}))
        if not offered:
            return f"{group}={option}: no such option"
        near = get_close_matches(option, offered, 1)
        wrong = f"{group}={option}: no such option{f', did you mean {near[0]}?' if near else '.'}"
        return wrong + "\n" + fill(f"There are: {', '.join(offered)}", 200)
    if found := re.search(r"Could not override '([^']+)'", text):
        return f"{found[1]}: no such option group.{_suggestion(found[1])}"
    if found := re.match(r"Error merging override (.+)", text):
        wanted = re.search(r"could not be converted to (Integer|Float|Boolean)", cause)
        return f"{found[1].strip()}: {KINDS[wanted[1]] if wanted else cause or 'cannot be set'}"
    if found := re.search(r"key '([^']+)'", text.lower()) if "is not in struct" in text else None:
        return f"{found[1]}: no such setting.{_suggestion(found[1])}"
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("Set the environment")]
    first = lines[0] if lines else type(error).__name__
    return f"{first}{f' ({cause})' if cause and cause not in first else ''}"


def _suggestion(key: str) -> str:
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    GlobalHydra.instance().clear()
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        plain: Any = OmegaConf.to_container(compose("config"), resolve=False)
    known = [*study.flatten(plain), *options()]
    section, _, last = key.rpartition(".")
    inside = [one for one in known if section and one.startswith(f"{section}.")]
    near = get_close_matches(key, known, 1, 0.75) or [one for one in known if one.rpartition(".")[2] == last]
    if near and (near[0] in inside or not inside):
        return f" Did you mean {near[0]}?"
    return f" {section} has: {', '.join(one.removeprefix(f'{section}.') for one in inside)}" if inside else ""


if __name__ == "__main__":
    main()
