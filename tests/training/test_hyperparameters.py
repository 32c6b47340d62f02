"""A module is recreated from its checkpoint, which contains only plain values."""

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from findistill.models.encoders import load, open_trained
from findistill.models.features import Anatomy
from findistill.training import checkpoints
from findistill.training.classifier import EncoderClassifier
from findistill.training.config import Distill, TeacherDistill
from findistill.training.distiller import Distiller, Stage
from findistill.training.loop import Session
from findistill.training.lora import WordClassifier
from findistill.training.losses.base import Pair
from findistill.training.losses.weighted import WeightedTerms
from findistill.training.objectives import CrossEntropy
from findistill.training.recipe import Recipe
from findistill.training.trainer import fit

RECIPE = Recipe(1, 8, 1e-3, 16, 0.0, 0.0, "val/loss", "32-true")


@pytest.fixture
def model(encoder, labels):
    return load(encoder, labels.names, scalar=False, seed=0)[0]


def test_a_classifier_from_its_best_checkpoint(
    encoder, trainer, labels, corpus, model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "remove", lambda folder: None)
    optimizer = {"_target_": "torch.optim.AdamW", "betas": [0.9, 0.98]}
    settings = replace(trainer, optimizer=optimizer)
    session = Session(settings, tmp_path)
    trained = fit(encoder, Distill(objective="cls"), labels, corpus.train, corpus.validation, session)
    path = tmp_path / "checkpoints" / "best.ckpt"
    module = EncoderClassifier.load_from_checkpoint(path, model=model, objective=CrossEntropy(), weights_only=True)
    assert module.recipe == Recipe.of(encoder, settings) and module.n_labels == 3
    assert module.history == trained.history[: trained.best_epoch]
    saved = open_trained(trained.model_dir)[0].state_dict()
    assert all(torch.equal(value, saved[name]) for name, value in module.model.state_dict().items())


def test_a_distiller_and_a_word_classifier(encoder, model, tmp_path: Path) -> None:
    distill = TeacherDistill(objective="logit", terms={"kl": 1.0})

    def save(module: EncoderClassifier, name: str) -> Path:
        checkpoint = {"state_dict": module.state_dict(), "hyper_parameters": dict(module.hparams)}
        checkpoint["pytorch-lightning_version"] = "2.6.0"
        module.on_save_checkpoint(checkpoint)
        torch.save(checkpoint, tmp_path / name)
        return tmp_path / name

    size = Anatomy.of(model, "tiny")
    terms = WeightedTerms.build(Distiller.term_nodes(distill), Pair(size, size), ("prediction",))
    stage = Stage(terms, RECIPE)
    path = save(Distiller(model, stage, 3, distill), "distiller.ckpt")
    again = Distiller.load_from_checkpoint(path, model=model, stage=stage, distill=distill, weights_only=True)
    assert (again.n_labels, again.recipe) == (3, RECIPE)

    path = save(WordClassifier(model, [[10], [11, 12]], 1, RECIPE), "words.ckpt")
    words = WordClassifier.load_from_checkpoint(path, model=model, weights_only=True)
    assert np.array_equal(words.words[0], [[10, 0], [11, 12]]) and words.answers[0][0].tolist() == [10, 1, 0]
    assert asdict(words.recipe) == asdict(RECIPE)
