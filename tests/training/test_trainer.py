import json
import math
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from findistill.data import training_texts
from findistill.data.labels import LabelSet
from findistill.errors import UserError
from findistill.inference import predict as inference
from findistill.inference.predict import latency, predict
from findistill.models.batches import Rows
from findistill.models.config import Encoder
from findistill.models.heads import macro_f1
from findistill.models.tokens import Tokens
from findistill.models.training_profile import TrainingProfile
from findistill.training import recipe
from findistill.training import trainer as fitting
from findistill.training.classifier import EncoderClassifier
from findistill.training.config import Distill, Trainer
from findistill.training.loop import Session
from findistill.training.trainer import Examples, Trained, fit

CLS = Distill(objective="cls")
REG = Distill(objective="reg")
SCALAR = Distill(objective="reg", target="scalar")


@pytest.fixture
def run(encoder, trainer, labels, corpus, tmp_path):
    """`fit` on the small corpus; keywords override its arguments."""

    def run(distill: Distill | None = CLS, *, name: str = "run", **changed) -> Trained:
        around = {name: changed.pop(name) for name in ("seed", "callbacks") if name in changed}
        session = Session(changed.pop("trainer", trainer), tmp_path / name, **around)
        arguments = {"encoder": encoder, "train": corpus.train, "validation": corpus.validation} | changed
        return fit(distill=distill, labels=labels, session=session, **arguments)

    return run


def plain_logits(folder: Path, texts: list[str]) -> np.ndarray:
    """The logits from plain transformers, without this project."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.inference_mode():
        return model(**tokenizer(texts, truncation=True, padding=True, return_tensors="pt")).logits.numpy()


@pytest.mark.parametrize("n_rows", [1, 7, 20, 50, 100, 250, 999, 1900, 2000, 3400])
@pytest.mark.parametrize("accumulate", [1, 3])
def test_a_training_takes_min_steps_at_least_and_few_more(encoder, trainer, n_rows: int, accumulate: int) -> None:
    encoder = replace(encoder, epochs=5, batch_size=16, min_steps=900)
    plan = recipe.Recipe.of(encoder, replace(trainer, batch_size=None, max_epochs=None))
    tokens = Tokens(np.zeros(0, np.int32), np.zeros(n_rows + 1, np.int64), 0)
    corpus = Rows(tokens, np.zeros((n_rows, 2), np.float32), np.zeros(n_rows, np.int64))
    actual, rows = plan.over(corpus, accumulate)
    steps, once = (math.ceil(math.ceil(number / 16) / accumulate) for number in (len(rows), n_rows))
    assert 900 <= actual.epochs * steps <= max(1.15 * 900, 5 * once)
    assert 5 <= actual.epochs < 10 and len(rows) % n_rows == 0


def test_few_texts_are_gone_through_several_times(run, encoder, corpus, trainer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    few = Examples(*(getattr(corpus.train, name)[:20] for name in ("ids", "texts", "targets", "hard")))
    longer = replace(encoder, min_steps=45)  # three epochs of three batches are nine steps
    once = run(encoder=encoder, train=few, name="once")
    assert "passes over them" not in caplog.text
    often = run(encoder=longer, train=few, name="often")
    assert "20 texts: 3 epochs of 6 passes over them, for at least 45 steps" in caplog.text
    assert len(often.history) == len(once.history) == 3
    assert often.history[-1]["train/loss"] < 0.8 * once.history[-1]["train/loss"]
    caplog.clear()
    run(encoder=longer, train=few, trainer=replace(trainer, max_epochs=1), name="exactly")
    assert "passes over them" not in caplog.text


def test_texts_that_are_cut_are_counted(run, encoder, trainer, corpus, caplog: pytest.LogCaptureFixture) -> None:
    quick = replace(trainer, max_epochs=1)
    run(trainer=quick, name="whole")
    assert "are truncated" not in caplog.text
    long = replace(corpus.train, texts=[*corpus.train.texts[:-20], *(f"{text} " * 60 for text in corpus.train.texts[-20:])])
    run(trainer=replace(quick, max_length=16), train=long, name="cut")
    [line] = [line for line in caplog.messages if "are truncated" in line]
    assert line.startswith(f"20 of {len(long)} training texts (") and line.endswith("trainer.max_length=32 reads more of them")


@pytest.mark.parametrize("distill", [None, replace(CLS, class_weights="balanced", label_smoothing=0.1), REG, SCALAR])
def test_learns_and_plain_transformers_agrees(run, trainer, labels, corpus, distill: Distill | None) -> None:
    trained = run(distill, trainer=replace(trainer, max_epochs=12, learning_rate=3e-3))
    texts = corpus.validation.texts
    prediction = predict(trained.model_dir, texts, trainer)
    assert prediction.labels == labels.names
    hard = np.array([labels.index(name) for name in prediction.predicted])
    assert (hard == corpus.validation.hard).mean() > 0.75
    best = trained.history[trained.best_epoch - 1]
    assert macro_f1(corpus.validation.hard, hard, 3) == pytest.approx(best["val/macro_f1"])
    assert prediction.probabilities.shape == (24, 3) and prediction.probabilities.dtype == np.float64
    assert prediction.probabilities.sum(axis=1) == pytest.approx(1)
    logits = plain_logits(trained.model_dir, texts)
    if distill is SCALAR:
        scores = np.tanh(logits[:, 0])
        cuts = trained.thresholds
        assert cuts is not None
        for score, name in zip(scores, prediction.predicted, strict=True):
            assert name == ("negative" if score < cuts["negative"] else "positive" if score > cuts["positive"] else "neutral")
        config = json.loads((trained.model_dir / "config.json").read_text())
        assert config["findistill_labels"] == list(labels.names)
        assert config["findistill_thresholds"] == cuts
        assert json.loads((trained.model_dir / "thresholds.json").read_text()) == cuts
    else:
        assert torch.tensor(logits).softmax(-1).numpy() == pytest.approx(prediction.probabilities, abs=1e-5)
    assert not list(trained.model_dir.parent.rglob("*.ckpt"))
    assert [path.name for path in trained.model_dir.parent.iterdir()] == ["model"]
    assert training_texts.known(trained.model_dir, [*texts, *corpus.train.texts, "another one"]).tolist() == [True] * 72 + [False]
    profile = TrainingProfile.read(trained.model_dir)
    assert profile and set(profile.labels) == set(labels.names) and profile.unseen < 0.2 and len(profile.pieces) > 10


def test_same_seed_same_weights_bit_for_bit(run) -> None:
    folders = [run(name=f"run{i}", seed=seed).model_dir for i, seed in enumerate((5, 5, 6))]
    weights = [load_file(folder / "model.safetensors") for folder in folders]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    assert not all(torch.equal(value, weights[2][name]) for name, value in weights[0].items())


def test_schedule_spans_the_real_optimizer_steps(run, trainer, encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    original = recipe.schedule
    monkeypatch.setattr(recipe, "schedule", lambda *arguments: calls.append(arguments[1:]) or original(*arguments))
    # 48 rows in batches of 8 are 6 batches; every 4 make a step, and the rest of the epoch another: 2 steps, 5 epochs.
    trained = run(trainer=replace(trainer, accumulate_grad_batches=4, max_epochs=5, warmup=0.2), encoder=encoder)
    assert calls == [("linear", 0.2, 10)]
    assert trained.history[-1]["lr"] == 0.0 and trained.history[-2]["lr"] > 0


def test_dropout_is_on_while_training_and_off_while_measuring(run, monkeypatch: pytest.MonkeyPatch) -> None:
    modes_by_step = {"training_step": set(), "validation_step": set()}
    for name, modes in modes_by_step.items():
        original = getattr(EncoderClassifier, name)

        def step(self, batch, index, original=original, modes=modes):
            modes.add(self.model.training)
            return original(self, batch, index)

        monkeypatch.setattr(EncoderClassifier, name, step)
    run()
    assert modes_by_step == {"training_step": {True}, "validation_step": {False}}


def test_history_and_counts(run) -> None:
    trained = run()
    assert [row["epoch"] for row in trained.history] == [1, 2, 3]
    keys = {"train/loss", "val/loss", "val/macro_f1", "val/accuracy"}
    assert set(trained.history[0]) == {"epoch", "lr", "seconds"} | keys
    assert trained.history[-1]["train/loss"] < trained.history[0]["train/loss"]
    weights = load_file(trained.model_dir / "model.safetensors")
    assert trained.parameters == sum(value.numel() for value in weights.values())
    assert trained.train_s > 0 and trained.cpu_s > 0 and trained.thresholds is None


def test_best_weights_are_kept_not_the_last(run, trainer, corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    # The scores fall from epoch to epoch, so the first is the best.
    scores = iter([0.9, 0.5, 0.4])
    monkeypatch.setattr("findistill.training.classifier.macro_f1", lambda *_: next(scores))
    short = run(trainer=replace(trainer, max_epochs=3), name="three")
    assert short.best_epoch == 1
    loss = fitting.Objective.of(CLS, ("negative", "neutral", "positive"), corpus.train.hard).loss
    logits = torch.tensor(plain_logits(short.model_dir, corpus.validation.texts))
    again = loss(logits, torch.tensor(corpus.validation.targets), torch.tensor(corpus.validation.hard))
    assert float(again) == pytest.approx(short.history[0]["val/loss"], abs=1e-4)


def test_patience_stops_early(run, trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("findistill.training.classifier.macro_f1", lambda *_: 0.5)
    stop = {"_target_": "findistill.training.callbacks.early_stopping", "monitor": "val/macro_f1", "patience": 1}
    assert len(run(callbacks={"stop": stop}).history) == 2


def test_without_validation_rows_the_last_epoch_is_kept(run, corpus) -> None:
    none = Examples([], [], np.zeros((0, 3), np.float32), np.zeros(0, np.int64))
    trained = run(validation=none)
    assert trained.best_epoch == 3 and "val/loss" not in trained.history[0]
    with pytest.raises(UserError, match=r"data\.validation"):
        run(SCALAR, validation=none)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"max_length": 100}, r"trainer\.max_length=100"),
        ({"learning_rate": 1e38, "warmup": 0.0, "gradient_clip_val": None}, r"loss became nan at optimizer step \d"),
    ],
)
def test_mistakes_are_named(run, trainer, tmp_path: Path, changed: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        run(trainer=replace(trainer, **changed))
    assert not (tmp_path / "run" / "model").exists()


def test_models_are_freed_after_a_job(run, trainer, corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    references: list[weakref.ref[torch.nn.Module]] = []
    for module, name in ((fitting, "load"), (inference, "open_trained")):
        original = getattr(module, name)

        def remembering(*args, original=original, **kwargs):
            model, tokenizer = original(*args, **kwargs)
            references.append(weakref.ref(model))
            return model, tokenizer

        monkeypatch.setattr(module, name, remembering)
    predict(run().model_dir, corpus.validation.texts, trainer)
    assert [model() for model in references] == [None, None]


def test_an_older_model_folder_is_replaced(run, tmp_path: Path) -> None:
    (tmp_path / "run" / "model").mkdir(parents=True)
    (tmp_path / "run" / "model" / "stale").touch()
    assert not (run(trainer=Trainer(accelerator="cpu", precision="32", max_epochs=1)).model_dir / "stale").exists()


def test_predict_keeps_order_and_truncates_as_trained(run, trainer, corpus) -> None:
    trained = run()
    texts = ["loss " * 100, "gain", *corpus.validation.texts[:5]]
    alone = np.concatenate([predict(trained.model_dir, [text], trainer).probabilities for text in texts])
    assert predict(trained.model_dir, texts, trainer, batch_size=3).probabilities == pytest.approx(alone, abs=1e-5)
    assert AutoTokenizer.from_pretrained(trained.model_dir).model_max_length == 16
    assert predict(trained.model_dir, [], trainer).probabilities.shape == (0, 3)


def test_latency_has_the_promised_numbers(run, trainer, corpus) -> None:
    metrics = latency(run().model_dir, corpus.validation.texts, trainer)
    assert 0 < metrics["latency/p50_ms"] <= metrics["latency/p95_ms"]
    assert metrics["throughput/texts_per_s"] > 0 and len(metrics) == 3


def test_examples_from_a_frame(labels: LabelSet) -> None:
    frame = pd.DataFrame({"id": ["a", "b"], "text": ["x", "y"], "label": ["positive", "negative"]})
    gold = Examples.from_frame(frame, labels)
    assert gold.hard.tolist() == [2, 0] and gold.targets.tolist() == [[0, 0, 1], [1, 0, 0]]
    frame[["soft_positive", "soft_negative", "soft_neutral"]] = [[0.5, 0.5, 0.0], [0.25, 0.5, 0.25]]
    assert Examples.from_frame(frame, labels).targets.tolist() == [[0.5, 0.0, 0.5], [0.5, 0.25, 0.25]]
    frame.loc[1, "label"] = None
    with pytest.raises(UserError, match="1 of 2 rows have no label, first id=b"):
        Examples.from_frame(frame, labels)


def test_the_embedded_student_trains_in_mixed_precision(run, trainer, labels, corpus) -> None:
    student = Encoder(
        name="minilm_3l", model="embedded:minilm_l6", layers=[2, 4, 6], batch_size=16, learning_rate=2e-4, max_length=24
    )
    trained = run(REG, encoder=student, trainer=replace(trainer, precision="bf16", max_epochs=4))
    assert trained.history[-1]["train/loss"] < 0.8 * trained.history[0]["train/loss"]
    texts = corpus.validation.texts
    plain = torch.tensor(plain_logits(trained.model_dir, texts)).softmax(-1).numpy()
    assert predict(trained.model_dir, texts, trainer).probabilities == pytest.approx(plain, abs=1e-5)
