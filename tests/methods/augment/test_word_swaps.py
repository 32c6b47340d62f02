"""Word-level augmentation: which words change, into which, and that nothing else does."""

import re
from pathlib import Path

import pytest

from findistill.errors import UserError
from findistill.methods.augment.word_swaps import WordSwaps

TEXT = "Quarterly profit at the Harbour bakery was not above 12.5% of EUR 900 in ASIA, its owner said"


@pytest.fixture(scope="module")
def vectors() -> WordSwaps:
    return WordSwaps(None, 0.4, 15)


@pytest.fixture(scope="module")
def guesser(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A masked language model that always predicts the words `gain` and `loss`, and a subword."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertForMaskedLM

    from findistill.models.weights import locate

    folder = tmp_path_factory.mktemp("guesser")
    tokenizer = AutoTokenizer.from_pretrained(locate("embedded:minilm_l6"))
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    model = BertForMaskedLM(BertConfig(**size, max_position_embeddings=128))
    with torch.no_grad():
        for name in ("gain", "loss", "##ly"):
            model.cls.predictions.bias[tokenizer.convert_tokens_to_ids(name)] = 100.0
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def replaced(swaps: WordSwaps, text: str, copies: int = 40) -> list[tuple[str, str]]:
    """The (old, new) pairs of words that differ, over many copies; the rest of each copy must be unchanged."""
    changes = []
    for copy in swaps.copies([("a", text)], copies, 0)[0]:
        old, new = (re.findall(r"[A-Za-z]+|[^A-Za-z]+", each) for each in (text, copy))
        assert len(old) == len(new)
        changes += [(one, other) for one, other in zip(old, new, strict=True) if one != other]
    return changes


def test_only_words_of_content_change_and_keep_their_capital(vectors: WordSwaps) -> None:
    changes = replaced(vectors, TEXT)
    assert {old for old, _ in changes} == {"Quarterly", "profit", "Harbour", "bakery", "owner", "said"}
    assert all(old[0].isupper() == new[0].isupper() for old, new in changes)
    share = len(changes) / (40 * 6)
    assert 0.3 < share < 0.5
    assert all(len({new for one, new in changes if one == old}) > 3 for old in ("profit", "bakery"))


def test_similar_vectors_are_similar_words(vectors: WordSwaps) -> None:
    assert {"profits", "revenue", "earnings"} <= {new for old, new in replaced(vectors, "the profit", 300)}


def test_a_copy_depends_on_its_text_id_seed_and_number_alone(vectors: WordSwaps) -> None:
    pair = [("a", TEXT), ("b", "Sales of boats doubled")]
    both = vectors.copies(pair, 3, 7)
    assert both[::-1] == vectors.copies(pair[::-1], 3, 7)
    assert both[0] == [*vectors.copies(pair[:1], 2, 7)[0], both[0][2]]
    assert both[0] != vectors.copies(pair, 3, 8)[0]
    assert vectors.copies([("c", "")], 2, 0) == [["", ""]]


def test_a_masked_language_model_guesses_words_of_one_piece(guesser: Path) -> None:
    changes = replaced(WordSwaps(str(guesser), 0.9, 3), "the bakery and its Zyxometer")
    assert {new for old, new in changes if old == "bakery"} == {"gain", "loss"}
    assert {new for old, new in changes if old == "Zyxometer"} - {"Gain", "Loss"}  # by its vector


def test_mistakes(tiny: Path) -> None:
    with pytest.raises(UserError, match="no trained head"):
        WordSwaps(str(tiny), 0.4, 15)
    with pytest.raises(UserError, match="cannot be loaded"):
        WordSwaps("no/such-model", 0.4, 15)
