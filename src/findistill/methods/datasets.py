"""Parents that many steps share: a model outside the store, and data sets by role (own, further test sets, named ones)."""

from typing import Any

from omegaconf import OmegaConf

from findistill.core.step import ModelFolder, Step
from findistill.data.dataset import Dataset
from findistill.models.files import model_files

DATA, ALSO = "data", "also"  # roles; further test sets are also/0, also/1, ...


def own(config: Any) -> dict[str, Step]:
    """The job's own data set."""
    return {DATA: Dataset(config.data)}


def with_tests(config: Any) -> dict[str, Step]:
    """The job's own data set and its further test sets (`evaluate.also`)."""
    return own(config) | {f"{ALSO}/{number}": only_tested(value) for number, value in enumerate(config.evaluate.also)}


def only_tested(section: Any) -> Step:
    """A data set used only for testing: all rows of a user's file are test rows unless the file or `data.test` says otherwise."""
    own_share = "test" in section and section.test is None
    return Dataset(OmegaConf.merge(section, {"test": 1.0}) if own_share else section)


def demonstrations(config: Any) -> dict[str, Step]:
    """The labelled set `shots.source`, unless demonstrations come from the job's own data."""
    return {"shots": Dataset(config.shots.source)} if config.shots.source else {}


def model_at(reference: str) -> ModelFolder:
    """A model outside the store: a run folder, a model folder or a hub id."""
    return ModelFolder(reference, model_files(reference))
