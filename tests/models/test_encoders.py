from dataclasses import replace
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from transformers import AutoModel, AutoModelForSequenceClassification

from findistill.errors import UserError
from findistill.models.config import Encoder, Shape
from findistill.models.encoders import load, open_trained, save
from findistill.models.heads import Thresholds
from findistill.models.weights import locate

NAMES = ("negative", "neutral", "positive")
MINILM = Encoder(name="minilm_3l", model="embedded:minilm_l6", layers=[2, 4, 6])


def test_every_second_layer_of_the_real_parent() -> None:
    model, _ = load(MINILM, NAMES, scalar=False, seed=0)
    parent = AutoModel.from_pretrained(locate(MINILM.model), dtype=torch.float32)
    assert model.config.num_hidden_layers == 3
    assert model.config._attn_implementation == "sdpa"
    for layer, number in zip(model.bert.encoder.layer, (2, 4, 6), strict=True):
        original = parent.encoder.layer[number - 1].state_dict()
        assert all(torch.equal(value, original[name]) for name, value in layer.state_dict().items())
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
    with pytest.raises(UserError, match=r"BertModel.* has no classification head.\n.*stage=teacher"):
        open_trained(tiny)


TINY = Encoder(name="tiny_2l_128d", model="embedded:minilm_l6", init="parent", shape=Shape(2, 128, 2, 512))


def test_a_parents_embeddings_are_approximated_as_well_as_can_be() -> None:
    model, _ = load(TINY, NAMES, scalar=False, seed=0)
    ours = model.bert.embeddings.word_embeddings.weight.detach()
    parent = AutoModel.from_pretrained(locate(MINILM.model), dtype=torch.float32).embeddings.word_embeddings.weight.detach()
    assert ours.shape == (30522, 128) and model.config.num_hidden_layers == 2
    # Eckart and Young: the error is the sum of the squared singular values left out.
    values = torch.linalg.svdvals(parent.double())
    back = torch.linalg.lstsq(ours.double(), parent.double()).solution
    lost = (parent.double() - ours.double() @ back).square().sum()
    assert float(lost) == pytest.approx(float(values[128:].square().sum()), rel=1e-3)
    sample = torch.arange(1000, 1400)
    alike = [torch.corrcoef(torch.stack([(t[sample] @ t[sample].T).flatten() for t in (ours, parent)]))[0, 1]]
    assert float(alike[0]) > 0.8


def test_a_parent_of_the_same_width_gives_its_layers() -> None:
    model, _ = load(replace(TINY, shape=Shape(3, 384, 12, 1536)), NAMES, scalar=False, seed=0)
    cut, _ = load(MINILM, NAMES, scalar=False, seed=0)
    ours, theirs = model.state_dict(), cut.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs if not name.startswith("classifier"))


def test_random_weights_come_from_the_seed_and_have_the_shape() -> None:
    random = replace(TINY, init="random", shape=Shape(4, 312, 12, 1200))
    first, again, other = (load(random, NAMES, scalar=False, seed=seed)[0] for seed in (0, 0, 1))
    name = "bert.encoder.layer.3.output.dense.weight"
    assert first.num_parameters() == 14_351_187  # TinyBERT with three labels, as published
    assert torch.equal(first.state_dict()[name], again.state_dict()[name])
    assert not torch.equal(first.state_dict()[name], other.state_dict()[name])


def test_random_weights_need_no_shape(encoder: Encoder) -> None:
    model, _ = load(replace(encoder, init="random"), NAMES, scalar=False, seed=5)
    pretrained, _ = load(encoder, NAMES, scalar=False, seed=0)
    assert [value.shape for value in model.parameters()] == [value.shape for value in pretrained.parameters()]
    assert not torch.equal(model.get_input_embeddings().weight, pretrained.get_input_embeddings().weight)


def test_shapes_that_do_not_fit_are_named(encoder: Encoder) -> None:
    with pytest.raises(UserError, match=r"differs from Shape\(layers=6, hidden=384.*, the shape of embedded:minilm_l6"):
        load(replace(TINY, init="pretrained"), NAMES, scalar=False, seed=0)
    load(replace(TINY, init="pretrained", shape=Shape(6, 384, 12, 1536)), NAMES, scalar=False, seed=0)
    with pytest.raises(UserError, match=r"hidden size 64, but .* only 32"):
        load(replace(encoder, init="parent", shape=Shape(2, 64, 2, 64)), NAMES, scalar=False, seed=0)


def test_a_configured_shape_is_read_as_one() -> None:
    node = OmegaConf.structured(replace(TINY, init="pretrained", shape=Shape(6, 384, 12, 1536)))
    load(node, NAMES, scalar=False, seed=0)
    node.shape.layers = 5
    with pytest.raises(UserError, match="layers"):
        load(node, NAMES, scalar=False, seed=0)


def test_a_scalar_heads_thresholds_do_not_pass_to_another_head(tiny: Path, tmp_path: Path) -> None:
    model, tokenizer = load(Encoder(name="x", model=str(tiny)), NAMES, scalar=True, seed=0)
    save(tmp_path / "scalar", model, tokenizer, NAMES, 16, Thresholds(-0.1, 0.1))
    again, _ = load(Encoder(name="x", model=str(tmp_path / "scalar")), NAMES, scalar=False, seed=0)
    assert not hasattr(again.config, "findistill_thresholds") and not hasattr(again.config, "findistill_labels")
