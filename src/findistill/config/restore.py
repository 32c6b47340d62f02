"""The configuration of a finished job, with its schemas: `config.yaml` in a run folder names no types."""

from dataclasses import fields, is_dataclass
from pathlib import Path

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from omegaconf import DictConfig, OmegaConf


def read_config(path: Path) -> DictConfig:
    """A job's `config.yaml`, each section typed by the registered schema that has the most of its settings.

    So settings that cannot change a result are known again, and steps made from it have the keys they had in the job.
    """
    Plugins.instance()  # findistill's own registers the schemas, which a notebook may not have done yet
    config = OmegaConf.load(path)
    assert isinstance(config, DictConfig)
    typed = OmegaConf.create({})
    for name, section in config.items():
        if isinstance(section, DictConfig) and (schema := _schema(str(name), section)):
            base = OmegaConf.structured(schema)
            OmegaConf.set_struct(base, False)  # `trainer` has further keys, Lightning's
            section = OmegaConf.merge(base, section)
        typed[name] = section
    return typed


def _schema(group: str, section: DictConfig) -> type | None:
    """The schema of a section: of its group's, and of the root's, the one with the most fields that all are there."""
    repo = ConfigStore.instance().repo
    types = [OmegaConf.get_type(entry.node) for entry in repo.get(group, {}).values() if hasattr(entry, "node")]
    if group in (root := repo["base_config.yaml"].node):  # a section without options
        types.append(OmegaConf.get_type(root[group]))
    fitting = [t for t in types if is_dataclass(t) and {field.name for field in fields(t)} <= set(section)]
    return max(fitting, key=lambda t: len(fields(t)), default=None)
