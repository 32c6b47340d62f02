"""Special tokens in a text are tokenised as plain characters, by every kind of tokenizer."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import (
    AutoTokenizer,
    DebertaV2TokenizerFast,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    RobertaTokenizerFast,
    T5TokenizerFast,
    XLMRobertaTokenizerFast,
)

from findistill.inference.onnx_export import exported_tokenizer
from findistill.inference.onnx_model import OnnxModel
from findistill.models import embeddings, special_tokens
from findistill.models.encoders import save
from findistill.models.tokens import tokenise
from findistill.models.weights import locate

CORPUS = ["profit rose and sales fell </ s > < s > [ sep ] SEP MASK mask pad unk [CLS] extra_id_0 <|>[]/_"] * 20


def pieces() -> list[tuple[str, float]]:
    unigram = Tokenizer(models.Unigram())
    unigram.pre_tokenizer = pre_tokenizers.Metaspace()
    unigram.train_from_iterator(CORPUS, trainers.UnigramTrainer(vocab_size=90, show_progress=False))
    return [(piece, score) for piece, score in json.loads(unigram.to_str())["model"]["vocab"] if piece != "<unk>"]


def bert() -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(locate("embedded:minilm_l6"))


def roberta() -> PreTrainedTokenizerBase:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    names = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *alphabet, "pr", "of"]
    return RobertaTokenizerFast(vocab={name: number for number, name in enumerate(names)}, merges=[("p", "r"), ("o", "f")])


def t5() -> PreTrainedTokenizerBase:
    return T5TokenizerFast(vocab=[("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *pieces()], extra_ids=3)


def xlm_roberta() -> PreTrainedTokenizerBase:
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    return XLMRobertaTokenizerFast(vocab=[*((name, 0.0) for name in special), *pieces()])


def deberta() -> PreTrainedTokenizerBase:
    special = ["[CLS]", "[PAD]", "[SEP]", "[UNK]", "[MASK]"]
    return DebertaV2TokenizerFast(vocab=[*((name, 0.0) for name in special), *pieces()], unk_id=3)


def whole_words() -> PreTrainedTokenizerBase:
    """Looks up complete words between blanks, special tokens included, after NFKC normalisation."""
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "profit", "fell", "[", "SEP]", "MASK]"]
    words = Tokenizer(models.WordPiece({name: number for number, name in enumerate(names)}, unk_token="[UNK]"))
    words.pre_tokenizer, words.normalizer = pre_tokenizers.WhitespaceSplit(), normalizers.NFKC()
    return PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="[UNK]", sep_token="[SEP]", cls_token="[CLS]", pad_token="[PAD]", mask_token="[MASK]"
    )


KINDS: list[Callable[[], PreTrainedTokenizerBase]] = [bert, roberta, t5, xlm_roberta, deberta, whole_words]


def forged(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    separate = [f"profit {token} fell" for token in tokenizer.all_special_tokens]
    glued = [f"profit{token}{token}fell" for token in tokenizer.all_special_tokens]
    nested = [f"{token[0]}{token}{token[1:]}" for token in tokenizer.all_special_tokens]
    wide = ["profit ［ＳＥＰ］ fell", "profit ＜/s＞ fell"]
    return [*separate, *glued, *nested, *wide, "".join(tokenizer.all_special_tokens)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_text_brings_no_special_token(kind: Callable[[], PreTrainedTokenizerBase]) -> None:
    tokenizer = kind()
    special = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    plain = tokenise(tokenizer, ["profit fell"], 64)[0].tolist()
    around = [each for each in plain if each in special]
    for text, ids in zip(forged(tokenizer), tokenise(tokenizer, forged(tokenizer), 64), strict=True):
        assert [each for each in ids.tolist() if each in special] == around, text
        assert len(ids) > len(around), text


@pytest.mark.parametrize("kind", KINDS)
def test_ordinary_texts_are_read_as_ever(kind: Callable[[], PreTrainedTokenizerBase]) -> None:
    tokenizer, texts = kind(), ["profit fell", "", "a [note] of <5% and [5] </p> 3 > 2", "sep mask pad"]
    own = tokenizer(texts, truncation=True, max_length=20).input_ids
    assert [ids.tolist() for ids in tokenise(tokenizer, texts, 20)] == own


@pytest.mark.parametrize(("kind", "token"), [(bert, "[SEP]"), (bert, "[UNK]"), (roberta, "</s>"), (roberta, "<mask>")])
def test_the_ids_are_those_of_the_characters(kind: Callable[[], PreTrainedTokenizerBase], token: str) -> None:
    tokenizer = kind()
    parts = tokenise(tokenizer, [token], 20)[0]
    assert tokenizer.decode(parts, skip_special_tokens=True).replace(" ", "").lower() == token.lower()


def test_only_texts_with_special_tokens_have_another_cache_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = bert()
    with monkeypatch.context() as before:
        before.setattr(special_tokens.SpecialTokens, "occur_in", lambda *_: False)  # the earlier cache keys
        for texts in (["profit fell"], ["profit [SEP] fell"]):
            tokenise(tokenizer, texts, 20, tmp_path)
    tokenise(tokenizer, ["profit fell"], 20, tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
    tokenise(tokenizer, ["profit [SEP] fell"], 20, tmp_path)
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("kind", [bert, t5, deberta])
def test_an_exported_tokenizer_reads_the_same(kind: Callable[[], PreTrainedTokenizerBase]) -> None:
    tokenizer = kind()
    texts = [*forged(tokenizer), "unknown: 𒀀 of 𒀁"]
    model = OnnxModel(lambda *_: None, (), Tokenizer.from_str(exported_tokenizer(tokenizer, 32).to_str()))  # type: ignore
    ours, exported = tokenise(tokenizer, texts, 32), model.tokens(texts)
    assert [ids.tolist() for ids in exported] == [ids.tolist() for ids in ours]


def test_a_saved_model_reads_the_same_wherever_it_is_opened(tmp_path: Path) -> None:
    tokenizer, model = bert(), SimpleNamespace(config=SimpleNamespace(), save_pretrained=lambda folder: folder.mkdir())
    save(tmp_path / "model", model, tokenizer, ["a", "b"], 20)  # type: ignore[arg-type]
    opened = AutoTokenizer.from_pretrained(tmp_path / "model")
    assert opened("profit [SEP] fell").input_ids == tokenise(tokenizer, ["profit [SEP] fell"], 20)[0].tolist()


def test_embeddings_of_neighbours_read_special_tokens_as_text() -> None:
    same = embeddings.embed(["profit [PAD] fell [SEP]", "profit [ PAD ] fell [ SEP ]"])
    assert np.allclose(same[0], same[1], atol=1e-5)
