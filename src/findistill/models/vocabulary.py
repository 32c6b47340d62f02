"""Trimming a vocabulary to a corpus: a word-piece table is most of a small model, and most of it is never used.

Word pieces are matched longest first, so a text whose pieces are all kept is split as before, and a model that keeps their
embedding rows predicts the same. Any other text falls back to shorter pieces: all single characters are kept.
"""

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from findistill.errors import UserError
from findistill.models.tokens import tokenise


def trim(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_length: int
) -> PreTrainedTokenizerBase:
    """Trim `model`'s embedding table, in place, to the pieces in the first `max_length` tokens of `texts`; return its tokenizer.

    Special tokens and single characters, alone or inside a word, are kept too. Raises UserError for a tokenizer that is
    not made of word pieces.
    """
    used = np.unique(tokenise(tokenizer, texts, max_length).flat)
    state = pieces(tokenizer)
    vocabulary, prefix = state["model"]["vocab"], state["model"]["continuing_subword_prefix"]
    special = {token["content"] for token in state["added_tokens"]} | {state["model"]["unk_token"]}
    piece_ids = sorted(set(used.tolist()) | {i for piece, i in vocabulary.items() if _stays(piece, prefix) or piece in special})
    number = {old: new for new, old in enumerate(piece_ids)}
    state["model"]["vocab"] = {piece: number[i] for piece, i in vocabulary.items() if i in number}
    for token in state["added_tokens"]:
        token["id"] = number[token["id"]]
    _renumber(state["post_processor"], number)
    trimmed = _rebuilt(tokenizer, state)
    _cut(model, piece_ids, trimmed.pad_token_id)
    return trimmed


def pieces(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """A word-piece tokenizer as JSON. Raises UserError for another kind."""
    state = json.loads(tokenizer.backend_tokenizer.to_str()) if tokenizer.is_fast else {"model": {"type": "slow"}}
    if state["model"]["type"] != "WordPiece":
        raise UserError(
            "trim_vocabulary and pretrain.source need a tokenizer of word pieces, such as BERT's;"
            f" this one is {state['model']['type']}. Leave them off."
        )
    state["padding"] = state["truncation"] = None  # of the last call
    return state


def _stays(piece: str, prefix: str) -> bool:
    return len(piece) <= 1 or (piece.startswith(prefix) and len(piece) <= len(prefix) + 1)


def _renumber(processor: dict[str, Any], number: dict[int, int]) -> None:
    """Renumber [CLS] and [SEP] in a post-processor, in either of the forms that BERT tokenizers have."""
    if processor["type"] == "TemplateProcessing":
        for token in processor["special_tokens"].values():
            token["ids"] = [number[i] for i in token["ids"]]
    else:  # BertProcessing
        for name in ("sep", "cls"):
            processor[name][1] = number[processor[name][1]]


def _rebuilt(tokenizer: PreTrainedTokenizerBase, state: dict[str, Any]) -> PreTrainedTokenizerBase:
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        Path(folder, "vocab.txt").unlink(missing_ok=True)
        Path(folder, "tokenizer.json").write_text(json.dumps(state, ensure_ascii=False), encoding="utf-8")
        return AutoTokenizer.from_pretrained(folder)


@torch.no_grad()
def _cut(model: PreTrainedModel, piece_ids: list[int], pad: int | None) -> None:
    table = model.get_input_embeddings().weight
    smaller = nn.Embedding(len(piece_ids), table.shape[1], padding_idx=pad, dtype=table.dtype)
    smaller.weight.copy_(table[piece_ids])
    model.set_input_embeddings(smaller)
    model.config.vocab_size, model.config.pad_token_id = len(piece_ids), pad
