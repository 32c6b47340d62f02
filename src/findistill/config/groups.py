"""The conf folders, and the groups and options in them."""

from collections.abc import Iterable
from functools import cache
from pathlib import Path
from textwrap import fill
from typing import Any, cast

import yaml
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import Override
from omegaconf import OmegaConf

from findistill.config.overrides import flatten
from findistill.config.packages import conf_folders
from findistill.errors import UserError, did_you_mean


def config_dir() -> Path:
    """`conf/`: inside the package when installed from a wheel, at the top of the checkout otherwise."""
    package = Path(__file__).resolve().parents[1]
    packaged = package / "conf"
    return packaged if packaged.is_dir() else package.parents[1] / "conf"


def _folders() -> tuple[Path, ...]:
    return config_dir(), *conf_folders()


def options() -> dict[str, tuple[str, ...]]:
    """The options of each group, including those in users' conf folders: group -> options."""
    return {group: names for group in groups() if (names := group_options(group))}


def groups() -> tuple[str, ...]:
    return tuple(sorted({path.name for folder in _folders() for path in folder.iterdir() if path.is_dir()} - {"hydra"}))


def group_options(group: str) -> tuple[str, ...]:
    """The options of a group: from Hydra if it is initialised, else from the file names, which is fast."""
    if GlobalHydra.instance().is_initialized():
        names = _hydra_options(group, conf_folders())
    else:
        names = {path.stem for folder in _folders() for path in (folder / group).glob("*.yaml")}
    return tuple(sorted(name for name in names if not name.startswith("base_")))


def option_file(group: str, option: str) -> Path | None:
    """The file of a group's option, also in users' conf folders; None if there is none."""
    return next((file for folder in _folders() if (file := folder / group / f"{option}.yaml").is_file()), None)


@cache
def _hydra_options(group: str, folders: tuple[Path, ...]) -> set[str]:
    return set(GlobalHydra.instance().config_loader().get_group_options(group))


def options_with(group: str, setting: str) -> list[str]:
    """The options of a group that have a setting, `a.b` for one inside a section."""
    return [option for option in group_options(group) if setting in _settings_of(group, option)]


def _settings_of(group: str, option: str) -> set[str]:
    """The settings in the file or schema of an option, and of those that it inherits from, by dotted key."""
    if (file := option_file(group, option)) is None:
        schema = ConfigStore.instance().repo.get(group, {}).get(f"{option}.yaml")
        return set(flatten(cast(dict[str, Any], OmegaConf.to_container(schema.node)))) if schema else set()
    content = yaml.load(file.read_text(encoding="utf-8"), yaml.CSafeLoader) or {}
    own = {name: value for name, value in content.items() if name != "defaults"}
    inherited = [base for base in content.get("defaults", ()) if isinstance(base, str) and base != "_self_"]
    return set(flatten(own)).union(*(_settings_of(group, base) for base in inherited))


def no_such_option(group: str, option: str, names: Iterable[str]) -> str:
    """The message for an option that a group does not have: the nearest name and, in a second line, all of them."""
    available = [name for name in names if not name.startswith("base_")]
    if not available:
        return f"{group}={option}: no such option"
    near = did_you_mean(option, known=available).strip(" ()?")
    return f"{group}={option}: no such option{f', {near}?' if near else '.'}\n" + fill(
        f"Available: {', '.join(available)}", 200, max_lines=2, placeholder=" and more"
    )


def refuse_non_options(overrides: Iterable[Override]) -> None:
    """Refuse overrides that choose something other than a name for a group, such as `data=3`; Hydra crashes on them.

    Raises:
        UserError: an override does.
    """
    known = groups()
    for override in overrides:  # "/" is only in names of groups, such as Hydra's own
        group = override.key_or_group
        if override.is_sweep_override() or not (group in known or "/" in group):
            continue
        value = override.value()
        names = value if isinstance(value, list) else [] if value is None and override.is_delete() else [value]
        if not isinstance(value, dict) and not all(isinstance(name, str) for name in names):
            raise UserError(no_such_option(group, str(override.input_line).partition("=")[2], group_options(group)))
