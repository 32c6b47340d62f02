from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from findistill.data.labels import LabelSet
from findistill.inference.predict import predict
from findistill.models.charformer import CharformerConfig, CharformerForSequenceClassification, SoftSubwords, byte_tokenizer
from findistill.models.config import CharformerEncoder, Shape
from findistill.models.encoders import load, open_trained
from findistill.training.config import Trainer
from findistill.training.loop import Session
from findistill.training.trainer import fit

NAMES = ("negative", "neutral", "positive")
TOKENIZER = byte_tokenizer(64)


def small(**changed: object) -> CharformerEncoder:
    arguments = {"shape": Shape(2, 16, 2, 32), "max_length": 64, "batch_size": 8, "learning_rate": 5e-3} | changed
    return CharformerEncoder(name="charformer", model="charformer", init="random", **arguments)  # type: ignore[arg-type]


def model(**changed: object) -> CharformerForSequenceClassification:
    classifier, _ = load(small(**changed), NAMES, scalar=False, seed=0)
    with torch.no_grad():
        for parameter in classifier.parameters():  # far from initialisation, so that every part has an effect
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel())))
    return classifier.eval()


MODELS = [model(calibrate=False), model(calibrate=True, downsample=3), model(blocks=1, downsample=1)]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(max_size=12), min_size=1, max_size=4), st.sampled_from(MODELS), st.integers(0, 7))
def test_padding_never_changes_a_text(texts: list[str], classifier: CharformerForSequenceClassification, more: int) -> None:
    batch = TOKENIZER(texts, padding=True, return_tensors="pt")
    ids, mask = (torch.nn.functional.pad(batch[name], (0, more)) for name in ("input_ids", "attention_mask"))
    ids[mask == 0] = torch.randint(2, 258, (int((mask == 0).sum()),))
    with torch.inference_mode():
        together = classifier(ids, attention_mask=mask).logits
        alone = torch.cat([classifier(**TOKENIZER([text], return_tensors="pt")).logits for text in texts])
    assert torch.allclose(together, alone, atol=1e-4)


def test_padding_gets_no_gradient() -> None:
    layer = SoftSubwords(CharformerConfig(hidden_size=8, num_attention_heads=2, calibrate=True))
    embedded = torch.randn(2, 9, 8, requires_grad=True)
    mask = torch.ones(2, 9, dtype=torch.long)
    mask[0, 5:] = 0
    pooled, pooled_mask = layer(embedded, mask)
    assert pooled_mask.tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]
    (pooled * pooled_mask.unsqueeze(-1)).square().sum().backward()
    assert embedded.grad is not None
    assert (embedded.grad[0, 5:] == 0).all() and (embedded.grad[0, :5] != 0).all() and (embedded.grad[1] != 0).all()
    assert all((parameter.grad != 0).any() for name, parameter in layer.named_parameters() if name != "score.bias")


@pytest.mark.parametrize("calibrate", [False, True])
def test_subwords_are_the_papers(calibrate: bool) -> None:
    """Equations 2 to 5, one position at a time, for a text of 10 bytes: its last blocks are incomplete."""
    layer = SoftSubwords(CharformerConfig(hidden_size=6, num_attention_heads=2, blocks=4, downsample=2, calibrate=calibrate))
    embedded = torch.randn(1, 10, 6)
    with torch.no_grad():
        mixed = layer.convolution(embedded.transpose(1, 2)).transpose(1, 2)[0]
        candidates, weights = [], []
        for i in range(10):
            blocks = [mixed[i // size * size : i // size * size + size].mean(dim=0) for size in (1, 2, 3, 4)]
            candidates.append(torch.stack(blocks))
            weights.append(torch.softmax(torch.cat([layer.score(block) for block in blocks]), dim=0))
        if calibrate:
            rows = torch.stack(weights)
            weights = [torch.softmax(rows @ row, dim=0) @ rows for row in rows]
        subwords = torch.stack([(row[:, None] * blocks).sum(dim=0) for row, blocks in zip(weights, candidates, strict=True)])
        expected = torch.stack([(subwords[i] + subwords[i + 1]) / 2 for i in range(0, 10, 2)])
        actual, _ = layer(embedded, torch.ones(1, 10, dtype=torch.long))
    assert torch.allclose(actual[0], expected, atol=1e-6)


@given(st.text(max_size=40))
def test_bytes_come_back(text: str) -> None:
    ids = TOKENIZER(text)["input_ids"]
    assert len(ids) == 1 + len(text.encode())
    assert TOKENIZER.decode(ids, skip_special_tokens=True) == text


def test_it_trains_and_a_saved_one_is_read_by_the_auto_classes(labels: LabelSet, corpus, tmp_path: Path) -> None:
    trainer = Trainer(accelerator="cpu", precision="32", max_epochs=25)
    shape = Shape(1, 32, 2, 64)
    trained = fit(small(shape=shape), None, labels, corpus.train, corpus.validation, Session(trainer, tmp_path, seed=1))
    assert trained.history[-1]["train/loss"] < 0.5 * trained.history[0]["train/loss"]
    again, tokenizer = open_trained(trained.model_dir)
    assert isinstance(again, CharformerForSequenceClassification) and tokenizer.model_max_length == 64
    assert again.config._attn_implementation == "sdpa"
    with torch.inference_mode():
        inputs = tokenizer(corpus.validation.texts, padding=True, truncation=True, return_tensors="pt")
        shares = again(**inputs).logits.softmax(-1).numpy()
    reference = predict(trained.model_dir, corpus.validation.texts, trainer).probabilities
    assert shares == pytest.approx(reference, abs=1e-5)
    assert sorted(path.suffix for path in trained.model_dir.iterdir()) == [
        ".json",
        ".json",
        ".json",
        ".json",
        ".npy",
        ".safetensors",
    ]
