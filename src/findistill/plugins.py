"""The API for packages that extend findistill. Their modules, named by entry points, are imported before anything is composed.

    # pyproject.toml
    [project.entry-points.findistill]
    mypackage = "mypackage.plugin"

    # mypackage/plugin.py: cheap to import, since every command does so; keep code for slots in other modules
    from findistill.plugins import register_schema, register_section

A folder `conf/` beside the module is used like findistill's own. The package's code may then be named by a `_target_` in that
folder, in a study file or on the command line, in the slots that `findistill.config.targets` lists.

| to add | use |
| --- | --- |
| an option: data set, prompt, model, engine, callback, stage | `conf/<group>/<name>.yaml` |
| a schema for options with their own settings | `register_schema("data", "mynews", MyNews)`; `defaults: [base_mynews, _self_]` |
| a section at the root | `register_section("backtest", Backtest)` |
| a rule between settings | `@rule("student")` |
| a function for a slot | `@target("scheduler")` |
| constraints of a setting | `setting(3, ge=1)` |
"""

from dataclasses import field, is_dataclass, make_dataclass
from functools import cache
from typing import Any

from hydra.core.config_store import ConfigStore

from findistill.config.fields import declares, setting
from findistill.config.packages import plugin_entry_points
from findistill.config.targets import target
from findistill.config.validate import rule
from findistill.errors import UserError

__all__ = ["declares", "register_schema", "register_section", "rule", "setting", "target"]

_sections: dict[str, type] = {}


def register_section(name: str, schema: type) -> None:
    """Add a section to the root of the configuration, `name.setting=value`.

    Args:
        name: the section's name, which findistill or other packages must not have.
        schema: a dataclass with a default for every field.

    Raises:
        ValueError: another package has the name, or `schema` is not a dataclass.
    """
    _check_dataclass(schema)
    if _sections.setdefault(name, schema) is not schema:
        raise ValueError(f"the section {name!r} is already registered, as {_sections[name].__qualname__}")


def register_schema(group: str, name: str, schema: type) -> None:
    """Add a schema for options of a group, from which their YAML files inherit: `defaults: [base_<name>, _self_]`.

    Args:
        group: the group, such as `data` or `llm`.
        name: the schema's name, without `base_`.
        schema: a dataclass, derived from the group's own (`findistill.data.config.Data`, ...).

    Raises:
        ValueError: `schema` is not a dataclass.
    """
    _check_dataclass(schema)
    ConfigStore.instance().store(group=group, name=f"base_{name}", node=schema, provider=schema.__module__)


def root_schema(base: type) -> type:
    """The root's dataclass with the registered sections added."""
    clashes = sorted(_sections.keys() & base.__dataclass_fields__.keys())  # type: ignore[attr-defined]
    if clashes:
        raise UserError(f"{_sections[clashes[0]].__module__} registers the section {clashes[0]!r}, one of findistill's own")
    if not _sections:
        return base
    added: list[Any] = [(name, schema, field(default_factory=schema)) for name, schema in _sections.items()]
    return make_dataclass(base.__name__, added, bases=(base,))


@cache
def load_packages() -> None:
    """Import the modules of installed packages, once.

    Raises:
        UserError: one cannot be imported.
    """
    for point in plugin_entry_points():
        try:
            point.load()
        except Exception as error:
            package = point.dist.name if point.dist else point.module
            raise UserError(f"the package {package} cannot be loaded: {point.value}: {error}") from error


def _check_dataclass(schema: type) -> None:
    if not is_dataclass(schema):
        raise ValueError(f"{schema!r} is not a dataclass")
