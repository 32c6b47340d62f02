"""A tokenizer.json loaded without transformers tokenises as in transformers."""

from collections.abc import Callable

import numpy as np
import pytest
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from findistill.inference.onnx_export import exported_tokenizer
from findistill.models.portable_tokenizer import PortableTokenizer
from findistill.models.special_tokens import SpecialTokens
from findistill.models.tokens import tokenise
from findistill.models.training_profile import added_tokens
from findistill.models.windows import windows
from tests.models.test_special_tokens import KINDS, forged

KINDS_OF_FILES = [kind for kind in KINDS if kind.__name__ != "whole_words"]  # its file does not say which words are special


@pytest.mark.parametrize("kind", KINDS_OF_FILES)
def test_it_reads_as_transformers_does(kind: Callable[[], PreTrainedTokenizerBase]) -> None:
    original = kind()
    alone = PortableTokenizer(Tokenizer.from_str(exported_tokenizer(original, 32).to_str()))
    texts = [*forged(original), "profit fell 😀 by 5 %", "", "profit " * 50]
    assert len(alone) == len(original) and alone.pad_token_id == original.pad_token_id
    assert SpecialTokens.of(alone).added == SpecialTokens.of(original).added
    for length in (8, 32, 8):
        ours, theirs = tokenise(alone, texts, length), tokenise(original, texts, length)
        assert ours.pad_id == theirs.pad_id and [row.tolist() for row in ours] == [row.tolist() for row in theirs]
    ours, theirs = windows(alone, texts, 12), windows(original, texts, 12)
    assert ours.words == theirs.words and np.array_equal(ours.tokens.flat, theirs.tokens.flat)
    assert all(map(np.array_equal, ours.place, theirs.place))
    special = set(original.all_special_ids) - {original.unk_token_id}
    assert special - {original.mask_token_id} <= set(added_tokens(alone))


def test_a_text_alone_is_read_as_one_of_several() -> None:
    alone = PortableTokenizer(Tokenizer.from_str(exported_tokenizer(KINDS[0](), 32).to_str()))
    options = {"return_special_tokens_mask": True, "return_offsets_mapping": True}
    single, several = alone("profit fell", **options), alone(["profit fell", "x"], **options)
    assert single == {name: rows[0] for name, rows in several.items()} and single["special_tokens_mask"] == [1, 0, 0, 1]
