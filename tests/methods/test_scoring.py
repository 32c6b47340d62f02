"""What a model of others is worth here: labels matched by name, whatever their order and spelling."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertConfig

from findistill.errors import UserError
from findistill.methods.scoring import regression
from findistill.models.weights import locate
from tests.config.test_compose import composed
from tests.fixtures.jobs import run_job

NAMES = ("negative", "neutral", "positive")
# As in the configurations of ProsusAI/finbert and yiyanghkust/finbert-tone.
PUBLISHED = {"finbert": ("positive", "negative", "neutral"), "finbert_tone": ("Neutral", "Positive", "Negative")}


def classifier(folder: Path, names: tuple[str, ...]) -> Path:
    """A tiny BERT whose head favours each label as its name says, by a bias: positive most, neutral least."""
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


def evaluated(model: Path, tmp_path: Path) -> tuple[pd.DataFrame, dict[str, float]]:
    config = composed(
        "stage=evaluate", f"evaluate.model={model}", "evaluate.resamples=20", "evaluate.latency=false", "trainer=cpu"
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


def test_a_model_without_any_of_the_labels_is_refused(tmp_path: Path) -> None:
    model = classifier(tmp_path / "model", ("bearish", "bullish"))
    with pytest.raises(UserError, match=r"has the labels bearish, bullish; none is one of negative, neutral, positive"):
        evaluated(model, tmp_path)


def test_regression_metrics_are_scikit_learns() -> None:
    from sklearn.metrics import mean_squared_error, r2_score

    rng = np.random.default_rng(0)
    scores, predicted = rng.uniform(-1, 1, 50), rng.uniform(-1, 1, 50)
    found = regression(scores, predicted, "test")
    assert found["test/mse"] == pytest.approx(mean_squared_error(scores, predicted))
    assert found["test/r2"] == pytest.approx(r2_score(scores, predicted))
    assert regression(np.ones(3), np.zeros(3), "test") == {"test/mse": 1.0}
