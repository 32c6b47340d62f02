"""Composing the configuration with Hydra, and parts of it that are named inside settings."""

from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from findistill.config.copies import copied
from findistill.config.fields import resolved
from findistill.config.groups import config_dir, group_options, groups, refuse_non_options
from findistill.config.messages import cannot_be_parsed, hydra_crashes_worded, inside_a_list, message
from findistill.config.overrides import words_of
from findistill.config.packages import conf_folders
from findistill.config.renames import refuse_renamed
from findistill.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from findistill.data.config import Data
    from findistill.schema import Config


def plain(config: Any) -> dict[str, Any]:
    """A configuration, or a part of one, as nested dicts and lists of plain values, with all interpolations resolved."""
    values = resolved(config if OmegaConf.is_config(config) else OmegaConf.structured(config))
    return {str(key): inner for key, inner in values.items()}


def data_config(words: str) -> "Data":
    """The `data` section for a data set and its settings given in words: `fiqa_news classes=2`.

    Raises:
        UserError: no such data set, or it has no such setting.
    """
    name, *settings = words_of(words) or [""]
    if name not in group_options("data"):
        raise UserError(f"{name!r} is not a data set; available: " + ", ".join(group_options("data")))
    overrides = tuple(f"data.{setting}" for setting in settings)
    return cast("Data", compose_part(f"data/{name}", overrides, f"data set {words!r}").data)


def with_overrides(config: "Config", words: str, key: str) -> "Config":
    """The configuration with further overrides, as on the command line: `prompt=cot shots.k=6`.

    A group's option replaces the whole section. `key` is the setting that holds the words, for error messages.

    Raises:
        UserError: no such option or setting.
    """
    base, overrides = cast(DictConfig, copied(config)), words_of(words)
    options = [word for word in overrides if word.partition("=")[0] in groups()]
    with read_write(base), open_dict(base):
        for word in options:
            group = word.partition("=")[0]
            base[group] = compose_part("config", (word,), f"{key}: {word!r}")[group]
        for word in overrides:
            name = word.partition("=")[0]
            refuse_renamed([word])
            try:
                if word not in options:
                    OmegaConf.update(base, name, _value(word), force_add=False)
            except OmegaConfBaseException as error:
                raise UserError(f"{key}: {message(error)}") from error
            except yaml.YAMLError as error:
                raise UserError(f"{key}: {cannot_be_parsed(word)}") from error
            except (AttributeError, IndexError, ValueError) as error:
                raise UserError(f"{key}: {inside_a_list(word)}") from error
    return cast("Config", base)


def _value(override: str) -> Any:
    """The value of an override: in Hydra's grammar as on the command line, or else, such as a regular expression, in YAML."""
    with suppress(HydraException):
        parsed = OverridesParser.create().parse_override(override)
        if not parsed.is_sweep_override():
            return parsed.value()
    return OmegaConf.create(f"v: {override.partition('=')[2]}").v


def compose_part(name: str, overrides: tuple[str, ...], subject: str) -> DictConfig:
    """The configuration `name`, composed with `overrides`, once per process. `subject` is the prefix of error messages.

    Raises:
        UserError: it cannot be composed.
    """
    try:
        return copied(_compose_once(name, overrides, conf_folders()))
    except MissingConfigException as error:
        group, _, option = (error.missing_cfg_file or name).rpartition("/")
        raise UserError(f"{subject}: no such option{did_you_mean(option, known=group_options(group))}") from error
    except (UserError, HydraException, OmegaConfBaseException) as error:
        raise UserError(f"{subject}: {error if isinstance(error, UserError) else message(error)}") from error


@cache
def _compose_once(name: str, overrides: tuple[str, ...], folders: tuple[Path, ...]) -> DictConfig:
    if GlobalHydra.instance().is_initialized():
        return composed(name, overrides)
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        return composed(name, overrides)


def composed(name: str, overrides: Sequence[str]) -> DictConfig:
    """The configuration `name`, composed with `overrides` by an initialised Hydra.

    Raises:
        UserError: an override has a setting's old name, or chooses something other than a name for a group.
        HydraException, OmegaConfBaseException: it cannot be composed; `messages.message` words it.
    """
    refuse_renamed(list(overrides))
    refuse_non_options(OverridesParser.create().parse_overrides(list(overrides)))
    with hydra_crashes_worded():
        return compose(name, list(overrides))


def without_hydra(config: DictConfig) -> "Config":
    """A newly composed configuration, from which this removes the `hydra` node: what a task function sees."""
    with read_write(config), open_dict(config):
        del config["hydra"]
    return cast("Config", config)
