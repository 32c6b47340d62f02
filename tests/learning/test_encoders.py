from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModel, AutoModelForSequenceClassification

from findistill.errors import UserError
from findistill.learning.encoders import load, open_trained
from findistill.runs.weights import locate
from findistill.settings.schema import Encoder

NAMES = ("negative", "neutral", "positive")
MINILM = Encoder(name="minilm_3l", model="embedded:minilm_l6", layers=[2, 4, 6])


def test_every_second_layer_of_the_real_parent() -> None:
    model, _ = load(MINILM, NAMES, scalar=False, seed=0)
    parent = AutoModel.from_pretrained(locate(MINILM.model), dtype=torch.float32)
    assert model.config.num_hidden_layers == 3
    assert model.config._attn_implementation == "sdpa"
    for kept, number in zip(model.bert.encoder.layer, (2, 4, 6), strict=True):
        original = parent.encoder.layer[number - 1].state_dict()
        assert all(torch.equal(value, original[name]) for name, value in kept.state_dict().items())
    assert model.config.id2label == {0: "negative", 1: "neutral", 2: "positive"}


def test_the_head_comes_from_the_seed(encoder: Encoder) -> None:
    heads = [load(encoder, NAMES, scalar=False, seed=seed)[0].classifier.weight for seed in (1, 1, 2)]
    assert torch.equal(heads[0], heads[1]) and not torch.equal(heads[0], heads[2])


def test_a_scalar_head_has_one_output(encoder: Encoder) -> None:
    assert load(encoder, NAMES, scalar=True, seed=0)[0].classifier.out_features == 1


def _classifier(tiny: Path, folder: Path, names: list[str]) -> Encoder:
    model = AutoModelForSequenceClassification.from_pretrained(tiny, num_labels=3, id2label=dict(enumerate(names)))
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((tiny / name).read_bytes())
    return Encoder(name="own", model=str(folder))


def test_a_trained_head_is_kept_with_its_rows_matched_by_name(tiny: Path, tmp_path: Path) -> None:
    own = _classifier(tiny, tmp_path, ["Positive", "negative", "Neutral"])
    trained = AutoModelForSequenceClassification.from_pretrained(tmp_path).classifier.weight
    assert torch.equal(load(own, NAMES, scalar=False, seed=0)[0].classifier.weight, trained[[1, 2, 0]])


def test_a_head_for_other_labels_is_replaced(tiny: Path, tmp_path: Path) -> None:
    other = _classifier(tiny, tmp_path, ["entailment", "neutral", "contradiction"])
    trained = AutoModelForSequenceClassification.from_pretrained(tmp_path).classifier.weight
    assert not torch.isin(load(other, NAMES, scalar=False, seed=0)[0].classifier.weight, trained).any()


@pytest.mark.parametrize("layers", [[0, 2], [2, 7], []])
def test_layers_out_of_range_are_named(layers: list[int]) -> None:
    with pytest.raises(UserError, match=r"layers=.*encoder layers 1 to 6"):
        load(replace(MINILM, layers=layers), NAMES, scalar=False, seed=0)


def test_unknown_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="nowhere"):
        load(Encoder(name="x", model=str(tmp_path / "nowhere")), NAMES, scalar=False, seed=0)
    with pytest.raises(UserError, match="nowhere"):
        open_trained(tmp_path / "nowhere")


def test_an_untrained_model_is_no_classifier(tiny: Path) -> None:
    with pytest.raises(UserError, match="does not name its labels"):
        open_trained(tiny)
