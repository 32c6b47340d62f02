from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import BertConfig, BertForSequenceClassification

from findistill.core.store import Store
from findistill.errors import UserError
from findistill.models.batches import pad
from findistill.models.features import Anatomy, read
from findistill.models.tokens import Tokens
from findistill.training import teacher_outputs as teacher_cache
from findistill.training.teacher_outputs import TeacherOutputs, fingerprint, obtain, size

WANTED = ["logits", "hidden/0", "hidden/2", "scores/1", "query/2", "key/2", "value/1"]


@pytest.fixture
def teacher() -> BertForSequenceClassification:
    return bert(0)


def bert(seed: int) -> BertForSequenceClassification:
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=50, hidden_size=12, num_hidden_layers=2, num_attention_heads=3, intermediate_size=16,
        max_position_embeddings=32, num_labels=3, initializer_range=0.5,
    )  # fmt: skip
    return BertForSequenceClassification(config).eval()


def tokens_of(lengths: list[int], seed: int = 0) -> Tokens:
    flat = np.random.default_rng(seed).integers(1, 50, sum(lengths)).astype(np.int32)
    return Tokens(flat, np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64), 0)


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The names of the arrays written by each pass of a teacher, in order."""
    texts: list[list[str]] = []
    write = teacher_cache._write
    monkeypatch.setattr(teacher_cache, "_write", lambda *arguments: texts.append(list(arguments[3])) or write(*arguments))
    return texts


def get(root: Path, model, tokens: Tokens, names: list[str], limit_gb: float = 1.0, dtype: str = "float32") -> TeacherOutputs:
    def artifact(kind, key, make):
        return Store(root).get(kind, key, make)

    return obtain(
        model, Anatomy.of(model, "bert"), tokens, names,
        artifact=artifact, root=root, limit_gb=limit_gb, dtype=dtype, device=torch.device("cpu"),
    )  # fmt: skip


@settings(max_examples=8, deadline=None)
@given(lengths=st.lists(st.integers(1, 12), min_size=1, max_size=9), data=st.data())
def test_what_is_read_back_is_what_the_teacher_says(tmp_path_factory: pytest.TempPathFactory, lengths: list[int], data) -> None:
    teacher, tokens = bert(0), tokens_of(lengths)
    chunk = data.draw(st.integers(1, 4))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(teacher_cache, "CHUNK", chunk)
        patch.setattr(teacher_cache, "BATCH", 2)
        outputs = get(tmp_path_factory.mktemp("store"), teacher, tokens, WANTED)
    rows = data.draw(st.lists(st.integers(0, len(lengths) - 1), min_size=1, max_size=4, unique=True))
    with torch.inference_mode():
        expected = read(teacher, pad(tokens, rows), WANTED)
    for name, value in outputs.rows(rows, WANTED).items():
        assert value.shape == expected[name].shape
        torch.testing.assert_close(value, expected[name], rtol=1e-5, atol=1e-5)


def test_no_array_is_made_twice(tmp_path: Path, teacher, passes) -> None:
    tokens = tokens_of([4, 7, 3])
    get(tmp_path, teacher, tokens, ["logits", "hidden/0"])
    get(tmp_path, teacher, tokens, ["hidden/0", "logits"])
    get(tmp_path, bert(0), tokens, ["logits"])  # the same weights are the same teacher, whatever their origin
    assert passes == [["hidden/0", "logits"]]
    get(tmp_path, teacher, tokens, ["logits", "hidden/0", "hidden/2", "scores/1"])
    assert passes[1:] == [["hidden/2", "scores/1"]]
    get(tmp_path, bert(1), tokens, ["logits"])
    get(tmp_path, teacher, tokens_of([4, 7, 3], seed=1), ["logits"])
    get(tmp_path, teacher, tokens_of([4, 3, 7]), ["logits"])
    get(tmp_path, teacher, tokens, ["logits"], dtype="float16")
    assert passes[2:] == [["logits"]] * 4


def test_the_size_is_said_and_bounded_before_anything_is_made(
    tmp_path: Path, teacher, passes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tokens = tokens_of([4, 7, 3])
    needed = size(tokens, WANTED, Anatomy.of(teacher, "bert"), 3, "float16")
    with pytest.raises(UserError, match=r"distill\.cache_gb=1e-09.*3 texts, 14 tokens"):
        get(tmp_path, teacher, tokens, WANTED, limit_gb=1e-9, dtype="float16")
    usage = namedtuple("usage", "total used free")
    with monkeypatch.context() as patch:
        patch.setattr("shutil.disk_usage", lambda path: usage(10, 9, needed - 1))
        with pytest.raises(UserError, match="Free some space"):
            get(tmp_path, teacher, tokens, WANTED, dtype="float16")
    assert not passes and not list(tmp_path.iterdir())
    with caplog.at_level("INFO", logger="findistill"):
        get(tmp_path, teacher, tokens, WANTED, limit_gb=needed / 1e9, dtype="float16")
    assert "for 3 texts, 14 tokens" in caplog.text
    assert sum(path.stat().st_size for path in tmp_path.rglob("*.bin")) == needed
    with pytest.raises(UserError, match="need"):  # together with what is stored, it would exceed the limit
        get(tmp_path, teacher, tokens, ["hidden/1"], limit_gb=needed / 1e9, dtype="float16")


def test_a_damaged_file_is_made_again(tmp_path: Path, teacher, caplog: pytest.LogCaptureFixture) -> None:
    tokens = tokens_of([4, 7, 3])
    get(tmp_path, teacher, tokens, ["logits", "hidden/1"])
    [path] = tmp_path.rglob("hidden_1.bin")
    whole = path.read_bytes()
    path.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
    get(tmp_path, teacher, tokens, ["hidden/1"])
    assert path.read_bytes() == whole and "hidden_1.bin has changed or is missing" in caplog.text


def test_what_float16_cannot_hold_is_refused(tmp_path: Path, teacher) -> None:
    with torch.no_grad():
        teacher.bert.encoder.layer[0].output.LayerNorm.weight.mul_(1e6)
    tokens = tokens_of([4, 7, 3])
    with pytest.raises(UserError, match=r"cache_dtype=float16: the teacher's hidden/1 goes up to .* use float32"):
        get(tmp_path, teacher, tokens, ["hidden/1"], dtype="float16")
    assert not list(tmp_path.glob("outputs-*[!k]"))  # nothing but the lock
    assert get(tmp_path, teacher, tokens, ["hidden/1"]).rows([0], ["hidden/1"])["hidden/1"].abs().max() > 65504


def test_the_fingerprint_is_of_weights_and_labels(teacher) -> None:
    assert fingerprint(teacher) == fingerprint(bert(0)) != fingerprint(bert(1))
    before = fingerprint(teacher)
    teacher.config.id2label = {0: "positive", 1: "negative", 2: "neutral"}
    assert fingerprint(teacher) != before
