"""Word-level augmentation, which needs no LLM (TinyBERT, Jiao et al. 2020, section 4.1, Algorithm 1).

A word that is a single token is replaced by a prediction of a masked language model, a word of several tokens by a word with
a similar vector. The vectors are the model's own input embeddings (the paper uses GloVe). A model without a masked-language
head, such as the embedded MiniLM, uses the vectors for all words.
"""

import logging
import random
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS
from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer, PreTrainedTokenizerBase

from findistill.core.hardware import device
from findistill.core.progress import ProgressMeter
from findistill.data.neighbours import nearest
from findistill.errors import UserError
from findistill.models.special_tokens import SpecialTokens, spaced
from findistill.models.weights import NO_CODE, locate, quiet

log = logging.getLogger(__name__)

WORD = re.compile(r"[A-Za-z]{3,}")
MASKED_AT_ONCE = 64  # texts with one masked word per forward pass


class WordSwaps:
    """Replaces words of texts.

    Args:
        masked_lm: a folder or hub id of a masked language model; None: only the embedded MiniLM's vectors.
        replace: the probability that a word is replaced (p_t of Algorithm 1).
        candidates: number of candidates for each replacement (K).

    Raises:
        UserError: the model cannot be loaded, or is not a masked language model.
    """

    def __init__(self, masked_lm: str | None, replace: float, candidates: int) -> None:
        self.replace, self.candidates, self.masked_lm = replace, candidates, masked_lm
        where = locate(masked_lm or "embedded:minilm_l6")
        try:
            with quiet():
                self.tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(where, **NO_CODE)
                if masked_lm:
                    self.model, info = AutoModelForMaskedLM.from_pretrained(where, output_loading_info=True, **NO_CODE)
                    lacking = [name for name in info["missing_keys"] if "bias" not in name]
                else:
                    self.model, lacking = AutoModel.from_pretrained(where, **NO_CODE), []
        except (OSError, ValueError) as error:
            raise UserError(f"augment.masked_lm={masked_lm} cannot be loaded: {str(error).splitlines()[0]}") from error
        if lacking or (masked_lm and self.tokenizer.mask_token is None):
            raise UserError(
                f"augment.masked_lm={masked_lm} is not a masked language model: it has no trained head for masked words.\n"
                "Use one, such as google-bert/bert-base-uncased, or remove the setting to replace words by similar word vectors."
            )
        self.model.eval().to(device())
        self._neighbours: dict[str, list[str]] = {}
        self._table = self.model.get_input_embeddings().weight.detach().float().cpu().numpy()
        self._whole = self._whole_words()

    def copies(self, texts: Sequence[tuple[str, str]], number: int, seed: int) -> list[list[str]]:
        """`number` copies of each text with words replaced; a copy may equal its text.

        Args:
            texts: id and text of each. A copy depends only on these, `seed` and its number.
        """
        self._note_neighbours({word[0].lower() for _, text in texts for word in self._words(text)})
        copies = []
        for text_id, text in ProgressMeter(texts, desc="words", unit="text"):
            options = self._options(text)
            copies.append([self._copy(text, options, random.Random(f"{seed}\0{text_id}\0{copy}")) for copy in range(number)])
        return copies

    def _words(self, text: str) -> list[re.Match[str]]:
        """The words that may be replaced. Stop words are kept: they include most negations and directions."""
        return [word for word in WORD.finditer(text) if word[0].lower() not in ENGLISH_STOP_WORDS and not word[0].isupper()]

    def _copy(self, text: str, options: Sequence[tuple[int, int, list[str]]], draw: random.Random) -> str:
        parts, end = [], 0
        for start, stop, candidates in options:
            if draw.random() < self.replace:
                word, old = draw.choice(candidates), text[start:stop]
                parts += [text[end:start], word.capitalize() if old[0].isupper() else word]
                end = stop
        return "".join([*parts, text[end:]])

    def _options(self, text: str) -> list[tuple[int, int, list[str]]]:
        """Start, end and candidates of every word that has candidates."""
        words = self._words(text)
        predicted = self._predict(text) if self.masked_lm else {}
        every = [(*word.span(), predicted.get(at, self._neighbours[word[0].lower()])) for at, word in enumerate(words)]
        return [option for option in every if option[2]]

    # -- vectors -----------------------------------------------------------------------------------------------------

    def _whole_words(self) -> tuple[list[str], np.ndarray]:
        """The vocabulary's whole words, lower case, and their unit vectors (words, d)."""
        marked = self.tokenizer.convert_ids_to_tokens(range(len(self.tokenizer)))
        begins = any(name.startswith("Ġ") for name in marked)  # byte-level vocabularies mark the start of a word
        words: dict[str, int] = {}
        for number, name in enumerate(marked):
            bare = name.lstrip("Ġ")
            if WORD.fullmatch(bare) and name.startswith("Ġ") == begins and bare.lower() not in ENGLISH_STOP_WORDS:
                words.setdefault(bare.lower(), number)
        return list(words), _unit(self._table[list(words.values())])

    def _note_neighbours(self, words: set[str]) -> None:
        """Store the nearest whole words of each word; the vector of a word of several tokens is their mean."""
        new = sorted(words - self._neighbours.keys())
        if not new:
            return
        names, vectors = self._whole
        pieces = self.tokenizer([f" {word}" for word in new], add_special_tokens=False).input_ids
        queries = _unit(np.stack([self._table[ids].mean(axis=0) for ids in pieces]))
        indexes, _ = nearest(queries, vectors, self.candidates + 1)
        for word, row in zip(new, indexes, strict=True):
            self._neighbours[word] = [names[i] for i in row if names[i] != word][: self.candidates]

    # -- masked prediction -------------------------------------------------------------------------------------------

    @torch.inference_mode()
    def _predict(self, text: str) -> dict[int, list[str]]:
        """For each single-token word, the model's replacements, given the masked text followed by the original text."""
        text = spaced(text, SpecialTokens.of(self.tokenizer).marks)  # the only mask is ours
        words = self._words(text)
        pieces = self.tokenizer([f" {word[0]}" for word in words], add_special_tokens=False).input_ids if words else []
        single = [number for number, ids in enumerate(pieces) if len(ids) == 1]
        mask, limit = self.tokenizer.mask_token, getattr(self.model.config, "max_position_embeddings", 512) - 2
        predicted = {}
        for start in range(0, len(single), MASKED_AT_ONCE):
            batch = single[start : start + MASKED_AT_ONCE]
            masked = [text[: words[i].start()] + mask + text[words[i].end() :] for i in batch]
            inputs: Any = self.tokenizer(
                masked, [text] * len(batch), truncation=True, max_length=limit, padding=True, return_tensors="pt"
            ).to(self.model.device)
            logits = self.model(**inputs).logits
            for row, number in enumerate(batch):
                places = (inputs.input_ids[row] == self.tokenizer.mask_token_id).nonzero()
                if len(places):  # else truncated
                    predicted[number] = self._whole_names(logits[row, places[0, 0]], words[number][0])
        return predicted

    def _whole_names(self, scores: torch.Tensor, old: str) -> list[str]:
        """The most likely whole words other than the old one, among the top K tokens (empty: the old word is kept)."""
        names = self.tokenizer.convert_ids_to_tokens(scores.topk(min(self.candidates, len(scores))).indices.tolist())
        words = [name.lstrip("Ġ").lower() for name in names if not name.startswith("##")]
        return [word for word in words if WORD.fullmatch(word) and word != old.lower()]


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(min=1e-9)
