"""A job's `config.yaml`: plain values when it is written, with their schemas restored when it is read."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import lru_cache
from pathlib import Path, PurePath
from typing import Any

import yaml
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from omegaconf import DictConfig, OmegaConf
from omegaconf._utils import get_yaml_loader

from findistill.config.copies import Template, with_sections


class _Loader(yaml.CSafeLoader):
    """Parses like OmegaConf's own loader, but several times as fast: a report reads the settings of every job."""

    yaml_implicit_resolvers = get_yaml_loader().yaml_implicit_resolvers
    yaml_constructors = get_yaml_loader().yaml_constructors


class _Dumper(yaml.CSafeDumper):
    """Quotes the strings that `_Loader` would read as something else; several times as fast as OmegaConf's own dumper."""

    yaml_implicit_resolvers = _Loader.yaml_implicit_resolvers


# Types of settings in packages' schemas, which `read_config` restores from strings.
_Dumper.add_multi_representer(PurePath, lambda dumper, path: dumper.represent_str(str(path)))
_Dumper.add_multi_representer(Enum, lambda dumper, member: dumper.represent_str(member.name))


def as_yaml(config: Mapping[str, Any]) -> str:
    """The text of `config.yaml` for a configuration of plain values."""
    text: str = yaml.dump(dict(config), Dumper=_Dumper, allow_unicode=True, sort_keys=False, width=10**6)
    return text


def read_config(path: Path) -> DictConfig:
    """A job's `config.yaml`, with each section typed by the registered schema that has most of its settings.

    With the types, settings that cannot change a result are known, and steps created from it have the same keys as in the job.
    """
    Plugins.instance()  # loads findistill's plugin, which registers the schemas; a notebook may not have done so yet
    plain = yaml.load(path.read_bytes(), _Loader) or {}
    return with_sections(OmegaConf.create({}), {str(name): _restored(str(name), value) for name, value in plain.items()})


_templates: dict[tuple[str, str], Template] = {}  # most sections are the same in all jobs of a study


def _restored(name: str, value: Any) -> Any:
    """The node of a section, or of a setting outside sections."""
    key = name, repr(value)
    if key not in _templates:
        config = OmegaConf.create({name: value})
        if isinstance(section := config[name], DictConfig) and (schema := _schema(name, section)):
            config[name] = OmegaConf.merge(_typed(schema), section)
        node: Any = config._get_node(name)
        node._set_parent(None)
        _templates[key] = Template(node)
    return _templates[key].copy()


@lru_cache
def _typed(schema: type) -> DictConfig:
    """A section with the schema's defaults; cached, since merging copies it."""
    section: DictConfig = OmegaConf.structured(schema)
    OmegaConf.set_struct(section, False)  # `trainer` may have further keys, Lightning's
    return section


def _schema(group: str, section: DictConfig) -> type | None:
    """The schema of a section: among its group's and the root's, the one with most of its settings and fewest others.

    Settings that only the schema has were added in a later version, and get their defaults.
    """
    repo = ConfigStore.instance().repo
    types = [OmegaConf.get_type(entry.node) for entry in repo.get(group, {}).values() if hasattr(entry, "node")]
    if group in (root := repo["base_config.yaml"].node):  # a section without options
        types.append(OmegaConf.get_type(root[group]))
    names = {t: {field.name for field in fields(t)} for t in types if is_dataclass(t)}
    fitting = {t: (len(own & set(section)), -len(own - set(section))) for t, own in names.items() if own & set(section)}
    return max(fitting, key=lambda t: fitting[t], default=None)
