from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from transformers import AutoModelForPreTraining, AutoTokenizer

from findistill.errors import UserError
from findistill.models.batches import pad
from findistill.models.config import Encoder, Pretrain, Shape
from findistill.models.encoders import load
from findistill.models.tokens import tokenise
from findistill.models.weights import locate
from findistill.training import pretraining as module
from findistill.training.config import Trainer
from findistill.training.loop import Session
from findistill.training.pretraining import IGNORED, MaskedLanguage, MaskedRows, Masks, pretrain
from findistill.training.recipe import Recipe

TOKENIZER = AutoTokenizer.from_pretrained(locate("embedded:minilm_l6"))
MASKS = Masks.of(TOKENIZER)
TRAINER = Trainer(accelerator="cpu", precision="32")


def _words(ids: np.ndarray) -> list[list[int]]:
    """The positions of each word's pieces, computed naively."""
    words: list[list[int]] = []
    for position, piece in enumerate(TOKENIZER.convert_ids_to_tokens(ids.tolist())):
        if piece in TOKENIZER.all_special_tokens:
            continue
        if piece.startswith("##") and words and words[-1][-1] == position - 1:
            words[-1].append(position)
        else:
            words.append([position])
    return words


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text(st.sampled_from("aeinorstq .,%9"), max_size=60), min_size=1, max_size=4), st.integers(0, 99))
def test_words_are_masked_whole_and_nothing_else_is(texts: list[str], seed: int) -> None:
    ids = pad(tokenise(TOKENIZER, texts, 16), range(len(texts)))["input_ids"].numpy()
    inputs, targets = MASKS.hide(ids, 0.4, np.random.default_rng(seed))
    hidden = targets != IGNORED
    assert (targets[hidden] == ids[hidden]).all() and (inputs[~hidden] == ids[~hidden]).all()
    for row, masked in zip(ids, hidden, strict=True):
        words = _words(row)
        assert all(len({bool(masked[position]) for position in word}) == 1 for word in words)
        assert masked.sum() == sum(masked[word].sum() for word in words)


def test_shares_of_words_and_fates_are_berts() -> None:
    ids = np.tile(np.array(TOKENIZER("The board expects unexpectedly strong dividends this fiscal year")["input_ids"]), (3000, 1))
    inputs, targets = MASKS.hide(ids, 0.15, np.random.default_rng(0))
    hidden = targets != IGNORED
    assert hidden.sum() / (3000 * (ids.shape[1] - 2)) == pytest.approx(0.15, abs=0.01)
    masked, same = (inputs == TOKENIZER.mask_token_id)[hidden].mean(), (inputs == ids)[hidden].mean()
    assert masked == pytest.approx(0.8, abs=0.02) and same == pytest.approx(0.1, abs=0.02)
    assert not np.isin(inputs[hidden & (inputs != TOKENIZER.mask_token_id)], TOKENIZER.all_special_ids).any()


def test_the_loss_is_that_of_every_position_but_reads_the_hidden_ones_only(tiny: Path, encoder: Encoder) -> None:
    model = AutoModelForPreTraining.from_pretrained(tiny).eval()
    rows = MaskedRows(tokenise(TOKENIZER, ["Profit rose unexpectedly", "Sales fell"], 16), MASKS, 0.5, np.random.default_rng(1))
    batch = rows[[0, 1]]
    with torch.no_grad():
        logits, targets = MaskedLanguage(model, Recipe.of(encoder, TRAINER)).guesses(batch)
        whole = model(batch["input_ids"], attention_mask=batch["attention_mask"]).prediction_logits
    assert len(targets) == (batch["targets"] != IGNORED).sum() > 0
    assert torch.allclose(logits, whole[batch["targets"] != IGNORED], atol=1e-5)


COMPANIES, MEASURES = ("Nokia", "Fortum", "Kone", "Sampo", "Neste"), ("sales", "profit", "orders", "margins")
ENDS = ("rose sharply", "fell sharply", "were flat", "beat forecasts", "missed forecasts", "doubled")
TEXTS = [f"{company} {measure} {end}" for company in COMPANIES for measure in MEASURES for end in ENDS]


def test_pretraining_lowers_the_loss_of_texts_it_does_not_see(encoder: Encoder, tmp_path: Path) -> None:
    settings = replace(encoder, pretrain=Pretrain(source="own", epochs=12, learning_rate=5e-3), batch_size=16)
    folders = [tmp_path / "one", tmp_path / "two"]
    results = [pretrain(settings, TEXTS, Session(TRAINER, folder)) for folder in folders]
    assert results[0] == results[1] and results[0]["texts"] == 114
    assert results[0]["loss_after"] < 0.6 * results[0]["loss_before"]
    weights = [load_file(folder / "model.safetensors") for folder in folders]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    model, tokenizer = load(replace(encoder, model=str(folders[0])), ("a", "b"), scalar=False, seed=0)
    ours = model.bert.state_dict()
    assert all(torch.equal(value, ours[name]) for name, value in weights[0].items())
    assert set(weights[0]) == set(ours) and tokenizer("Profit")["input_ids"] == TOKENIZER("Profit")["input_ids"]
    before = load(encoder, ("a", "b"), scalar=False, seed=0)[0].bert.state_dict()
    assert not torch.equal(before["encoder.layer.0.output.dense.weight"], ours["encoder.layer.0.output.dense.weight"])


def test_a_random_shape_is_pretrained_too(encoder: Encoder, tmp_path: Path) -> None:
    settings = replace(encoder, init="random", shape=Shape(1, 16, 2, 32), pretrain=Pretrain(source="own"))
    pretrain(settings, TEXTS, Session(TRAINER, tmp_path / "made"))
    model, _ = load(replace(encoder, model=str(tmp_path / "made")), ("a", "b"), scalar=False, seed=0)
    assert (model.config.num_hidden_layers, model.config.hidden_size) == (1, 16)


def test_mistakes_are_named(encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = replace(encoder, pretrain=Pretrain(source="own"))
    with pytest.raises(UserError, match="5 texts are too few"):
        pretrain(settings, TEXTS[:5], Session(TRAINER, tmp_path))
    monkeypatch.setattr(module.functional, "cross_entropy", lambda *_, **__: torch.tensor(float("nan")))
    with pytest.raises(UserError, match=r"Lower pretrain\.learning_rate"):
        pretrain(settings, TEXTS, Session(TRAINER, tmp_path))
