from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from findistill.data.labels import LabelSet
from findistill.errors import UserError
from findistill.inference.predict import predict
from findistill.models.charformer import byte_tokenizer
from findistill.models.config import Encoder
from findistill.models.vocabulary import trim
from findistill.training.config import Trainer
from findistill.training.loop import Session
from findistill.training.trainer import fit

CORPUS = [
    "Nordea's third-quarter profit rose 12.5% to EUR 310mn, unexpectedly.",
    "The déjà-vu of $TSLA shorts: +4% pre-market 🚀",
    "Überraschend: Umsatz fällt; 5,000 redundancies at the paperboard mill",
]
WORDS = [word for text in CORPUS for word in text.split()]


@pytest.fixture(scope="module")
def both(tiny: Path):
    """The original model and tokenizer, and both trimmed to the corpus."""
    models = [AutoModelForSequenceClassification.from_pretrained(tiny, num_labels=3).eval() for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    trimmed = trim(models[1], tokenizer, CORPUS, 64)
    return models[0], tokenizer, models[1], trimmed


def logits(model, tokenizer, texts: list[str]) -> torch.Tensor:
    with torch.inference_mode():
        return model(**tokenizer(texts, padding=True, truncation=True, max_length=64, return_tensors="pt")).logits


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join), min_size=1, max_size=4))
def test_texts_whose_pieces_are_kept_are_predicted_the_same(both, texts: list[str]) -> None:
    model, tokenizer, small, trimmed = both
    assert [trimmed.tokenize(text) for text in texts] == [tokenizer.tokenize(text) for text in texts]
    assert torch.equal(logits(small, trimmed, texts), logits(model, tokenizer, texts))


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=30))
def test_other_texts_fall_back_to_smaller_pieces(both, text: str) -> None:
    _, tokenizer, _, trimmed = both
    before, after = tokenizer.tokenize(text), trimmed.tokenize(text)
    assert after.count("[UNK]") == before.count("[UNK]") and len(after) >= len(before)
    joined = ["".join(piece.removeprefix("##") for piece in pieces) for pieces in (before, after)]
    assert joined[0] == joined[1]


def test_the_table_is_cut_to_what_the_tokenizer_has(both) -> None:
    model, tokenizer, small, trimmed = both
    assert len(trimmed) == small.config.vocab_size == small.get_input_embeddings().num_embeddings < 3000 < len(tokenizer)
    assert trimmed.all_special_tokens == tokenizer.all_special_tokens
    assert trimmed.convert_ids_to_tokens(trimmed("profit")["input_ids"]) == ["[CLS]", "profit", "[SEP]"]
    assert small.config.pad_token_id == trimmed.pad_token_id == small.get_input_embeddings().padding_idx
    for piece in ("profit", "[MASK]", "##q"):
        ours, theirs = (t.convert_tokens_to_ids(piece) for t in (trimmed, tokenizer))
        assert torch.equal(small.get_input_embeddings().weight[ours], model.get_input_embeddings().weight[theirs])


def test_a_trimmed_student_is_saved_as_it_was_trained(encoder: Encoder, labels: LabelSet, corpus, tmp_path: Path) -> None:
    trainer = Trainer(accelerator="cpu", precision="32", max_epochs=1)
    trained = fit(
        replace(encoder, trim_vocabulary=True), None, labels, corpus.train, corpus.validation, Session(trainer, tmp_path),
        corpus=["unexpectedly"],
    )  # fmt: skip
    texts = [*corpus.validation.texts, "unexpectedly"]
    tokenizer = AutoTokenizer.from_pretrained(trained.model_dir)
    model = AutoModelForSequenceClassification.from_pretrained(trained.model_dir).eval()
    assert len(tokenizer) == model.config.vocab_size < 3000
    assert tokenizer.tokenize("unexpectedly dividends") == ["unexpectedly", *"d", *(f"##{letter}" for letter in "ividends")]
    shares = predict(trained.model_dir, texts, trainer).probabilities
    assert logits(model, tokenizer, texts).softmax(-1).numpy() == pytest.approx(shares, abs=1e-5)


def test_bytes_cannot_be_trimmed(tiny: Path) -> None:
    with pytest.raises(UserError, match="word pieces"):
        trim(AutoModelForSequenceClassification.from_pretrained(tiny), byte_tokenizer(8), CORPUS, 64)
