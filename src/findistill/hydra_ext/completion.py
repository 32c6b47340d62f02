"""Tab completion in a shell: Hydra's own, extended with values that it does not know.

Hydra's plugin, installed with `findistill -sc install=bash`, completes groups, options and names of settings. Added here are
studies, files and run folders, a setting's choices, elements of a list, and options of conf folders named on the command line.
"""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, suppress
from dataclasses import fields, is_dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from hydra import initialize_config_dir
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.errors import HydraException
from hydra.plugins.completion_plugin import DefaultCompletionPlugin
from hydra.types import RunMode
from omegaconf import BooleanNode, DictConfig, FloatNode, IntegerNode, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from findistill.config.fields import Constraints, constraints
from findistill.config.groups import config_dir, group_options
from findistill.core import study
from findistill.core.run_folder import LATEST
from findistill.errors import UserError
from findistill.hydra_ext.argv import add_conf_folders

FLAGS = ("--help", "--version")  # besides Hydra's
MODELS = ("model", "adapter", "teacher", "teachers", "annotations")  # settings that take a run folder
TYPEABLE = re.compile(r"[\w./+@%~-]+")  # needs no quotes in a shell or in Hydra's grammar


def print_candidates() -> None:
    """Print the candidates for the line in $COMP_LINE; none if the line is not valid, and never an error."""
    line = os.environ.get("COMP_LINE", "")
    line = line[: int(os.environ.get("COMP_POINT") or len(line))]
    with suppress(UserError):  # a folder that is still being typed
        add_conf_folders(line.split())
    with redirect_stderr(StringIO()), initialize_config_dir(str(config_dir()), version_base="1.3"):
        plugin = Completion(GlobalHydra.instance().config_loader())
        candidates = plugin._query("config", plugin.strip_python_or_app_name(line))
    separator = "\n" if "query=fish" in sys.argv else " "
    sys.stdout.write(separator.join(candidates) + "\n")


class Completion(DefaultCompletionPlugin):
    """Candidates for the last word of a command line."""

    def _query(self, config_name: str | None, line: str) -> list[str]:
        words = line.split()
        word = "" if not line or line[-1].isspace() else words.pop()
        self.words = [each for each in words if "=" in each and not each.startswith("-")]
        key, assigned, value = word.partition("=")
        with suppress(HydraException, OmegaConfBaseException, SystemExit):  # an earlier word is invalid
            if words and words[-1] in ("--config-dir", "-cd"):
                return sorted(files(word, folders=True))
            if word.startswith("-"):
                options = {*get_args_parser()._option_string_actions, *FLAGS}
                return sorted(option for option in options if option.startswith(word))
            if not assigned:
                groups, _ = self._query_config_groups(word, config_name, self.words)
                return sorted({*groups, *self._get_matches(self._config(), word)})
            prefix = re.match(r"(?:.*[,\[])?", value)[0]  # type: ignore[index]  # complete elements of a list
            values = set(self._values(key.lstrip("+~"), value[len(prefix) :]))
            return sorted(f"{key}={prefix}{each}" for each in values if each.startswith(value[len(prefix) :]))
        return []

    def _config(self) -> DictConfig:
        """The configuration of the line so far, or the default one if it cannot be composed yet."""
        for words in (self.words, []):
            with suppress(HydraException, OmegaConfBaseException):
                return self.config_loader.load_configuration("config", words, RunMode.MULTIRUN, validate_sweep_overrides=False)
        return OmegaConf.create()

    def _values(self, key: str, typed: str) -> Iterator[str]:
        """Values that the setting or group `key` may have."""
        runs_dir = Path(next((word.partition("=")[2] for word in self.words if word.startswith("runs_dir=")), "runs"))
        if key == "study":
            yield from study.names(runs_dir)
        elif options := self.config_loader.get_group_options(key, ObjectType.CONFIG, "config", self.words):
            yield from (option for option in options if not option.startswith("base_"))
            yield from files(typed, folders=True) if key in ("student", "teacher") else ()
        else:
            section, _, name = key.rpartition(".")
            parent = OmegaConf.select(self._config(), section) if section else self._config()
            if isinstance(parent, DictConfig) and name in parent:
                yield from _of_setting(parent, name, typed)
            else:  # a setting of an option that is not chosen yet: data.path before data=csv
                yield from files(typed)
            yield from (str(path) for path in runs_dir.glob(f"*/{LATEST}*") if name in MODELS)


def _of_setting(parent: DictConfig, name: str, typed: str) -> Iterator[str]:
    """The choices of a setting, else its current value and, if it is a string, files."""
    schema, node = OmegaConf.get_type(parent), parent._get_node(name)
    declared = schema is not None and is_dataclass(schema) and name in {field.name for field in fields(schema)}
    limits = constraints(schema, name) if schema is not None and declared else Constraints()
    if limits.choices or limits.names == "data":
        yield from map(str, limits.choices or group_options("data"))
    elif isinstance(node, BooleanNode):
        yield from ("true", "false")
    elif not isinstance(node, DictConfig):
        value: Any = None if isinstance(node, ListConfig) or OmegaConf.is_missing(parent, name) else parent[name]
        yield from [str(value)] if value is not None and TYPEABLE.fullmatch(str(value)) else []
        yield from files(typed) if not isinstance(node, IntegerNode | FloatNode) and not limits.pattern else ()


def files(typed: str, *, folders: bool = False) -> Iterator[str]:
    """Paths that begin with `typed`: folders except run folders end in a slash; hidden ones need the dot to be typed."""
    before, slash, prefix = typed.rpartition("/")
    folder = Path(f"{before}{slash}" or ".").expanduser()
    entries: list[os.DirEntry[str]] = []
    with suppress(OSError):
        entries = [*os.scandir(folder)]
    for entry in entries:
        offered = entry.name.startswith(prefix) and (prefix or not entry.name.startswith("."))
        if offered and (entry.is_dir() or not folders) and TYPEABLE.fullmatch(entry.name):
            inside = entry.is_dir() and not Path(entry, "status.json").exists()  # a run folder is itself a value
            yield f"{before}{slash}{entry.name}{'/' if inside else ''}"
