"""Masked-language-model pretraining on texts of the domain (as FinBERT's on Reuters news, Araci 2019), before any label.

Whole words are masked (all pieces of a chosen word), and each of their pieces becomes [MASK] (80%), a random piece (10%) or
itself (10%), as in BERT. Only the encoder is kept: the head that predicts words is of no further use.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytorch_lightning as pl
import torch
from torch.nn import functional
from transformers import AutoModelForPreTraining, PreTrainedTokenizerBase

from findistill.errors import UserError
from findistill.models.batches import TokenRows
from findistill.models.config import Encoder
from findistill.models.encoders import begin
from findistill.models.forward import device_of
from findistill.models.tokens import sorted_batches, tokenise
from findistill.models.vocabulary import pieces
from findistill.models.weights import quiet
from findistill.training import checkpoints
from findistill.training.loop import Session, Training, freeing
from findistill.training.recipe import Recipe, RecipeModule

WARMUP = 0.1  # share of the steps; `trainer.warmup` is for training on labels
HELD = 0.05  # share of the texts, 500 at most, held out to measure the loss
IGNORED = -100  # the target of a piece that is not to be predicted


@dataclass(frozen=True)
class Masks:
    """Which pieces of a tokenizer may be masked, and which pieces continue a word."""

    maskable: np.ndarray  # (pieces,) bool
    continues: np.ndarray  # (pieces,) bool
    mask_id: int

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase) -> "Masks":
        """Raises UserError for a tokenizer that has no word pieces or no [MASK]."""
        prefix = pieces(tokenizer)["model"]["continuing_subword_prefix"]
        if tokenizer.mask_token_id is None:
            raise UserError("pretrain.source needs a tokenizer with a [MASK] token; leave it off for this model.")
        names = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
        special = set(tokenizer.all_special_tokens)
        return cls(
            np.array([name not in special for name in names]),
            np.array([name.startswith(prefix) for name in names]),
            tokenizer.mask_token_id,
        )

    def hide(self, ids: np.ndarray, share: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Ids (rows, length) with whole words masked, and the targets: the id where one is to be predicted, else -100.

        Every word is chosen with probability `share`.
        """
        maskable = self.maskable[ids]
        starts = maskable & ~self.continues[ids]
        starts[:, 1:] |= maskable[:, 1:] & ~maskable[:, :-1]  # so does any piece after a special one
        word = np.cumsum(starts, axis=1)  # (rows, length), counted from 1
        chosen = rng.random((len(ids), word.max(initial=0) + 1)) < share
        hidden = np.take_along_axis(chosen, word, axis=1) & maskable
        fate = rng.random(ids.shape)
        anything = rng.choice(np.flatnonzero(self.maskable), ids.shape)
        masked = np.where(hidden & (fate < 0.8), self.mask_id, np.where(hidden & (fate >= 0.9), anything, ids))
        return masked, np.where(hidden, ids, IGNORED)


@dataclass(frozen=True)
class MaskedRows(TokenRows):
    """Rows whose batches also have `targets`, and are masked anew each time."""

    masks: Masks
    share: float
    rng: np.random.Generator

    def __getitem__(self, indexes: list[int]) -> dict[str, torch.Tensor]:
        batch = super().__getitem__(indexes)
        masked, targets = self.masks.hide(batch["input_ids"].numpy(), self.share, self.rng)
        return batch | {"input_ids": torch.from_numpy(masked), "targets": torch.from_numpy(targets)}


class MaskedLanguage(RecipeModule):
    """A BERT with its masked-language head; the loss is the mean cross-entropy over masked pieces."""

    def guesses(self, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits (masked, pieces) and targets (masked,); the wide head is applied only at masked positions."""
        states = self.model.bert(batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
        hidden = batch["targets"] != IGNORED
        return self.model.cls.predictions(states[hidden]), batch["targets"][hidden]

    def training_step(self, batch: dict[str, torch.Tensor], index: int) -> torch.Tensor:
        logits, targets = self.guesses(batch)
        # a batch of a few short texts may have no masked piece
        loss = functional.cross_entropy(logits.float(), targets, reduction="sum") / max(1, len(targets))
        if not torch.isfinite(loss):
            raise UserError(
                f"the pretraining loss became {loss.item()} at optimizer step {self.global_step}."
                f"\nLower pretrain.learning_rate (now {self.recipe.learning_rate:g}) or set trainer.precision=32."
            )
        return loss


@freeing()
def pretrain(encoder: Encoder, texts: Sequence[str], session: Session) -> dict[str, float]:
    """Pretrain `encoder` on `texts` as set in `encoder.pretrain`, and save the encoder and tokenizer in the session's folder.

    Batch size and length are the encoder's, the rest of the recipe is the trainer's; the learning rate rises over the first
    tenth of the steps and falls linearly, whatever the trainer's schedule. A twentieth of the texts, 500 at most, is held out.
    Returns the number of `texts` trained on, and the mean loss (nats per masked piece) over the others, `loss_before` and
    `loss_after`, with the same masks.

    Raises UserError for a model that is not BERT-shaped, fewer than 100 texts, or a loss that is not finite.
    """
    settings = encoder.pretrain
    if len(texts) < 100:
        raise UserError(
            f"{settings.source}: {len(texts)} texts are too few to pretrain {encoder.name} on; at least 100 are needed."
        )
    recipe = Recipe.of(
        encoder, session.trainer, epochs=settings.epochs, learning_rate=settings.learning_rate, schedule="linear", scheduler=None,
        warmup=WARMUP, layer_decay=1.0, unfreeze="none", freeze_embeddings=False,
    )  # fmt: skip
    pl.seed_everything(session.seed, workers=True, verbose=False)
    model, tokenizer, _ = begin(encoder, AutoModelForPreTraining, {}, session.seed)
    if model.config.model_type != "bert":
        raise UserError(f"pretrain.source: {encoder.model} is {model.config.model_type}, not BERT; leave pretraining off.")
    masks = Masks.of(tokenizer)
    order = np.random.default_rng(session.seed).permutation(len(texts))

    def rows(part: np.ndarray, *seed: int) -> MaskedRows:
        tokens = tokenise(tokenizer, [texts[i] for i in part], recipe.max_length, session.tokens_cache)
        return MaskedRows(tokens, masks, settings.mask, np.random.default_rng(seed))

    def loss() -> float:
        model.to(device_of(session.trainer.accelerator)).eval()
        return _loss(module, rows(held_out, session.seed), recipe.batch_size)

    held_out, rest = np.split(order, [min(500, round(HELD * len(texts)))])
    module, training_rows = MaskedLanguage(model, recipe), rows(rest, session.seed, 1)
    before = loss()
    model.train()
    Training(module, training_rows, None, recipe, session).run()
    after = loss()
    with quiet():
        model.bert.save_pretrained(session.folder)
        tokenizer.save_pretrained(session.folder)
    checkpoints.remove(session.folder)
    return {"texts": len(training_rows), "loss_before": before, "loss_after": after}


@torch.inference_mode()
def _loss(module: MaskedLanguage, rows: MaskedRows, batch_size: int) -> float:
    total, hidden = 0.0, 0
    for indexes in sorted_batches(rows.tokens.lengths, batch_size):
        batch = {name: value.to(module.model.device) for name, value in rows[indexes].items()}
        logits, targets = module.guesses(batch)
        total += float(functional.cross_entropy(logits.float(), targets, reduction="sum"))
        hidden += len(targets)
    return total / max(1, hidden)
