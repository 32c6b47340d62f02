"""Expansion of settings that name a configuration in words, such as `shots.source="tfns limit=500"`, to that configuration.

Such a setting declares it on its field (`setting(..., names="data")` or `names="overrides"`). The words are a short form of
a mapping (`{name: tfns, limit: 500}`) or of a node that Hydra composed (`data@shots.source: tfns`).
"""

from collections.abc import Callable
from dataclasses import fields, is_dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Any, cast

from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from findistill.config.compose import compose_part, data_config, with_overrides
from findistill.config.copies import copied, with_sections
from findistill.config.fields import constraints, nodes
from findistill.config.groups import groups
from findistill.config.messages import message
from findistill.config.overrides import words_of
from findistill.config.shared import once
from findistill.config.validate import sections, unknown_data_set
from findistill.errors import UserError

if TYPE_CHECKING:
    from findistill.schema import Config

# The sections in which the annotators of an ensemble may differ.
ANNOTATOR = ("llm", "prompt", "shots", "annotate", "qlora")


def expand(config: "Config") -> "Config":
    """A composed configuration with settings in words expanded to nodes; to be called once, before validation.

    The sections with such settings are replaced, the others are those of `config`.

    A data set becomes a typed `Data` section; an annotator of an ensemble a mapping with the sections of `ANNOTATOR`. Empty
    settings are unchanged.

    Raises:
        UserError: no such data set, option or setting; the message begins with the key of the setting.
    """
    composed = cast(DictConfig, config)
    expanded = {name: _annotators(_data_sets(section, name), name, config) for name, section in nodes(composed).items()}
    changed = {name: section for name, section in expanded.items() if section is not nodes(composed)[name]}
    return cast("Config", with_sections(composed, changed))


@once
def _data_sets(section: Any, key: str) -> Any:
    """The section with data sets, and short forms that only its schema knows, as nodes; itself if it has none."""
    short = any(hasattr(schema, "complete") for _, _, schema in sections(section, key))
    if not short and not _in_words(section, key, "data"):
        return section
    own = _replaced(section, key, "data", _data)
    with read_write(own), open_dict(own):
        for _, node, schema in [*sections(own, key)]:  # which `complete` changes
            if complete := getattr(schema, "complete", None):
                complete(node)
    return own


def _annotators(section: Any, key: str, config: "Config") -> Any:
    """The section with annotators as nodes; itself if it has none."""
    if not _in_words(section, key, "overrides"):
        return section
    return _replaced(section, key, "overrides", partial(_annotator, config=config))


@once
def _in_words(section: Any, key: str, kind: str) -> list[tuple[DictConfig, str, str]]:
    """The settings in a section that name configurations of this kind, if they are set: the node that has it, name and key."""
    return [
        (node, name, f"{at}.{name}")
        for at, node, schema in sections(section, key)
        for name, names in _naming(schema).items()
        if names == kind and not OmegaConf.is_missing(node, name) and node[name]
    ]


def _replaced(section: Any, key: str, kind: str, make: Callable[..., Any]) -> Any:
    """A copy of the section in which `make` replaces the settings that name configurations of this kind."""
    own = copied(section)
    with read_write(own), open_dict(own):
        for node, name, at in _in_words(own, key, kind):
            value = node[name]
            node[name] = [make(each, key=at) for each in value] if isinstance(value, ListConfig) else make(value, key=at)
    return own


@cache
def _naming(schema: Any) -> dict[str, str]:
    """The settings of a schema that name a configuration, and what they name."""
    return {field.name: names for field in fields(schema) if (names := constraints(schema, field.name).names)}


def annotators(config: "Config") -> "list[Config]":
    """The annotators' configurations: one for each member of an expanded configuration's ensemble, or just its own."""
    if not config.annotate.ensemble:
        return [config]
    configs = []
    for member in config.annotate.ensemble:
        own = cast(DictConfig, copied(config))
        with read_write(own), open_dict(own):
            for section in ANNOTATOR:
                own[section] = member[section]
        configs.append(cast("Config", own))
    return configs


def _data(value: Any, key: str) -> Any:
    if _is_typed(value):
        return value
    words = str(value.get("name", "")) if isinstance(value, DictConfig) else value
    if message := unknown_data_set(words):
        raise UserError(f"{key}={words}: {message}")
    if isinstance(value, str):
        try:
            return data_config(value)
        except UserError as error:
            raise UserError(f"{key}: {error}") from error
    return _merge(compose_part(f"data/{words}", (), key).data, value, key)


def _annotator(value: Any, config: "Config", key: str) -> DictConfig:
    if not isinstance(value, str | DictConfig):
        raise UserError(f"{key}={value}: write an annotator as 'prompt=cot shots.k=6'")
    words = value if isinstance(value, str) else ""
    named = [word.partition("=")[0].partition(".")[0] for word in words_of(words)] if isinstance(value, str) else list(value)
    for section in named:
        if section not in ANNOTATOR:
            raise UserError(f"{key}: {section}: an annotator can only have settings of {', '.join(ANNOTATOR)}")
    if isinstance(value, DictConfig) and all(_is_typed(value.get(section)) for section in ANNOTATOR):
        return value
    settings = {} if isinstance(value, str) else {str(name): inner for name, inner in value.items()}
    # The options that a mapping chooses, `{prompt: cot}` or `{prompt: {name: cot, ...}}`, in the short form.
    names = {name: inner.get("name") if isinstance(inner, DictConfig) else inner for name, inner in settings.items()}
    words += "".join(f" {name}={option}" for name, option in names.items() if option and name in groups())
    own = cast(DictConfig, with_overrides(config, f"{words} annotate.{key.rpartition('.')[2]}=[]", key))
    node = OmegaConf.create({}, flags={"allow_objects": True})
    for section in ANNOTATOR:
        node[section] = _data_sets(own[section], section)
        if isinstance(settings.get(section), DictConfig):
            node[section] = _merge(node[section], settings[section], key)
    return node


def _is_typed(node: Any) -> bool:
    return isinstance(node, DictConfig) and is_dataclass(OmegaConf.get_type(node))


def _merge(section: Any, settings: DictConfig, key: str) -> Any:
    try:
        return OmegaConf.merge(section, settings)
    except OmegaConfBaseException as error:
        raise UserError(f"{key}: {message(error)}") from error
