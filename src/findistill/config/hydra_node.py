"""Checks of a configuration's `hydra` node, which may choose plugins and configure logging, but must not run other code."""

from collections.abc import Mapping
from typing import Any

from findistill.config.fields import walk
from findistill.config.packages import allowed_packages
from findistill.errors import UserError

PLUGINS = ("hydra._internal.core_plugins.", "hydra_plugins.")
# Keys below `hydra` that may have a `_target_`, and its allowed prefixes.
TARGETS = {
    "launcher": PLUGINS,
    "sweeper": PLUGINS,
    "sweeper.sampler": ("optuna.samplers.",),
    "sweeper.pruner": ("optuna.pruners.",),
}
CALLBACKS = ("findistill.hydra_ext.", "hydra_plugins.", "hydra.experimental.callbacks.LogJobReturnCallback")
LOGGING = ("logging.StreamHandler", "logging.NullHandler", "logging.FileHandler", "colorlog.ColoredFormatter")
LOG_FILE = "${hydra.runtime.output_dir}/${hydra.job.name}.log"  # Hydra's own, the only one allowed
STREAMS = ("ext://sys.stdout", "ext://sys.stderr")
VARIABLES = ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "TOKENIZERS_PARALLELISM", "NCCL_")
# Launcher settings that are run by a shell or an interpreter, or that name a machine whose responses are unpickled: allowed on
# the command line, but not in a file, which may be someone else's.
COMMANDS = ("setup", "python", "srun_args", "additional_parameters", "runtime_env", "address", "setup_commands")
FOLDERS = ("run.dir", "sweep.dir", "sweep.subdir", "output_subdir")  # where Hydra writes; findistill writes to runs_dir


def check_hydra(node: Mapping[str, Any]) -> None:
    """Refuse settings that would run code other than an installed plugin's.

    Raises:
        UserError: a setting is refused; the message names the first one.
    """
    overrides = node.get("overrides") or {}
    words = [str(word) for group in ("hydra", "task") for word in overrides.get(group) or ()]
    from_command_line = {word.partition("=")[0].lstrip("+") for word in words}
    for at, value in walk(node):
        key, _, name = at.rpartition(".")
        section, top = key.partition(".")[0], f"hydra.{at}={value}"
        if name == "_target_":
            _check_target(key, value, top)
        elif key == "sweeper.sampler" and name == "_partial_":  # set by hydra-optuna-sweeper for its grid sampler
            raise UserError(
                "hydra/sweeper/sampler=grid: a grid is not a search.\n"
                "Omit hydra/sweeper=optuna and list the values: 'trainer.learning_rate=1e-5,1e-4'"
            )
        elif name in ("_args_", "_partial_", "_recursive_", "_convert_"):
            if value not in (None, "???"):
                raise UserError(f"{top} is refused: {name} is not allowed there, since it would run code")
        elif section in ("job_logging", "hydra_logging"):
            _check_logging(name, value, top)
        elif at == "sweeper.custom_search_space" and value not in (None, "???"):
            raise UserError(f"{top} is refused: a configuration cannot choose code there")
        elif section == "launcher" and name in COMMANDS and value and f"hydra.{at}" not in from_command_line:
            raise UserError(f"{top} runs commands: it cannot be set in a file, only on the command line: 'hydra.{at}=...'")
        elif at in FOLDERS and value not in (None, ".") and f"hydra.{at}" not in from_command_line:
            raise UserError(f"{top}: a file cannot choose where Hydra writes; set the output folder with runs_dir=DIR")
        elif key == "job.env_set" and not name.startswith(VARIABLES):
            raise UserError(f"{top} is refused: a configuration can only set the environment variables {', '.join(VARIABLES)}*")


def _check_target(key: str, value: Any, setting: str) -> None:
    beginnings: tuple[str, ...] = TARGETS.get(key, ())
    if key.startswith("callbacks.") and key.count(".") == 1:
        beginnings = (*CALLBACKS, *(f"{package}." for package in allowed_packages()))
    if value == "???" or (isinstance(value, str) and beginnings and value.startswith(beginnings)):
        return
    raise UserError(f"{setting} is refused: a configuration cannot choose code there")


def _check_logging(name: str, value: Any, setting: str) -> None:
    if name in ("()", "class") and value not in LOGGING:
        raise UserError(f"{setting} is refused: logging only accepts {', '.join(LOGGING)}")
    if name == "filename" and value != LOG_FILE:
        raise UserError(f"{setting} is refused: logs can only go to the run folder")
    if isinstance(value, str) and value.startswith(("ext://", "cfg://")) and value not in STREAMS:
        raise UserError(f"{setting} is refused: logging only accepts {' or '.join(STREAMS)}")
