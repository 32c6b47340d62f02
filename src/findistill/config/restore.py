"""The configuration of a finished job, with its schemas: `config.yaml` in a run folder names no types."""

from dataclasses import fields, is_dataclass
from functools import lru_cache
from pathlib import Path

import yaml
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from omegaconf import DictConfig, OmegaConf
from omegaconf._utils import get_yaml_loader


class _Loader(yaml.CSafeLoader):
    """Reads what OmegaConf's own loader does, several times as fast: a report reads the settings of every job."""

    yaml_implicit_resolvers = get_yaml_loader().yaml_implicit_resolvers
    yaml_constructors = get_yaml_loader().yaml_constructors


def read_config(path: Path) -> DictConfig:
    """A job's `config.yaml`, each section typed by the registered schema that has the most of its settings.

    So settings that cannot change a result are known again, and steps made from it have the keys they had in the job.
    """
    Plugins.instance()  # findistill's own registers the schemas, which a notebook may not have done yet
    config = OmegaConf.create(yaml.load(path.read_bytes(), _Loader) or {})
    assert isinstance(config, DictConfig)
    typed = OmegaConf.create({})
    for name, section in config.items():
        if isinstance(section, DictConfig) and (schema := _schema(str(name), section)):
            section = OmegaConf.merge(_typed(schema), section)
        typed[name] = section
    return typed


@lru_cache
def _typed(schema: type) -> DictConfig:
    """The section with its default values, which merging copies."""
    section: DictConfig = OmegaConf.structured(schema)
    OmegaConf.set_struct(section, False)  # `trainer` has further keys, Lightning's
    return section


def _schema(group: str, section: DictConfig) -> type | None:
    """The schema of a section: of its group's, and of the root's, the one with most of its settings and fewest others.

    What a schema has and the section has not came in a later version, and has its default.
    """
    repo = ConfigStore.instance().repo
    types = [OmegaConf.get_type(entry.node) for entry in repo.get(group, {}).values() if hasattr(entry, "node")]
    if group in (root := repo["base_config.yaml"].node):  # a section without options
        types.append(OmegaConf.get_type(root[group]))
    names = {t: {field.name for field in fields(t)} for t in types if is_dataclass(t)}
    fitting = {t: (len(own & set(section)), -len(own - set(section))) for t, own in names.items() if own & set(section)}
    return max(fitting, key=lambda t: fitting[t], default=None)
