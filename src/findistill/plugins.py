"""What a package calls to add to findistill. Its module, named by an entry point, is imported before anything is composed.

    # pyproject.toml
    [project.entry-points.findistill]
    mypackage = "mypackage.plugin"

    # mypackage/plugin.py: light, for it is imported with every command; code for the slots stands in other modules
    from findistill.plugins import register_schema, register_section

Beside the module may lie a folder `conf/`, which counts everywhere the shipped one does. Code of the package may then be named
by a `_target_` of that folder, of a study file or on the command line, in the slots that `findistill.config.targets` lists.

| to add | by |
| --- | --- |
| an option: data set, prompt, model, engine, callback, stage | `conf/<group>/<name>.yaml` |
| a schema for options with own settings | `register_schema("data", "mynews", MyNews)`; `defaults: [base_mynews, _self_]` |
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
    """A further section at the root of the configuration, `name.setting=value`.

    Args:
        name: the section's name; none that findistill or another package has.
        schema: a dataclass with a default for every field.

    Raises:
        ValueError: the name is taken, or `schema` is no dataclass.
    """
    _check_dataclass(schema)
    if _sections.setdefault(name, schema) is not schema:
        raise ValueError(f"the section {name!r} is registered already, as {_sections[name].__qualname__}")


def register_schema(group: str, name: str, schema: type) -> None:
    """A schema for options of a group, which their YAML files start from: `defaults: [base_<name>, _self_]`.

    Args:
        group: the group, such as `data` or `llm`.
        name: the schema's name, without `base_`.
        schema: a dataclass, derived from the group's own (`findistill.data.config.Data`, ...).

    Raises:
        ValueError: `schema` is no dataclass.
    """
    _check_dataclass(schema)
    ConfigStore.instance().store(group=group, name=f"base_{name}", node=schema, provider=schema.__module__)


def root_schema(base: type) -> type:
    """The root's dataclass with the registered sections added."""
    clashes = sorted(_sections.keys() & base.__dataclass_fields__.keys())  # type: ignore[attr-defined]
    if clashes:
        raise UserError(f"{_sections[clashes[0]].__module__} registers the section {clashes[0]!r}, which findistill has itself")
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
        raise ValueError(f"{schema!r} is no dataclass")
