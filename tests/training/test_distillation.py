from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertTokenizer

from findistill.core.store import Store
from findistill.data import training_texts
from findistill.errors import UserError
from findistill.inference.predict import predict
from findistill.models.config import Encoder
from findistill.models.encoders import open_trained
from findistill.models.linear import fit_linear
from findistill.models.tokens import Tokens
from findistill.models.training_profile import TrainingProfile
from findistill.training import published_faults
from findistill.training.config import Intermediate, TeacherDistill, Trainer
from findistill.training.distillation import distil, matched, with_unlabelled
from findistill.training.distiller import Distiller
from findistill.training.loop import Session
from findistill.training.losses.base import LayerMapTerm, LogitsTerm, Pair
from findistill.training.teachers import check_same_tokens
from findistill.training.trainer import Examples, Trained, fit

LOGIT = TeacherDistill(objective="logit", terms={"kl": 1.0}, temperature=2.0)
TINYBERT = TeacherDistill(
    objective="tinybert", terms={"hidden": 1.0, "attention": 1.0, "soft_ce": 1.0}, intermediate=Intermediate(epochs=2)
)


@pytest.fixture(scope="module")
def teacher(encoder, labels, corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    trainer = Trainer(accelerator="cpu", precision="32", max_epochs=12, learning_rate=3e-3)
    folder = tmp_path_factory.mktemp("teacher")
    fit(encoder, None, labels, corpus.train, corpus.validation, Session(trainer, folder))
    return folder


@pytest.fixture
def run(encoder, trainer, labels, corpus, teacher, tmp_path):
    """`distil` on the small corpus into every second layer of the teacher's base model; keywords override its arguments."""
    store = Store(tmp_path / "store")

    def run(distill: TeacherDistill = LOGIT, *, name: str = "run", **changed) -> Trained:
        session = Session(changed.pop("trainer", trainer), tmp_path / name, changed.pop("seed", 0))
        arguments = {"encoder": replace(encoder, layers=[2, 4]), "labels": labels, "session": session}
        arguments |= {"train": corpus.train, "validation": corpus.validation, "teacher": teacher} | changed
        return distil(distill=distill, artifact=lambda kind, key, make: store.get(kind, key, make), root=store.root, **arguments)

    return run


def narrow(tmp_path: Path, tiny: Path, heads: int = 2, **settings: int) -> Path:
    """A folder with a random student, 2 layers of width 16, that shares the tokenizer of `tiny`."""
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(3)
    config = BertConfig.from_pretrained(
        tiny, hidden_size=16, num_hidden_layers=2, num_attention_heads=heads, intermediate_size=32, **settings
    )  # fmt: skip
    BertForSequenceClassification(config).save_pretrained(tmp_path / "narrow")
    AutoTokenizer.from_pretrained(tiny).save_pretrained(tmp_path / "narrow")
    return tmp_path / "narrow"


def test_a_student_learns_from_texts_without_labels(run, trainer, teacher, corpus) -> None:
    nothing = Examples([], [], np.zeros((0, 3), np.float32), np.zeros(0, np.int64))
    unlabelled = with_unlabelled(nothing, corpus.train.ids, corpus.train.texts)
    assert (unlabelled.hard == -1).all() and unlabelled.targets.shape == (48, 3)
    trained = run(train=unlabelled, trainer=replace(trainer, max_epochs=10, learning_rate=3e-3))
    texts = corpus.validation.texts
    assert training_texts.known(trained.model_dir, [*texts, *corpus.train.texts, "another one"]).tolist() == [True] * 72 + [False]
    profile = TrainingProfile.read(trained.model_dir)
    assert profile and profile.labels == {} and profile.unseen < 0.2 and len(profile.pieces) > 10
    taught = predict(teacher, texts, trainer).probabilities.argmax(1)
    assert (predict(trained.model_dir, texts, trainer).probabilities.argmax(1) == taught).mean() > 0.8
    assert trained.history[-1]["train/kl"] < 0.3 * trained.history[0]["train/kl"]
    best = trained.history[trained.best_epoch - 1]
    assert best["val/macro_f1"] == max(row["val/macro_f1"] for row in trained.history)
    model = AutoModelForSequenceClassification.from_pretrained(trained.model_dir).eval()  # plain transformers
    inputs = AutoTokenizer.from_pretrained(trained.model_dir)(texts, truncation=True, padding=True, return_tensors="pt")
    with torch.inference_mode():
        shares = model(**inputs).logits.softmax(-1).numpy()
    assert shares == pytest.approx(predict(trained.model_dir, texts, trainer).probabilities, abs=1e-5)
    assert "findistill" not in (trained.model_dir / "config.json").read_text()


def test_several_teachers_are_learnt_from_as_the_mean_of_their_logits(
    run, trainer, teacher, tiny, labels, corpus, tmp_path
) -> None:
    quick = replace(trainer, max_epochs=1)
    alone = run(trainer=quick, name="alone")
    same = run(trainer=quick, name="same", others=[str(teacher / "model")])
    assert load_file(alone.model_dir / "model.safetensors").keys() == load_file(same.model_dir / "model.safetensors").keys()
    for name, weights in load_file(alone.model_dir / "model.safetensors").items():
        torch.testing.assert_close(weights, load_file(same.model_dir / "model.safetensors")[name])
    another = fit(
        Encoder(name="another", model=str(tiny), epochs=1, batch_size=8, learning_rate=3e-3, max_length=16), None, labels,
        corpus.train, corpus.validation, Session(quick, tmp_path / "another", 7),
    )  # fmt: skip
    mixed = run(trainer=quick, name="mixed", others=[str(another.model_dir)])
    assert mixed.history[0]["train/kl"] != pytest.approx(alone.history[0]["train/kl"], rel=1e-2)


def test_logistic_regression_is_one_of_several_teachers(run, trainer, labels, corpus, tmp_path: Path) -> None:
    """Its labels may be in another order, and its logits on another scale."""
    gold = [labels.names[label] for label in corpus.train.hard]
    linear = fit_linear("tfidf", corpus.train.texts, gold)
    order = list(reversed(range(len(linear.labels))))
    names = tuple(linear.labels[at] for at in order)
    quick, losses = replace(trainer, max_epochs=1), {}
    for name, scale in (("once", 1.0), ("ten times", 10.0)):
        other = replace(linear, weights=linear.weights * scale, bias=linear.bias * scale)
        other.save(tmp_path / name / "as fitted")
        reversed_ = replace(other, labels=names, weights=other.weights[order], bias=other.bias[order])
        reversed_.save(tmp_path / name / "reversed")
        for kind in ("as fitted", "reversed"):
            trained = run(trainer=quick, name=f"{name} {kind}", others=[str(tmp_path / name / kind)])
            losses[name, kind] = trained.history[0]["train/kl"]
    alone = run(trainer=quick, name="alone").history[0]["train/kl"]
    assert all(loss == pytest.approx(losses["once", "as fitted"]) for loss in losses.values())
    assert losses["once", "as fitted"] != pytest.approx(alone, rel=1e-2)


def test_two_stages_with_a_narrower_student(run, trainer, tiny, tmp_path: Path) -> None:
    encoder = Encoder(name="narrow", model=str(narrow(tmp_path, tiny)), epochs=3, batch_size=8, learning_rate=3e-3, max_length=16)
    trained = run(TINYBERT, encoder=encoder)
    assert [row["epoch"] for row in trained.history] == [1, 2, 3, 4, 5]
    assert [set(row) & {"train/hidden", "train/attention", "train/soft_ce"} for row in trained.history] == [
        {"train/hidden", "train/attention"}, {"train/hidden", "train/attention"}, *[{"train/soft_ce"}] * 3,
    ]  # fmt: skip
    assert trained.best_epoch >= 3 and "val/macro_f1" in trained.history[trained.best_epoch - 1]
    assert trained.history[1]["train/hidden"] < trained.history[0]["train/hidden"]
    assert trained.history[1]["lr"] == 3e-3 and trained.history[-1]["lr"] == 0  # constant, then warm-up and decay
    together = run(replace(TINYBERT, intermediate=Intermediate()), encoder=encoder, name="together")
    assert {"train/hidden", "train/soft_ce", "val/macro_f1"} <= set(together.history[0])


def test_the_projection_is_trained_unless_the_fault_is_asked_for(
    run, tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = Encoder(name="narrow", model=str(narrow(tmp_path, tiny)), epochs=1, batch_size=8, learning_rate=3e-3, max_length=16)
    projections = []
    original = Distiller.on_train_epoch_start

    def note(self) -> None:
        if "hidden" in self.terms.terms:
            projection = self.terms.terms["hidden"].projection
            assert "terms.terms.hidden.projection.weight" in self.state_dict()
            projections.append((projection, projection.weight.detach().clone()))
        original(self)

    monkeypatch.setattr(Distiller, "on_train_epoch_start", note)
    for recipe, moved in (("fixed", True), ("projection", False)):
        projections.clear()
        run(replace(TINYBERT, recipe=recipe), encoder=encoder, name=recipe)
        layer, before = projections[0]
        assert torch.equal(layer.weight, before) is not moved


def test_the_schedule_fault_stops_learning_early(run, trainer) -> None:
    # 48 texts in batches of 2 are 24 steps per epoch; the study's schedule ends after 24 // 2 steps x 2 epochs.
    settings = replace(trainer, batch_size=2, max_epochs=2)
    rows = run(replace(LOGIT, recipe="schedule"), trainer=settings).history
    assert [row["lr"] for row in rows] == [0, 0] and rows[1]["val/loss"] == rows[0]["val/loss"]
    fixed = run(trainer=settings, name="fixed").history
    assert fixed[0]["lr"] > 0 and fixed[1]["val/loss"] != fixed[0]["val/loss"]


def test_the_selection_fault_looks_often(run, trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(published_faults, "CHECK_EVERY", 2)
    trained = run(replace(LOGIT, recipe="selection"), trainer=replace(trainer, max_epochs=2, batch_size=8))
    assert [row["epoch"] for row in trained.history] == pytest.approx([1 / 3, 2 / 3, 1, 4 / 3, 5 / 3, 2])
    scores = [row["val/macro_f1"] for row in trained.history]
    assert scores[trained.best_epoch - 1] == max(scores)


def test_same_seed_same_weights_and_one_pass_of_the_teacher(run, monkeypatch: pytest.MonkeyPatch) -> None:
    from findistill.training import teacher_outputs as teacher_cache

    passes = []
    write = teacher_cache._write
    monkeypatch.setattr(teacher_cache, "_write", lambda *arguments: passes.append(arguments[3]) or write(*arguments))
    everything = replace(TINYBERT, cache="all")
    weights = [
        load_file(run(everything, name=f"run{i}", seed=seed).model_dir / "model.safetensors") for i, seed in enumerate((5, 5, 6))
    ]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    assert not all(torch.equal(value, weights[2][name]) for name, value in weights[0].items())
    run(replace(everything, layers="last", terms={"value_value": 1.0, "hard": 1.0}), name="other")
    assert len(passes) == 1


def test_labels_are_matched_by_name(run, trainer, teacher, corpus, tmp_path: Path) -> None:
    from findistill.data.labels import LabelSet

    order = ("positive", "negative", "neutral")
    moved = [order.index(name) for name in ("negative", "neutral", "positive")]

    def turned(examples: Examples) -> Examples:
        columns = np.argsort(moved)
        return Examples(examples.ids, examples.texts, examples.targets[:, columns], np.asarray(moved)[examples.hard])

    trained = run(labels=LabelSet(order), train=turned(corpus.train), validation=turned(corpus.validation),
                  trainer=replace(trainer, max_epochs=10, learning_rate=3e-3))  # fmt: skip
    texts = corpus.validation.texts
    ours, theirs = predict(trained.model_dir, texts, trainer), predict(teacher, texts, trainer)
    assert ours.labels == order
    assert np.mean([a == b for a, b in zip(ours.predicted, theirs.predicted, strict=True)]) > 0.8
    with pytest.raises(UserError, match=r"has the labels negative, neutral, positive; it lacks sad.*\n.*distill.label_map"):
        run(labels=LabelSet(("negative", "neutral", "sad")))


def test_other_tokens_are_an_error_for_layers_and_none_for_logits(run, tiny, tmp_path: Path) -> None:
    folder = narrow(tmp_path, tiny, vocab_size=57)
    vocabulary = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *"abcdefghijklmnopqrstuvwxyz",
        *(f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz"),
    ]
    (tmp_path / "vocab.txt").write_text("\n".join(vocabulary))
    BertTokenizer(vocab=str(tmp_path / "vocab.txt")).save_pretrained(folder)
    encoder = Encoder(name="letters", model=str(folder), epochs=1, batch_size=8, learning_rate=3e-3, max_length=16)
    assert len(run(encoder=encoder).history) == 1
    with pytest.raises(UserError, match=r"letters \(57 pieces\) and its teacher .* different tokens"):
        run(TINYBERT, encoder=encoder)


def test_the_same_pieces_under_other_numbers_are_the_same_tokens() -> None:
    class Vocabulary:
        def __init__(self, *pieces: str) -> None:
            self.pieces = pieces

        def get_vocab(self) -> dict[str, int]:
            return {piece: number for number, piece in enumerate(self.pieces)}

    def tokens(*numbers: int) -> Tokens:
        return Tokens(np.asarray(numbers, dtype=np.int32), np.asarray([0, 2, len(numbers)]), 0)

    teacher, trimmed = Vocabulary("[PAD]", "gain", "loss", "rare"), Vocabulary("[PAD]", "loss", "gain")
    check_same_tokens(trimmed, tokens(2, 1, 2), teacher, tokens(1, 2, 1), "student", "teacher")
    for ours, theirs in ((tokens(2, 1, 2), tokens(2, 1, 2)), (tokens(2, 1, 2), tokens(1, 2)), (tokens(2, 1, 0), tokens(1, 2, 3))):
        with pytest.raises(UserError, match=r"student \(3 pieces\) and its teacher teacher \(4\)"):
            check_same_tokens(trimmed, ours, teacher, theirs, "student", "teacher")


def test_a_teacher_without_a_logit_for_each_label_is_refused(run, encoder, trainer, labels, corpus, tmp_path: Path) -> None:
    from findistill.training.config import Distill

    scalar = Distill(objective="reg", target="scalar")
    fit(encoder, scalar, labels, corpus.train, corpus.validation, Session(trainer, tmp_path / "scalar"))
    with pytest.raises(UserError, match="a scalar head has none"):
        run(teacher=tmp_path / "scalar")
    with pytest.raises(UserError, match=r"cache_gb=1e-06"):
        run(replace(LOGIT, cache_gb=1e-6, terms={"kl": 1.0, "hidden": 1.0}))
    assert open_trained(tmp_path / "scalar")[0].config.num_labels == 1


class Margin(LogitsTerm):
    """A user-defined term on logits, with a setting."""

    def __init__(self, weight: float = 1.0, power: float = 2.0) -> None:
        super().__init__(weight)
        self.power = power

    def compare(self, student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        return (student - teacher).abs().pow(self.power).mean()


class Values(LayerMapTerm):
    """A user-defined term on layers, with a trained projection."""

    kind = "value"

    def setup(self, pair: Pair) -> None:
        super().setup(pair)
        self.up = torch.nn.Linear(pair.student.width, pair.teacher.width)

    def compare(self, student: torch.Tensor, teacher: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return (self.up(student) - teacher).square().mean()


def test_terms_of_ones_own(run, tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINDISTILL_ALLOW", __name__.partition(".")[0])
    encoder = Encoder(name="narrow", model=str(narrow(tmp_path, tiny)), epochs=1, batch_size=8, learning_rate=3e-3, max_length=16)
    mine = {
        "margin": {"_target_": f"{__name__}.Margin", "weight": 0.5, "power": 1.5},
        "relate": {"_target_": f"{__name__}.Values", "weight": 2.0},
    }
    ends = []
    monkeypatch.setattr(Distiller, "on_train_end", lambda self: ends.append((self, dict(self.trainer.callback_metrics))))
    before = torch.nn.Linear.reset_parameters
    starts = []
    monkeypatch.setattr(
        torch.nn.Linear, "reset_parameters", lambda self: (before(self), starts.append((self, self.weight.detach().clone())))
    )
    history = run(TeacherDistill(objective="mine", terms=mine), encoder=encoder).history
    assert history[-1]["train/margin"] > 0 and history[-1]["train/relate"] > 0
    [(module, logged)] = ends
    assert logged["train/margin/weighted"] == pytest.approx(0.5 * logged["train/margin"])
    assert logged["train/relate/weighted"] == pytest.approx(2 * logged["train/relate"])
    assert logged["train/loss"] == pytest.approx(logged["train/margin/weighted"] + logged["train/relate/weighted"])
    up = module.terms.terms["relate"].up
    start = next(weight for layer, weight in starts if layer is up)
    assert not torch.equal(up.weight, start) and "terms.terms.relate.up.weight" in module.state_dict()
    staged = run(
        TeacherDistill(objective="mine", terms=mine, intermediate=Intermediate(epochs=1)), encoder=encoder, name="staged"
    )
    assert [set(row) & {"train/margin", "train/relate"} for row in staged.history] == [{"train/relate"}, {"train/margin"}]
    with pytest.raises(UserError, match=r"none belongs to the prediction stage"):
        layers = {"relate": mine["relate"]}
        run(TeacherDistill(objective="mine", terms=layers, intermediate=Intermediate(epochs=1)), encoder=encoder, name="refused")


def test_a_teachers_own_words_are_matched_or_mapped() -> None:
    names = ("negative", "neutral", "positive")
    assert matched(names, ("Bullish", "Neutral", "Bearish"), "t") == [2, 1, 0]
    assert matched(names, ("up", "neutral", "down", "mixed"), "t", ["positive", "neutral", "negative", None]) == [2, 1, 0]
    for labels, label_map, message in (
        (("LABEL_0", "LABEL_1", "LABEL_2"), None, r"does not name its labels.*\n.*'distill.label_map=\{LABEL_0: negative, "),
        (("up", "neutral", "down"), None, r"lacks negative, positive .*\n.*'distill.label_map="),
        (("negative", "positive"), None, "has 2 outputs"),
        (("a", "b", "c"), ["negative", "neutral", "neutral"], "assigns 2 outputs of t to neutral"),
    ):
        with pytest.raises(UserError, match=message):
            matched(names, labels, "t", label_map)
