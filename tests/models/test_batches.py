from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from findistill.models import tokens
from findistill.models.batches import LengthGroupedBatches, length_grouped, pad
from findistill.models.tokens import sorted_batches, tokenise
from findistill.models.weights import locate

TEXTS = ["Profit rose.", "The board proposes no dividend for the year", "", "Sales fell"]


@pytest.fixture(scope="module")
def tokenizer() -> Iterator[object]:
    yield AutoTokenizer.from_pretrained(locate("embedded:minilm_l6"))


@settings(max_examples=25, deadline=None)
@given(texts=st.lists(st.text(max_size=60), min_size=1, max_size=8), max_length=st.integers(3, 20))
def test_padded_batches_equal_the_tokenizers_own(tokenizer, texts: list[str], max_length: int) -> None:
    own = tokenizer(texts, truncation=True, max_length=max_length, padding=True, return_tensors="pt")
    ours = pad(tokenise(tokenizer, texts, max_length), range(len(texts)))
    assert ours["input_ids"].tolist() == own["input_ids"].tolist()
    assert ours["attention_mask"].tolist() == own["attention_mask"].tolist()


def test_cache_is_keyed_by_texts_and_length(tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = tokenise(tokenizer, TEXTS, 12, tmp_path)
    tokenise(tokenizer, TEXTS, 6, tmp_path)
    tokenise(tokenizer, TEXTS[:3], 12, tmp_path)
    assert len(list(tmp_path.iterdir())) == 3
    tokenizer("a longer padded call", padding="max_length", max_length=30, truncation=True)  # changes the tokenizer's state
    monkeypatch.setattr(tokens, "_pack", lambda *_: pytest.fail("tokenised again"))
    again = tokenise(tokenizer, TEXTS, 12, tmp_path)
    assert isinstance(again.flat, np.memmap)
    assert all((a == b).all() for a, b in zip(first, again, strict=True))  # type: ignore[call-overload]


@pytest.mark.parametrize("kind", ["empty", "half", "zeros"])
def test_a_damaged_cache_is_made_again(tokenizer, tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    texts = ["profit rose and fell", "sales fell", "no news"] * 20
    before = tokenise(tokenizer, texts, 16, tmp_path)
    flat = before.flat.copy()
    [path] = tmp_path.glob("*.npy")
    whole = path.read_bytes()
    half = len(whole) // 2
    path.write_bytes({"empty": b"", "half": whole[:half], "zeros": whole[:half] + bytes(len(whole) - half)}[kind])
    again = tokenise(tokenizer, texts, 16, tmp_path)
    assert np.array_equal(again.flat, flat) and path.read_bytes() == whole
    assert "is damaged; the texts are tokenised again" in caplog.text


def test_cache_key_keeps_text_borders(tokenizer, tmp_path: Path) -> None:
    tokenise(tokenizer, ["ab", "c"], 8, tmp_path)
    assert tokenise(tokenizer, ["a", "bc"], 8, tmp_path)[0].tolist() == tokenise(tokenizer, ["a", "bc"], 8)[0].tolist()


@given(st.lists(st.integers(1, 64), min_size=1, max_size=300), st.integers(1, 40), st.integers(0, 9))
def test_length_grouped_gives_every_row_once(lengths: list[int], batch_size: int, seed: int) -> None:
    batches = length_grouped(np.array(lengths), batch_size, np.random.default_rng(seed))
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
    assert sorted(map(len, batches), reverse=True)[:-1] == [batch_size] * (len(batches) - 1)


def test_length_grouping_saves_padding() -> None:
    lengths = np.random.default_rng(0).integers(5, 64, 1000)
    batches = length_grouped(lengths, 32, np.random.default_rng(0))
    padded = sum(lengths[batch].max() * len(batch) for batch in batches)
    assert padded < 1.05 * lengths.sum()


def test_epochs_differ_and_seeds_repeat() -> None:
    lengths = np.arange(100) % 7 + 1
    sampler, same = LengthGroupedBatches(lengths, 8, seed=3), LengthGroupedBatches(lengths, 8, seed=3)
    first = list(sampler)
    assert first == list(same) and len(first) == len(sampler) == 13
    sampler.set_epoch(1)
    assert list(sampler) != first


def test_processes_share_every_batch() -> None:
    lengths = np.arange(100) % 7 + 1
    ranks = [list(LengthGroupedBatches(lengths, 8, 0, rank, 2)) for rank in range(2)]
    whole = list(LengthGroupedBatches(lengths, 8, 0))
    assert len(ranks[0]) == len(ranks[1]) == len(whole) == 13
    for batch, *shares in zip(whole, *ranks, strict=True):
        assert sorted(row for share in shares for row in share) == sorted(batch), "each row once"


def test_a_batch_that_cannot_be_shared_evenly_is_filled_up() -> None:
    lengths = np.full(9, 5)
    ranks = [list(LengthGroupedBatches(lengths, 8, 0, rank, 4)) for rank in range(4)]
    sizes = [[len(batch) for batch in rank] for rank in ranks]
    assert all(sorted(rank) == [1, 2] for rank in sizes)
    assert {row for rank in ranks for batch in rank for row in batch} == set(range(9))


def test_sorted_batches_start_with_the_longest() -> None:
    assert sorted_batches(np.array([3, 9, 1, 5]), 3) == [[1, 3, 0], [2]]
