from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    get_constant_schedule_with_warmup,
    get_linear_schedule_with_warmup,
)

from findistill.data.labels import LabelSet
from findistill.errors import UserError
from findistill.inference.predict import predict
from findistill.models.config import Encoder
from findistill.models.encoders import depths, load, open_trained
from findistill.training.callbacks import Unfreezing, trainable_layers
from findistill.training.classifier import EncoderClassifier
from findistill.training.config import Teacher, Trainer
from findistill.training.loop import Session
from findistill.training.objectives import Objective
from findistill.training.recipe import Recipe, parameter_groups, rate_at, schedule
from findistill.training.trainer import Examples, fit

FINBERT = Trainer(
    accelerator="cpu", precision="32", warmup=0.2, schedule="slanted", layer_decay=1 / 1.2, unfreeze="gradual", monitor="val/loss"
)


@pytest.fixture(scope="module")
def twelve() -> BertForSequenceClassification:
    config = BertConfig(
        vocab_size=20, hidden_size=8, num_hidden_layers=12, num_attention_heads=2, intermediate_size=8, max_position_embeddings=8
    )
    return BertForSequenceClassification(config)


@pytest.fixture
def teacher(encoder: Encoder) -> Teacher:
    return Teacher(**vars(encoder))


def matrices(model: torch.nn.Module) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.ndim > 1}


def test_rates_are_finberts(twelve: BertForSequenceClassification) -> None:
    """Layer i of 0 to 11 has rate lr / 1.2^(12 - i), the embeddings lr / 1.2^13, pooler and head lr."""
    names = {parameter: name for name, parameter in twelve.named_parameters()}
    recipe = Recipe(1, 8, 2e-5, 16, 0.01, 0.0, "val/loss", "32-true", layer_decay=1 / 1.2)
    groups = parameter_groups(twelve.named_parameters(), depths(twelve), matrices(twelve), recipe)
    parameters = [parameter for group in groups for parameter in group["params"]]
    assert len(parameters) == len(set(parameters)) == len(names)
    for group in groups:
        for parameter in group["params"]:
            name = names[parameter]
            power = 13 if "embeddings" in name else 12 - int(name.split(".")[3]) if ".layer." in name else 0
            assert group["lr"] == pytest.approx(2e-5 / 1.2**power), name
            assert group["weight_decay"] == (0.0 if "bias" in name or "LayerNorm" in name else 0.01), name
    assert groups[0]["lr"] == 2e-5


def test_one_rate_makes_two_groups(twelve: BertForSequenceClassification) -> None:
    recipe = Recipe(1, 8, 1e-3, 16, 0.01, 0.0, "val/loss", "32-true")
    groups = parameter_groups(twelve.named_parameters(), {}, matrices(twelve), recipe)
    assert [(group["lr"], group["weight_decay"]) for group in groups] == [(1e-3, 0.01), (1e-3, 0.0)]


@given(st.integers(1, 300), st.floats(0, 1))
def test_the_slanted_triangle_is_ulmfits(steps: int, warmup: float) -> None:
    rising = round(warmup * steps)
    for step in range(steps):
        share = step / rising if step < rising else 1 - (step - rising) / (steps - rising)
        rate = rate_at(step, rising=rising, steps=steps, lowest=1 / 32, falls=True)
        assert rate == pytest.approx((1 + share * (32 - 1)) / 32)


@pytest.mark.parametrize(
    ("kind", "theirs"), [("linear", get_linear_schedule_with_warmup), ("constant", get_constant_schedule_with_warmup)]
)
@pytest.mark.parametrize(("warmup", "steps"), [(0.0, 7), (0.1, 20), (0.5, 3), (1.0, 4)])
def test_schedules_are_those_of_transformers(kind: str, theirs: Any, warmup: float, steps: int) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.3)
    [ours] = schedule(optimizer, kind, warmup, steps).lr_lambdas
    counts = (round(warmup * steps), steps) if kind == "linear" else (round(warmup * steps),)
    [other] = theirs(optimizer, *counts).lr_lambdas
    assert [ours(step) for step in range(steps + 2)] == [other(step) for step in range(steps + 2)]


@pytest.mark.parametrize(("kind", "last"), [("linear", 0.0), ("slanted", 1 / 32), ("constant", 1.0)])
def test_schedules_end_where_they_say(kind: str, last: float) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    rate = schedule(optimizer, kind, 0.2, 10)
    rates = []
    for _ in range(10):
        optimizer.step()
        rate.step()
        rates.append(rate.get_last_lr()[0])
    assert rates[0] < rates[1] == 1.0 and rates[-1] == pytest.approx(last)


def test_layers_are_freed_at_finberts_pace() -> None:
    """Twelve layers, four epochs of 100 steps: the top layer at once, four per epoch, the embeddings as the fourth begins."""
    free = [trainable_layers(step, 400, 12) for step in range(400)]
    assert [step for step in range(1, 400) if free[step] > free[step - 1]] == [25 * n for n in range(1, 13)]
    assert free[0] == 1 and free[299] == 12 and free[300] == 13


def test_layers_join_from_the_top_and_stay_as_they_were_until_then(
    teacher: Teacher, labels: LabelSet, corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learning: list[set[int]] = []
    changed: list[set[int]] = []
    original = EncoderClassifier.training_step

    def step(self: EncoderClassifier, batch: dict[str, torch.Tensor], index: int) -> torch.Tensor:
        depth = depths(self.model)
        now = {name: value.detach().clone() for name, value in self.model.named_parameters()}
        if not learning:
            self.first = now
        learning.append({depth[name] for name, value in self.model.named_parameters() if value.requires_grad})
        changed.append({depth[name] for name, value in now.items() if not torch.equal(value, self.first[name])})
        return original(self, batch, index)

    monkeypatch.setattr(EncoderClassifier, "training_step", step)
    trainer = replace(FINBERT, warmup=0.0)
    fit(teacher, None, labels, corpus.train, corpus.validation, Session(trainer, tmp_path))
    # 18 steps, 4 layers: one more every 13.5 / 4 steps, the embeddings (5) after 13.5.
    assert [max(free) for free in learning] == [1] * 4 + [2] * 3 + [3] * 4 + [4] * 3 + [5] * 4
    assert all(free == set(range(max(free) + 1)) for free in learning)
    assert all(moved <= free for moved, free in zip(changed[1:], learning[:-1], strict=True))
    assert changed[-1] == {0, 1, 2, 3, 4, 5}


def test_unfreezing_frees_only_what_it_found_learning(twelve: BertForSequenceClassification) -> None:
    words = twelve.get_input_embeddings().weight.requires_grad_(False)
    assert set(Unfreezing(twelve.named_parameters(), depths(twelve)).depth) == set(twelve.parameters()) - {words}
    words.requires_grad_(True)


@pytest.mark.parametrize("trainer", [FINBERT, replace(FINBERT, unfreeze="none")], ids=["gradual", "at once"])
def test_frozen_embeddings_stay_as_they_were(
    teacher: Teacher, labels: LabelSet, corpus, tmp_path: Path, trainer: Trainer
) -> None:
    before = load(teacher, labels.names, scalar=False, seed=0)[0].base_model.state_dict()
    frozen = replace(teacher, freeze_embeddings=True)
    fit(frozen, None, labels, corpus.train, corpus.validation, Session(trainer, tmp_path))
    after = open_trained(tmp_path / "model")[0].base_model.state_dict()
    same = {name for name, value in before.items() if torch.equal(value, after[name])}
    assert same == {"embeddings.word_embeddings.weight"}


def test_finberts_recipe_learns(teacher: Teacher, labels: LabelSet, corpus, tmp_path: Path) -> None:
    trainer = replace(FINBERT, max_epochs=15, learning_rate=6e-3)
    balanced = replace(teacher, class_weights="balanced")
    trained = fit(balanced, None, labels, corpus.train, corpus.validation, Session(trainer, tmp_path))
    assert trained.history[trained.best_epoch - 1]["val/loss"] == min(row["val/loss"] for row in trained.history)
    assert max(row["val/accuracy"] for row in trained.history) > 0.75


def test_the_teachers_class_weights_are_those_of_the_training_rows(teacher: Teacher) -> None:
    hard = np.array([0, 0, 0, 1, 1, 2])
    objective = Objective.of(None, ("a", "b", "c"), hard, replace(teacher, class_weights="balanced"))
    logits, gold = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 2])
    each = -logits.log_softmax(-1)[range(4), gold]
    weights = torch.tensor([6 / 9, 6 / 6, 6 / 3])[gold]
    assert float(objective.loss(logits, torch.zeros(4, 3), gold)) == pytest.approx(float((each * weights).sum() / weights.sum()))


def _scored(corpus_part: Examples, labels: LabelSet) -> pd.DataFrame:
    names = [labels.names[label] for label in corpus_part.hard]
    scores = (corpus_part.hard - 1) * 0.6
    return pd.DataFrame({"id": corpus_part.ids, "text": corpus_part.texts, "label": names, "score": scores})


def test_regression_learns_scores(teacher: Teacher, labels: LabelSet, corpus, tmp_path: Path) -> None:
    trainer = Trainer(accelerator="cpu", precision="32", max_epochs=12, learning_rate=3e-3, monitor="val/loss")
    train, validation = (Examples.from_scores(_scored(part, labels), labels) for part in (corpus.train, corpus.validation))
    scorer = replace(teacher, objective="regression")
    trained = fit(scorer, None, labels, train, validation, Session(trainer, tmp_path))
    prediction = predict(trained.model_dir, validation.texts, trainer)
    assert prediction.scores is not None and prediction.labels == labels.names
    mse = float(((prediction.scores - (validation.hard - 1) * 0.6) ** 2).mean())
    assert mse == pytest.approx(trained.history[trained.best_epoch - 1]["val/loss"], abs=1e-4)
    assert mse < 0.5 * 0.24  # the scores' variance


@pytest.mark.parametrize(
    ("optimizer", "scheduler", "last"),
    [
        ({"_target_": "torch.optim.SGD", "momentum": 0.9}, None, 0.0),
        (None, {"_target_": "transformers.get_cosine_schedule_with_warmup"}, 0.0),
        (None, {"_target_": "torch.optim.lr_scheduler.CosineAnnealingLR", "eta_min": 1e-4}, 1e-4),
        ({"_target_": "torch.optim.RMSprop", "_partial_": True}, {"_target_": "transformers.get_constant_schedule"}, 5e-3),
    ],
)
def test_another_optimizer_or_scheduler(
    optimizer: dict[str, object] | None, scheduler: dict[str, object] | None, last: float,
    encoder: Encoder, trainer: Trainer, labels: LabelSet, corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    optimizers: list[torch.optim.Optimizer] = []
    original = EncoderClassifier.configure_optimizers
    monkeypatch.setattr(
        EncoderClassifier, "configure_optimizers", lambda self: (optimizers.append((all := original(self))["optimizer"]), all)[1]
    )
    changed = replace(trainer, scheduler=scheduler, **({"optimizer": optimizer} if optimizer else {}))
    trained = fit(encoder, None, labels, corpus.train, corpus.validation, Session(changed, tmp_path))
    assert type(optimizers[0]).__name__ == (optimizer["_target_"] if optimizer else "torch.optim.AdamW").rsplit(".", 1)[-1]
    assert [group["weight_decay"] for group in optimizers[0].param_groups] == [0.01, 0.0]
    assert trained.history[-1]["lr"] == pytest.approx(last, abs=1e-9)


def test_an_optimizer_that_does_not_fit_is_named(
    encoder: Encoder, trainer: Trainer, labels: LabelSet, corpus, tmp_path: Path
) -> None:
    def run(**changed: object) -> None:
        fit(encoder, None, labels, corpus.train, corpus.validation, Session(replace(trainer, **changed), tmp_path))

    with pytest.raises(UserError, match=r"trainer\.optimizer: SGD: .*momentun"):
        run(optimizer={"_target_": "torch.optim.SGD", "momentun": 0.9})
    with pytest.raises(UserError, match=r"trainer\.scheduler=torch\.optim\.lr_scheduler\.StepLR: .*step_size"):
        run(scheduler={"_target_": "torch.optim.lr_scheduler.StepLR"})


@given(
    st.lists(st.floats(-1, 1), min_size=1, max_size=9),
    st.sampled_from([("negative", "neutral", "positive"), ("positive", "negative")]),
)
def test_the_shares_of_a_score_tell_it(scores: list[float], names: tuple[str, ...]) -> None:
    frame = pd.DataFrame({"score": scores}).assign(id="x", text="x", label="positive")
    shares = Examples.from_scores(frame, LabelSet(names)).targets
    assert shares[:, names.index("positive")] - shares[:, names.index("negative")] == pytest.approx(np.array(scores), abs=1e-6)
    assert shares.sum(axis=1) == pytest.approx(1) and (shares >= 0).all()


def test_regression_without_scores_is_refused(labels: LabelSet) -> None:
    frame = pd.DataFrame({"id": ["a"], "text": ["x"], "label": ["positive"]})
    with pytest.raises(UserError, match="needs a score"):
        Examples.from_scores(frame, labels)
    with pytest.raises(UserError, match="needs a score"):
        Examples.from_scores(frame.assign(score=[None]), labels)
