"""Word-level augmentation, which needs no LLM (TinyBERT, Jiao et al. 2020, section 4.1, Algorithm 1).

A word that is one piece of the vocabulary is replaced by what a masked language model would put there, a word of several
pieces by words with a similar vector. The vectors are the model's own input embeddings, where the paper takes GloVe's. A
model without a masked-language head, as the embedded MiniLM is, leaves the vectors alone to choose.
"""

import logging
import random
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tqdm import tqdm

from findistill.errors import UserError
from findistill.runs.hardware import device
from findistill.runs.weights import locate, quiet

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)

WORD = re.compile(r"[A-Za-z]{3,}")
MASKED_AT_ONCE = 64  # texts with one word hidden in a forward pass


class WordSwaps:
    """Replaces words of texts.

    Args:
        masked_lm: a folder or hub id of a masked language model; None: the embedded MiniLM's vectors alone.
        replace: the probability that a word is replaced (p_t of Algorithm 1).
        candidates: how many words one is chosen from (K).

    Raises:
        UserError: the model cannot be loaded, or is no masked language model.
    """

    def __init__(self, masked_lm: str | None, replace: float, candidates: int) -> None:
        from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS
        from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer

        self.replace, self.candidates, self.stop_words = replace, candidates, ENGLISH_STOP_WORDS
        where = locate(masked_lm or "embedded:minilm_l6")
        try:
            with quiet():
                self.tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(where)
                if masked_lm:
                    self.model, told = AutoModelForMaskedLM.from_pretrained(where, output_loading_info=True)
                    lacking = [name for name in told["missing_keys"] if "bias" not in name]
                else:
                    self.model, lacking = AutoModel.from_pretrained(where), []
        except (OSError, ValueError) as error:
            raise UserError(f"augment.masked_lm={masked_lm} cannot be loaded: {str(error).splitlines()[0]}") from error
        if lacking or (masked_lm and self.tokenizer.mask_token is None):
            raise UserError(
                f"augment.masked_lm={masked_lm} is no masked language model: it has no trained head for masked words.\n"
                "Name one, such as google-bert/bert-base-uncased, or leave it out to replace words by those with similar vectors."
            )
        self.masked_lm = masked_lm
        self.model.eval().to(device())
        self._neighbours: dict[str, list[str]] = {}
        self._whole = self._whole_words()

    def copies(self, texts: Sequence[tuple[str, str]], number: int, seed: int) -> list[list[str]]:
        """`number` copies of each text with words replaced; a copy may come out as its text.

        Args:
            texts: id and text of each. A copy depends on these, `seed` and its number alone.
        """
        self._note_neighbours({word.lower() for _, text in texts for word in self._words(text)})
        made = []
        for text_id, text in tqdm(texts, desc="words", unit="text", disable=None, leave=False):
            options = self._options(text)
            made.append([self._copy(text, options, random.Random(f"{seed}\0{text_id}\0{copy}")) for copy in range(number)])
        return made

    def _words(self, text: str) -> list[str]:
        return [found[0] for found in self._found(text)]

    def _found(self, text: str) -> list[re.Match[str]]:
        """The words that may be replaced. Stop words stay: most negations and directions are among them."""
        return [found for found in WORD.finditer(text) if found[0].lower() not in self.stop_words and not found[0].isupper()]

    def _copy(self, text: str, options: Sequence[tuple[int, int, list[str]]], draw: random.Random) -> str:
        parts, end = [], 0
        for start, stop, candidates in options:
            if draw.random() < self.replace:
                word, old = draw.choice(candidates), text[start:stop]
                parts += [text[end:start], word.capitalize() if old[0].isupper() else word]
                end = stop
        return "".join([*parts, text[end:]])

    def _options(self, text: str) -> list[tuple[int, int, list[str]]]:
        """Start, end and candidates of every word that has any."""
        found = self._found(text)
        guessed = self._guessed(text, found) if self.masked_lm else {}
        options = []
        for number, match in enumerate(found):
            if candidates := guessed.get(number, self._neighbours[match[0].lower()]):
                options.append((*match.span(), candidates))
        return options

    # -- vectors -----------------------------------------------------------------------------------------------------

    def _whole_words(self) -> tuple[list[str], np.ndarray]:
        """The vocabulary's whole words, lower case, and their unit vectors (words, d)."""
        marked = self.tokenizer.convert_ids_to_tokens(range(len(self.tokenizer)))
        begins = any(name.startswith("Ġ") for name in marked)  # byte-level vocabularies mark the start of a word
        words: dict[str, int] = {}
        for number, name in enumerate(marked):
            bare = name.lstrip("Ġ")
            if WORD.fullmatch(bare) and name.startswith("Ġ") == begins and bare.lower() not in self.stop_words:
                words.setdefault(bare.lower(), number)
        return list(words), _unit(self._embeddings()[list(words.values())])

    def _embeddings(self) -> np.ndarray:
        return self.model.get_input_embeddings().weight.detach().float().cpu().numpy()

    def _note_neighbours(self, words: set[str]) -> None:
        """The nearest whole words of each word; the vector of a word of several pieces is the mean of theirs."""
        new = sorted(words - self._neighbours.keys())
        if not new:
            return
        names, vectors = self._whole
        table = self._embeddings()
        pieces = self.tokenizer([f" {word}" for word in new], add_special_tokens=False).input_ids
        queries = _unit(np.stack([table[ids].mean(axis=0) for ids in pieces]))
        for start in range(0, len(new), 1024):
            scores = queries[start : start + 1024] @ vectors.T
            best = np.argsort(-scores, axis=1, kind="stable")[:, : self.candidates + 1]
            for word, row in zip(new[start : start + 1024], best, strict=True):
                self._neighbours[word] = [names[i] for i in row if names[i] != word][: self.candidates]

    # -- masked prediction -------------------------------------------------------------------------------------------

    @torch.inference_mode()
    def _guessed(self, text: str, found: Sequence[re.Match[str]]) -> dict[int, list[str]]:
        """For each word of one piece, what the model puts in its place when it reads the masked text and the text itself."""
        single = [
            number for number, match in enumerate(found)
            if len(self.tokenizer(f" {match[0]}", add_special_tokens=False).input_ids) == 1
        ]  # fmt: skip
        mask, limit = self.tokenizer.mask_token, getattr(self.model.config, "max_position_embeddings", 512) - 2
        guessed = {}
        for start in range(0, len(single), MASKED_AT_ONCE):
            batch = single[start : start + MASKED_AT_ONCE]
            masked = [text[: found[i].start()] + mask + text[found[i].end() :] for i in batch]
            inputs: Any = self.tokenizer(
                masked, [text] * len(batch), truncation=True, max_length=limit, padding=True, return_tensors="pt"
            ).to(self.model.device)
            logits = self.model(**inputs).logits
            for row, number in enumerate(batch):
                places = (inputs.input_ids[row] == self.tokenizer.mask_token_id).nonzero()
                if len(places):  # else cut off
                    guessed[number] = self._named(logits[row, places[0, 0]], found[number][0])
        return guessed

    def _named(self, scores: torch.Tensor, old: str) -> list[str]:
        """The most likely whole words other than the old one, among the first K pieces (none: fall back on the old)."""
        names = self.tokenizer.convert_ids_to_tokens(scores.topk(min(self.candidates, len(scores))).indices.tolist())
        words = [name.lstrip("Ġ").lower() for name in names if not name.startswith("##")]
        return [word for word in words if WORD.fullmatch(word) and word != old.lower()]


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(min=1e-9)
