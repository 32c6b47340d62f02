"""Steps: the graph of cached artifacts that everything else is built from.

A step is a function from parents and settings to one artifact. It declares the settings it reads, its parents and its
input files; its key is derived from them, so nothing else keeps a list of what determines a result. The code that
creates the artifact is named, not imported: planning a sweep loads no model code.
"""

import importlib
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from findistill.config.fields import defaults, result_settings
from findistill.config.overrides import flatten, within
from findistill.config.shared import once
from findistill.core.hashing import content, digest
from findistill.errors import UserError

if TYPE_CHECKING:
    from findistill.core.store import Work

KEY_LENGTH = 12


class Settings:
    """The part of a configuration that a step declares. Reading any other section raises an AttributeError.

    If only individual settings of a section are declared (`trainer.precision`), the others have their schema's defaults.
    """

    def __init__(self, config: Any, reads: Sequence[str]) -> None:
        self._sections: dict[str, Any] = {name: config[name] for name in reads if "." not in name}
        declared = defaultdict[str, list[str]](list)
        for name in reads:
            section, _, setting = name.partition(".")
            if setting and section not in reads:
                declared[section].append(setting)
        self._sections |= {name: _only(config[name], *settings) for name, settings in declared.items()}

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name not in self._sections:
            raise AttributeError(f"{name}: this step does not declare that it reads this section")
        return self._sections[name]

    __getitem__ = __getattr__

    def __contains__(self, name: str) -> bool:
        return name in self._sections

    def results(self) -> dict[str, Any]:
        """The declared settings that can change a result, as plain values."""
        return {name: result_settings(section) for name, section in sorted(self._sections.items())}


@once
def _only(section: Any, *settings: str) -> DictConfig:
    """A section of the same schema with the schema's defaults, except for `settings`."""
    own = defaults(section)
    for setting in settings:
        OmegaConf.update(own, setting, OmegaConf.select(section, setting), force_add=True)
    return own


class Step:
    """One node of the graph.

    Attributes:
        name: the artifact's kind, the first part of its folder's name.
        reads: sections (`shots`) and settings (`trainer.precision`) of the configuration that it may read.
        implementation: `package.module:function`, called as `function(work)` to create the artifact in `work.folder`.
        version: incremented when the same inputs lead to a different result.
        resumable: after an interruption, `implementation` resumes from its partial output in `work.folder`.
        estimate: `package.module:function`, called as `function(work)` by a plan: the requests and the cost of creating the
            artifact, in one line. It sends and creates nothing.
        cheap: creating it takes seconds and costs nothing, so a plan may do so to estimate other steps.
        check: `package.module:function`, called as `function(work)` with only the cheap parents, before any other is created, so
            that a job it rejects costs nothing.
        live: a stage whose result depends on ongoing human work, so that it is never done: the same command runs it again.
    """

    name: str
    reads: tuple[str, ...] = ()
    implementation: str
    version: int = 1
    resumable: bool = False
    estimate: str | None = None
    cheap: bool = False
    check: str | None = None
    live: bool = False
    reference: str | None = None  # path or hub id of a model outside the store

    def __init__(self, config: Any) -> None:
        self._config = config  # complete, since parents are created from it

    def parents(self) -> "Mapping[str, Step]":
        """The steps whose artifacts it needs, by role."""
        return {}

    def files(self) -> Iterable[Path]:
        """External files whose content it reads: data, weights, recorded responses."""
        return ()

    def models(self) -> Iterable[str]:
        """Models whose weights or responses it uses, for cards only: folders, hub ids, `embedded:...`, names on a server."""
        return ()

    def settings(self) -> dict[str, Any]:
        """Plain values that determine the result, besides files and parents. The default is all that `reads` declares."""
        return self.config.results()

    @property
    def whole(self) -> Any:
        """The complete configuration, for creating further steps; an implementation reads `config`."""
        return self._config

    @cached_property
    def config(self) -> Any:
        """The settings that the implementation may read (`Settings`, or one section)."""
        return Settings(self._config, self.reads)

    @cached_property
    def inputs(self) -> "dict[str, Step]":
        return dict(self.parents())

    @cached_property
    def settings_read(self) -> list[str]:
        """Sections that any step of the graph reads completely, and the individual settings (`entities.model`) read of others."""
        graph = [*walk(self)]
        names = {name for node in graph for name in node.reads}
        names |= {role for node in graph for role in node.inputs if role in self.whole}
        return sorted(name for name in names if not within(name, names - {name}))

    @property
    def sections_read(self) -> list[str]:
        """The sections of the configuration that any step of the graph reads, or that describe a parent, such as a data set."""
        return sorted({name.partition(".")[0] for name in self.settings_read})

    @cached_property
    def record(self) -> dict[str, Any]:
        """The content that the key is a hash of."""
        return {
            "step": self.name,
            "version": self.version,
            "settings": self.settings(),
            "files": content(self.files()),
            "parents": {role: step.key for role, step in self.inputs.items()},
        }

    @cached_property
    def key(self) -> str:
        return digest(self.record, KEY_LENGTH)

    def lineage(self) -> dict[str, Any]:
        """The record with the parents' records nested, for finding out later what changed."""
        return {**self.record, "parents": {role: step.lineage() for role, step in self.inputs.items()}}

    def run(self, work: "Work") -> None:
        """Create the artifact in `work.folder`."""
        load(self.implementation)(work)


class ModelFolder(Step):
    """A model outside the store: its key depends on the content of its files, or on its hub id."""

    name = "model"

    def __init__(self, reference: str, files: Iterable[Path]) -> None:
        super().__init__(None)
        self.reference, self._files = reference, tuple(files)

    def files(self) -> Iterable[Path]:
        return self._files

    def models(self) -> Iterable[str]:
        return [str(self.reference)]

    def settings(self) -> dict[str, Any]:
        return {} if self._files else {"reference": self.reference}


def load(target: str) -> Any:
    """The function that `package.module:function` names."""
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)


def load_extra(target: str, extra: str, user: str) -> Any:
    """Like `load`, for a module that needs packages of an extra.

    Raises:
        UserError: one of them is not installed; `user` is the setting that needs it.
    """
    try:
        return load(target)
    except ModuleNotFoundError as error:
        raise UserError(f"{user} needs the package {error.name}.\nInstall it with: pip install 'findistill[{extra}]'") from error


def walk(step: Step) -> Iterator[Step]:
    """The step and all its ancestors, each artifact once, parents first."""
    nodes: dict[tuple[str, str], Step] = {}

    def visit(node: Step) -> None:
        for parent in node.inputs.values():
            visit(parent)
        nodes.setdefault((node.name, node.key), node)

    visit(step)
    yield from nodes.values()


def changed_files(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str] | None:
    """The names of the files whose content differs between two lineages; None if anything else differs, or nothing does."""
    old, new = flatten(before), flatten(now)
    places = [re.fullmatch(r"(?:parents\.[^.]+\.)*files\.?(.*)", key) for key in {*old, *new} if old.get(key) != new.get(key)]
    return sorted({place[1] for place in places if place and place[1]}) if places and all(places) else None
