"""Scoring third-party models: labels are matched by name, whatever their order and capitalisation."""

import json
import logging
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertConfig

from findistill.data import training_texts
from findistill.errors import UserError
from findistill.methods.scoring import regression
from findistill.models.weights import locate
from findistill.stats.majority import doubt
from tests.faults.conftest import tiny  # noqa: F401
from tests.fixtures.composing import composed
from tests.fixtures.jobs import run_job

NAMES = ("negative", "neutral", "positive")
# As in the configurations of ProsusAI/finbert and yiyanghkust/finbert-tone.
PUBLISHED = {"finbert": ("positive", "negative", "neutral"), "finbert_tone": ("Neutral", "Positive", "Negative")}


def classifier(folder: Path, names: tuple[str, ...]) -> Path:
    """A tiny BERT whose bias favours labels by name, whatever their order: positive most, neutral least."""
    config = BertConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, max_position_embeddings=64,
        id2label=dict(enumerate(names)), label2id={name: i for i, name in enumerate(names)},
    )  # fmt: skip
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(config)
    with torch.no_grad():
        model.classifier.weight.zero_()
        for i, name in enumerate(names):
            model.classifier.bias[i] = {"positive": 2.0, "negative": 1.0}.get(name.lower(), 0.0)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(locate("embedded:minilm_l6")).save_pretrained(folder)
    return folder


def evaluated(model: Path, tmp_path: Path, *overrides: str) -> tuple[pd.DataFrame, dict[str, float]]:
    config = composed(
        "stage=evaluate", f"evaluate.model={model}", "evaluate.resamples=20", "evaluate.latency=false", "trainer=cpu", *overrides
    )
    job = run_job(config, tmp_path)
    return pd.read_parquet(job.folder / "predictions.parquet"), job.metrics


@pytest.mark.parametrize("names", PUBLISHED.values(), ids=PUBLISHED)
def test_a_published_order_of_labels_is_matched_by_name(names: tuple[str, ...], tmp_path: Path) -> None:
    frame, metrics = evaluated(classifier(tmp_path / "model", names), tmp_path)
    assert set(frame["predicted"]) == {"positive"}
    assert metrics["test/accuracy"] == pytest.approx((frame["label"] == "positive").mean())
    shares = torch.tensor([1.0, 0.0, 2.0]).softmax(0).numpy()
    np.testing.assert_allclose(frame[[f"p_{name}" for name in NAMES]].to_numpy(), np.tile(shares, (len(frame), 1)), atol=1e-5)


def test_a_models_own_words_are_read_or_mapped_or_refused(tmp_path: Path) -> None:
    model = classifier(tmp_path / "model", ("negative", "neutral", "positive"))
    names = {name: i for i, name in enumerate(NAMES)}

    def set_labels(*labels: str) -> None:
        config = json.loads((model / "config.json").read_text())
        (model / "config.json").write_text(json.dumps(config | {"id2label": dict(enumerate(labels)), "label2id": names}))

    reference, metrics = evaluated(model, tmp_path / "0")
    for labels, overrides in (
        (("Bearish", "Neutral", "Bullish"), []),
        (("LABEL_0", "LABEL_1", "LABEL_2"), ["evaluate.label_map={LABEL_2: positive, LABEL_0: negative, LABEL_1: neutral}"]),
        (("down", "flat", "up"), ["evaluate.label_map=[negative,neutral,positive]"]),
    ):
        set_labels(*labels)
        frame, actual = evaluated(model, tmp_path / labels[0], *overrides)
        pd.testing.assert_frame_equal(frame, reference)
        assert actual["test/macro_f1"] == metrics["test/macro_f1"]
    for labels in (("down", "neutral", "up"), ("LABEL_0", "LABEL_1", "LABEL_2"), ("bearish", "bullish", "mixed")):
        set_labels(*labels)
        with pytest.raises(UserError, match=rf"{model}.*\n.*'evaluate.label_map=\{{{labels[0]}: "):
            evaluated(model, tmp_path / labels[0])


def test_a_model_that_is_not_above_the_majority_class_says_so_at_the_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = classifier(tmp_path / "model", NAMES)
    with caplog.at_level(logging.INFO):
        evaluated(model, tmp_path, "evaluate.also=['demo limit=30']")
    assert [line.partition(":")[0] for line in caplog.messages if "macro F1" in line] == ["test", "demo"]
    [warning] = [line for line in caplog.messages if "unreliable: " in line]
    assert re.search(
        r"it predicts the same label for every text; accuracy 0\.\d+ \[.*\] is (below|not above) 0\.\d+, that of .*stage=teacher",
        warning,
    )


def test_rows_that_a_model_learnt_from_are_said_and_scored_apart(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """`stage=evaluate` on a file that the model was partly trained on: only the score on the other rows counts."""
    model = classifier(tmp_path / "model", NAMES)
    rows = [(f"Text {number} of the file", NAMES[number % 3]) for number in range(30)]
    pd.DataFrame(rows, columns=["text", "label"]).to_csv(tmp_path / "file.csv", index=False)
    training_texts.write(model, [text.upper() for text, _ in rows[:20]])
    path = f"path={tmp_path}/file.csv"
    with caplog.at_level(logging.INFO):
        _, metrics = evaluated(model, tmp_path, "data=csv", f"data.{path}", "data.label_column=label", "evaluate.also=[demo]")
    [warning] = [line for line in caplog.messages if "was trained on 20" in line]
    assert "unreliable: it was trained on 20 of the 30 test texts, and its accuracy on the other 10 is 0.400; " in warning
    assert metrics["test/learnt_from"] == 20 and "demo/learnt_from" not in metrics

    caplog.clear()
    with caplog.at_level(logging.INFO):
        _, metrics = evaluated(model, tmp_path / "also", f"evaluate.also=['csv {path} label_column=label']")
    [warning] = [line for line in caplog.messages if "was trained on 20" in line]
    assert warning.startswith("csv: unreliable: it was trained on 20 of the 30") and "test/learnt_from" not in metrics


def test_a_teacher_knows_its_training_rows_and_the_remedy_leaves_them_out(tmp_path: Path, tiny: Path) -> None:  # noqa: F811
    rows = [(f"Text {number} of the file", NAMES[number % 3]) for number in range(60)]
    pd.DataFrame(rows, columns=["text", "label"]).to_csv(tmp_path / "file.csv", index=False)
    file = ["data=csv", f"data.path={tmp_path}/file.csv", "data.label_column=label"]
    quick = ["trainer=cpu", "trainer.max_epochs=1", "evaluate.resamples=20", "evaluate.latency=false"]
    trained = run_job(
        composed("stage=teacher", f"teacher.model={tiny}", "teacher.layers=null", *file, *quick), tmp_path / "trained"
    )
    assert "test/learnt_from" not in trained.metrics
    _, whole = evaluated(trained.folder, tmp_path / "whole", *file)
    _, rest = evaluated(trained.folder, tmp_path / "rest", *file, "data.test=0.2")
    assert (whole["test/n"], whole["test/learnt_from"], rest["test/n"]) == (60, 48, 12) and "test/learnt_from" not in rest
    assert whole["test/unseen_accuracy"] == pytest.approx(rest["test/accuracy"])


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ((0.8, 0.75, 0.85, 0.6, 3, 200), ""),
        ((0.65, 0.55, 0.75, 0.6, 3, 200), "is not clearly above 0.600"),
        ((0.6, 0.5, 0.7, 0.6, 3, 200), "is not above 0.600"),
        ((0.3, 0.2, 0.4, 0.6, 3, 200), "is below 0.600, that of always predicting the most frequent label of the 200 test rows"),
        ((0.9, 0.8, 1.0, 0.3, 1, 200), "it predicts the same label for every text"),
        ((0.0, 0.0, 0.0, 0.3, 0, 200), "it predicts no label for any text; accuracy 0.000"),
        ((1.0, 1.0, 1.0, 1.0, 1, 200), ""),  # all rows have one label
    ],
)
def test_doubt(values: tuple[float, ...], sentence: str) -> None:
    names = ("accuracy", "accuracy_lo", "accuracy_hi", "majority_share", "labels_predicted", "n")
    reason = doubt({f"test/{name}": value for name, value in zip(names, values, strict=True)})
    assert sentence in reason and bool(reason) == bool(sentence)


def test_regression_metrics_are_scikit_learns() -> None:
    from sklearn.metrics import mean_squared_error, r2_score

    rng = np.random.default_rng(0)
    scores, predicted = rng.uniform(-1, 1, 50), rng.uniform(-1, 1, 50)
    metrics = regression(scores, predicted, "test")
    assert metrics["test/mse"] == pytest.approx(mean_squared_error(scores, predicted))
    assert metrics["test/r2"] == pytest.approx(r2_score(scores, predicted))
    assert regression(np.ones(3), np.zeros(3), "test") == {"test/mse": 1.0}
