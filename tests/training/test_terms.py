"""Every term against a naive implementation that handles one text at a time, without padding."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import BertConfig, BertForSequenceClassification, DebertaV2Config, DebertaV2ForSequenceClassification

from findistill.errors import UserError
from findistill.models.features import Anatomy, read
from findistill.training.config import FAULTS, SHIPPED_TERMS, TeacherDistill, faults
from findistill.training.distiller import Distiller
from findistill.training.losses.base import UNLABELLED, Pair, layer_map
from findistill.training.losses.weighted import WeightedTerms
from findistill.training.published_faults import PublishedDistiller

LENGTHS = [7, 3, 11, 5]
NAMES = tuple(SHIPPED_TERMS)


def bert(seed: int, *, depth: int, width: int, heads: int) -> BertForSequenceClassification:
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=50, hidden_size=width, num_hidden_layers=depth, num_attention_heads=heads, intermediate_size=32,
        max_position_embeddings=32, num_labels=3, initializer_range=0.5, attn_implementation="eager",
    )  # fmt: skip
    return BertForSequenceClassification(config).eval()


@pytest.fixture(scope="module")
def teacher() -> BertForSequenceClassification:
    return bert(0, depth=4, width=24, heads=4)


@pytest.fixture(scope="module")
def student() -> BertForSequenceClassification:
    return bert(1, depth=2, width=16, heads=4)


@pytest.fixture(scope="module")
def texts() -> list[torch.Tensor]:
    random = np.random.default_rng(0)
    return [torch.from_numpy(random.integers(1, 50, length)) for length in LENGTHS]


def padded(texts: list[torch.Tensor]) -> dict[str, torch.Tensor]:
    ids = torch.nn.utils.rnn.pad_sequence(texts, batch_first=True)
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(text) for text in texts], batch_first=True)
    return {"input_ids": ids, "attention_mask": mask}


def distill(
    recipe: str = "fixed", temperature: float = 2.0, weights: dict[str, float] | None = None, **settings
) -> TeacherDistill:
    terms = weights if weights is not None else dict.fromkeys(NAMES, 1.0)
    return TeacherDistill(objective="tinybert", terms=terms, temperature=temperature, recipe=recipe, **settings)


def built(settings: TeacherDistill, student: Anatomy, teacher: Anatomy) -> WeightedTerms:
    """The terms of both stages, for two models of these shapes."""
    pair = Pair(
        student, teacher, settings.temperature, settings.layers, settings.relation_layer, settings.relation_heads
    )  # fmt: skip
    distiller = PublishedDistiller if faults(settings.recipe) else Distiller
    return WeightedTerms.build(distiller.term_nodes(settings), pair, ("intermediate", "prediction"))


def computed(terms: WeightedTerms, student, teacher, texts, hard) -> dict[str, torch.Tensor]:
    batch = padded(texts)
    ours, theirs = terms.student_arrays, terms.teacher_arrays
    with torch.no_grad():
        taught = read(teacher, batch, theirs)  # uses the fast path, whatever the model's setting
    return terms(read(student, batch, ours), taught, batch["attention_mask"], hard)


def naive(terms: WeightedTerms, settings: TeacherDistill, student, teacher, texts, hard) -> dict[str, float]:
    """The definitions, as loops over texts, heads and tokens, with attention maps from transformers' slow path."""
    sums = {name: [0.0, 0] for name in NAMES}  # sum and count of each term's entries

    def add(name: str, value: torch.Tensor, layer: int = 0) -> None:
        total, count = sums.setdefault(f"{name}/{layer}", [0.0, 0])
        sums[f"{name}/{layer}"] = [total + value.double().sum().item(), count + value.numel()]

    for each in (student, teacher):
        each.set_attn_implementation("eager")
    t = settings.temperature
    for text, label in zip(texts, hard.tolist(), strict=True):
        with torch.no_grad():
            s_out, t_out = (
                each(input_ids=text[None], output_hidden_states=True, output_attentions=True) for each in (student, teacher)
            )
        s, p = s_out.logits[0] / t, (t_out.logits[0] / t).softmax(-1)
        add("kl", t**2 * sum(p * (p.log() - s.log_softmax(-1))))
        add("soft_ce", -sum(p * s.log_softmax(-1)))
        add("logits_mse", (s_out.logits - t_out.logits).square())
        if label != UNLABELLED:
            add("hard", -s_out.logits[0].log_softmax(-1)[label])
        for small, large in {0: 0, 1: 2, 2: 4}.items():
            add(
                "hidden",
                (terms.terms["hidden"].projection(s_out.hidden_states[small]) - t_out.hidden_states[large]).square(),
                small,
            )
        for small, large in {1: 2, 2: 4}.items():
            raw = []
            for model, states, layer in ((student, s_out, small), (teacher, t_out, large)):
                block = model.bert.encoder.layer[layer - 1].attention.self
                x = states.hidden_states[layer - 1][0]
                q, k = block.query(x), block.key(x)
                width = q.shape[1] // block.num_attention_heads
                maps = []
                for head in range(block.num_attention_heads):
                    part = slice(head * width, (head + 1) * width)
                    maps.append(q[:, part] @ k[:, part].T / math.sqrt(width))
                raw.append(torch.stack(maps))
            add("attention", (raw[0] - raw[1]).square(), small)
            add("attention_probs", (s_out.attentions[small - 1] - t_out.attentions[large - 1]).square(), small)
        for name, left, right in (("query_key", "query", "key"), ("value_value", "value", "value")):
            relations = []
            for model, states in ((student, s_out), (teacher, t_out)):
                block = model.bert.encoder.layer[-1].attention.self
                x = states.hidden_states[-2][0]
                a, b = getattr(block, left)(x), getattr(block, right)(x)
                width = a.shape[1] // terms.terms[name].heads
                heads = [slice(i * width, (i + 1) * width) for i in range(terms.terms[name].heads)]
                relations.append(torch.stack([(a[:, h] @ b[:, h].T / math.sqrt(width)).softmax(-1) for h in heads]))
            add(name, (relations[1] * (relations[1].log() - relations[0].log())).sum(-1))
    means = {}
    for key, (total, count) in sums.items():
        if count:
            name = key.partition("/")[0]
            means[name] = means.get(name, 0.0) + total / count
    return means


@pytest.mark.parametrize("relation_heads", [None, 2, 8])
def test_every_term_equals_a_naive_implementation(student, teacher, texts, relation_heads: int | None) -> None:
    settings = distill(relation_heads=relation_heads)
    sizes = Anatomy.of(student, "student"), Anatomy.of(teacher, "teacher")
    terms = built(settings, *sizes)
    hard = torch.tensor([0, UNLABELLED, 2, 1])
    losses = {name: float(value.detach()) for name, value in computed(terms, student, teacher, texts, hard).items()}
    expected = naive(terms, settings, student, teacher, texts, hard)
    assert losses.keys() == expected.keys() == set(NAMES)
    for name, value in expected.items():
        assert losses[name] == pytest.approx(value, rel=1e-5, abs=1e-5), name


def test_padding_never_counts(student, teacher, texts) -> None:
    terms = built(distill(), Anatomy.of(student, "student"), Anatomy.of(teacher, "teacher"))
    hard = torch.tensor([0])
    alone = computed(terms, student, teacher, texts[1:2], hard)
    batch = padded([texts[1], texts[2]])  # the same text with eight more positions of padding
    one = {name: value[:1] for name, value in batch.items()}
    one["input_ids"][0, LENGTHS[1] :] = 49  # padding may contain any token
    arrays = terms.student_arrays, terms.teacher_arrays
    wide = terms(read(student, one, arrays[0]), read(teacher, one, arrays[1]), one["attention_mask"], hard)
    for name, value in alone.items():
        assert wide[name].item() == pytest.approx(value.item(), rel=1e-6, abs=1e-5), name


def test_a_copy_of_the_teacher_has_nothing_left_to_learn(teacher, texts) -> None:
    size = Anatomy.of(teacher, "teacher")
    weights = {"kl": 1.0, "hidden": 1.0, "attention": 1.0, "query_key": 1.0, "value_value": 1.0}
    terms = built(distill(weights=weights), size, size)
    assert terms.terms["hidden"].projection is None
    values = computed(terms, teacher, teacher, texts, torch.zeros(4, dtype=torch.long))
    assert terms.total(values).item() == pytest.approx(0, abs=1e-6)


def test_the_total_is_the_weighted_sum_and_gradients_flow_to_student_and_projection(student, teacher, texts) -> None:
    terms = built(distill(weights={"hidden": 2.0, "kl": 0.5, "value_value": 3.0}), *map(sized, (student, teacher)))
    values = computed(terms, student, teacher, texts, torch.zeros(4, dtype=torch.long))
    total = terms.total(values)
    expected = 2 * values["hidden"] + 0.5 * values["kl"] + 3 * values["value_value"]
    assert total.item() == pytest.approx(expected.item(), rel=1e-6)
    student.zero_grad()
    total.backward()
    assert terms.terms["hidden"].projection is not None and terms.terms["hidden"].projection.weight.grad.abs().sum() > 0
    last = student.bert.encoder.layer[-1].attention.self
    assert all(each.weight.grad.abs().sum() > 0 for each in (last.query, last.value, student.classifier))
    student.zero_grad()


def sized(model) -> Anatomy:
    return Anatomy.of(model, f"{model.config.num_hidden_layers} layers")


def test_each_fault_does_what_it_says(student, teacher, texts) -> None:
    hard = torch.zeros(4, dtype=torch.long)

    def values(recipe: str) -> tuple[WeightedTerms, dict[str, torch.Tensor]]:
        torch.manual_seed(0)
        terms = built(
            distill(recipe, weights={"hidden": 1.0, "attention": 1.0, "soft_ce": 1.0, "kl": 1.0}),
            *map(sized, (student, teacher)),
        )
        return terms, computed(terms, student, teacher, texts, hard)

    fixed, right = values("fixed")
    assert values("mean")[1]["soft_ce"].item() == pytest.approx(right["soft_ce"].item() / 3)
    frozen, _ = values("projection")
    assert (frozen.terms["hidden"].projection.in_features, frozen.terms["hidden"].projection.out_features) == (24, 16)
    assert not any(each.requires_grad for each in frozen.parameters())
    assert (fixed.terms["hidden"].projection.in_features, fixed.terms["hidden"].projection.out_features) == (16, 24)
    assert values("attention")[1].keys() == {"hidden", "attention_probs", "soft_ce", "kl"}
    for other in ("schedule", "selection"):
        assert {name: value.item() for name, value in values(other)[1].items()} == {
            name: float(value) for name, value in right.items()
        }
    assert faults("faithful") == set(FAULTS)


def test_a_batch_without_labels_has_no_hard_loss(student, teacher, texts) -> None:
    terms = built(distill(weights={"hard": 1.0}), *map(sized, (student, teacher)))
    assert (terms.student_arrays, terms.teacher_arrays) == (["logits"], [])
    assert float(computed(terms, student, teacher, texts, torch.full((4,), UNLABELLED))["hard"]) == 0


def anatomy(depth: int, heads: int = 4, width: int = 24) -> Anatomy:
    return Anatomy(f"{depth} layers", depth, width, heads)


def test_layer_maps() -> None:
    assert layer_map("uniform", anatomy(4), anatomy(12)) == {1: 3, 2: 6, 3: 9, 4: 12}
    assert layer_map("last", anatomy(4), anatomy(12)) == {1: 9, 2: 10, 3: 11, 4: 12}
    assert layer_map("skip", anatomy(6), anatomy(12)) == {1: 2, 2: 4, 3: 6, 4: 8, 5: 10}
    assert layer_map([2, 4, 6], anatomy(3), anatomy(6)) == {1: 2, 2: 4, 3: 6}
    for wrong in ([2, 4], [2, 4, 7], [0, 2, 4]):
        with pytest.raises(UserError, match=r"distill\.layers=\["):
            layer_map(wrong, anatomy(3), anatomy(6))
    with pytest.raises(UserError, match="student has 6 layers, its teacher 3"):
        layer_map("uniform", anatomy(6), anatomy(3))
    with pytest.raises(UserError, match="use uniform"):
        layer_map("skip", anatomy(1), anatomy(3))


@given(small=st.integers(2, 12), more=st.integers(0, 12), how=st.sampled_from(["uniform", "last", "skip"]))
def test_layer_maps_stay_inside_the_teacher_and_rise(small: int, more: int, how: str) -> None:
    mapping = layer_map(how, anatomy(small), anatomy(small + more))
    assert list(mapping) == list(range(1, small + (how != "skip")))
    values = list(mapping.values())
    assert all(1 <= layer <= small + more for layer in values) and values == sorted(set(values))
    assert how == "skip" or values[-1] == small + more


def test_what_cannot_be_compared_is_refused(teacher) -> None:
    with pytest.raises(UserError, match=r"(?s)distill\.terms\.attention compares.*query_key and value_value"):
        built(distill(weights={"attention": 1.0}), anatomy(2, heads=2), anatomy(4))
    with pytest.raises(UserError, match=r"relation_heads=5 must divide both widths, 16 and 24"):
        built(distill(weights={"query_key": 1.0}, relation_heads=5), anatomy(2, width=16), anatomy(4))
    with pytest.raises(UserError, match=r"relation_layer=9: 4 layers"):
        built(distill(weights={"query_key": 1.0}, relation_layer=9), anatomy(2), anatomy(4))


def test_a_model_that_hides_its_attention_is_an_error_not_a_zero(texts) -> None:
    config = DebertaV2Config(
        vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16, num_labels=3
    )  # fmt: skip
    model = DebertaV2ForSequenceClassification(config).eval()
    assert read(model, padded(texts), ["logits", "hidden/1"])["hidden/1"].shape == (sum(LENGTHS), 16)
    with pytest.raises(UserError, match="does not return its attention"):
        read(model, padded(texts), ["scores/1"])
