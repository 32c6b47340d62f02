"""A classifier with an untrained head, and jobs of `stage=predict` in this process."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from findistill.config.groups import config_dir
from findistill.core import job as jobs
from findistill.core import run_folder
from findistill.methods.stage import stage_of
from findistill.models.config import Encoder
from findistill.models.encoders import load as load_encoder
from findistill.models.encoders import save
from tests.faults.conftest import tiny  # noqa: F401

NAMES = ("positive", "negative", "neutral")
Predict = Callable[..., Path]


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Path:  # noqa: F811
    encoder, tokenizer = load_encoder(Encoder(name="tiny", model=str(tiny)), NAMES, scalar=False, seed=0)
    folder = tmp_path_factory.mktemp("run") / "model"
    save(folder, encoder, tokenizer, NAMES, 16)
    return folder


def composed(*overrides: str) -> DictConfig:
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        return compose("config", overrides=["logger=none", *overrides])


@pytest.fixture
def predict(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Predict:
    """Run `stage=predict` in `tmp_path`, by default in torch and one process; returns the run folder."""
    monkeypatch.chdir(tmp_path)

    def run(*overrides: str) -> Path:
        config = composed(
            "stage=predict", f"predict.model={model}", "trainer.accelerator=cpu", "predict.weights=torch", "predict.workers=1",
            *overrides,
        )  # fmt: skip
        stage = stage_of(config)
        folder = run_folder.folder_of(config, stage, ())
        if not run_folder.is_done(folder) or stage.live:
            jobs.run(config, stage, folder)
        return folder

    return run


def metrics(folder: Path) -> dict[str, float]:
    return json.loads((folder / "metrics.json").read_text())
