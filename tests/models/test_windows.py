"""Texts in windows of tokens: every word is predicted exactly once, with its own characters, whatever the text."""

import unicodedata
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoTokenizer

from findistill.data.spans import pieces
from findistill.errors import UserError
from findistill.models.windows import cuts, windows

TEXTS = [
    "Acme-led bid for Beta & Co., says AT&T",
    "",
    "🚀🚀 Ünïted Gróup up 3%",
    "a [SEP] b [CLS] Acme",
    " ".join(f"word{n}" for n in range(60)),
]


def unaccented(text: str) -> str:
    return "".join(each for each in unicodedata.normalize("NFD", text.lower()) if not unicodedata.combining(each))


@pytest.fixture(scope="module")
def tokenizer(tiny: Path) -> AutoTokenizer:
    return AutoTokenizer.from_pretrained(tiny)


@pytest.mark.parametrize("max_length", [8, 9, 16, 200])
def test_each_word_is_decided_about_once_and_read_from_its_first_token(tokenizer: AutoTokenizer, max_length: int) -> None:
    cut = windows(tokenizer, TEXTS, max_length)
    assert max(cut.tokens.lengths) <= max_length
    assert cut.words == [pieces(text) for text in TEXTS]
    assert [row.tolist() for row in cut.by_text(cut.word)] == [list(range(len(words))) for words in cut.words]
    special = {tokenizer.cls_token_id, tokenizer.sep_token_id}
    for window, (text, word, place) in enumerate(zip(cut.text, cut.word, cut.place, strict=True)):
        ids = cut.tokens[window]
        assert special.isdisjoint(ids[1:-1].tolist()) and {ids[0], ids[-1]} == special
        for number, at in zip(word, place, strict=True):
            start, end = cut.words[text][number]
            first = tokenizer.convert_ids_to_tokens(int(ids[at]))
            assert first == "[UNK]" or unaccented(TEXTS[text][start:end]).startswith(first)


def test_targets_stand_at_first_tokens_and_nowhere_else(tokenizer: AutoTokenizer) -> None:
    cut = windows(tokenizer, TEXTS[:1], 64)
    targets = cut.targets([np.arange(len(cut.words[0]))], -100)
    assert targets[targets >= 0].tolist() == list(range(len(cut.words[0]))) and targets[0] == targets[-1] == -100


@pytest.mark.parametrize(("length", "room"), [(1, 1), (5, 5), (6, 5), (100, 7), (9, 1), (10, 2), (0, 4)])
def test_windows_cover_a_sequence_and_share_it_out(length: int, room: int) -> None:
    result = cuts(length, room)
    assert [at for cut in result for at in range(cut.first, cut.last)] == list(range(length))
    assert all(cut.start <= cut.first <= cut.last <= cut.end <= length and cut.end - cut.start <= room for cut in result)


def test_a_tokenizer_without_offsets_is_refused() -> None:
    class Slow:
        is_fast = False

    with pytest.raises(UserError, match=r"Slow is written in Python.*tokenizer.json"):
        windows(Slow(), ["a"], 8)  # type: ignore[arg-type]
