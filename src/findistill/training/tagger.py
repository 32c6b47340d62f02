"""Training a token classifier: a BIO tag for every word, predicted at its first token."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForTokenClassification, PreTrainedModel, PreTrainedTokenizerBase

from findistill.data import training_texts
from findistill.data.span_counts import validation_scores
from findistill.data.spans import Marked, from_bio, tags_of, to_bio
from findistill.models.batches import TokenRows
from findistill.models.config import Encoder
from findistill.models.encoders import save, with_head
from findistill.models.windows import Windows, windows
from findistill.training.loop import Session, Training, freeing
from findistill.training.measured import MeasuredModule
from findistill.training.recipe import Recipe
from findistill.training.trainer import Trained, starting_folder, untrained

IGNORED = -100  # the target of a token that no loss is computed for, as in torch


@dataclass(frozen=True)
class TaggedRows(TokenRows):
    """Windows with the tag of each word at its first token: batches also have `targets` (rows, longest) and `rows`, int64."""

    windows: Windows
    targets: np.ndarray  # aligned with tokens.flat

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase, marked: Marked, tags: Sequence[str], max_length: int) -> "TaggedRows":
        cut, number = windows(tokenizer, marked.texts, max_length), {tag: at for at, tag in enumerate(tags)}
        values = [
            np.asarray([number[tag] for tag in to_bio(spans, words)], np.int64)
            for spans, words in zip(marked.spans, cut.words, strict=True)
        ]
        return cls(cut.tokens, cut, cut.targets(values, IGNORED))

    def __getitem__(self, indexes: list[int]) -> dict[str, torch.Tensor]:
        batch = super().__getitem__(indexes)
        targets = torch.full_like(batch["input_ids"], IGNORED)
        offsets = self.tokens.offsets
        targets[batch["attention_mask"].bool()] = torch.from_numpy(
            np.concatenate([self.targets[offsets[index] : offsets[index + 1]] for index in indexes])
        )
        return batch | {"targets": targets, "rows": torch.tensor(indexes)}


class Tagger(MeasuredModule):
    """Trains `model` by cross-entropy on the words' tags; evaluated by the exact spans of the validation texts."""

    def __init__(
        self, model: PreTrainedModel, recipe: Recipe | Mapping[str, Any], validation: TaggedRows, marked: Marked,
        labels: Sequence[str],
    ) -> None:  # fmt: skip
        super().__init__(model, recipe)
        self.validation, self.marked, self.labels = validation, marked, labels
        self._predicted: dict[int, np.ndarray] = {}  # of each window
        self._validation_losses: list[tuple[float, int]] = []

    def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Logits (batch, longest, tags)."""
        return self.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits

    def training_loss(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return cross_entropy(self(batch).flatten(0, 1), batch["targets"].flatten(), ignore_index=IGNORED)

    def validation_step(self, batch: dict[str, torch.Tensor], index: int) -> None:
        logits, targets = self(batch).float(), batch["targets"]
        total = cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="sum")
        self._validation_losses.append((float(total), int((targets != IGNORED).sum())))
        best = logits.argmax(-1).cpu().numpy()
        self._predicted |= {row: best[at] for at, row in enumerate(batch["rows"].tolist())}

    def on_validation_epoch_end(self) -> None:
        losses, predicted = self._validation_losses, self._predicted
        self._validation_losses, self._predicted = [], {}
        if self.trainer.sanity_checking:
            return
        cut, tags = self.validation.windows, self.model.config.id2label
        at_words = [predicted[row][place] for row, place in enumerate(cut.place)]
        spans = [
            from_bio([tags[int(tag)] for tag in own], words) for own, words in zip(cut.by_text(at_words), cut.words, strict=True)
        ]
        total, words = np.sum(losses, axis=0)
        measured = {"val/loss": float(total / words), **validation_scores(self.marked.spans, spans, self.labels)}
        self.log_dict(measured, batch_size=len(self.marked))
        self._end_epoch(measured)


@freeing()
def fit_tagger(encoder: Encoder, labels: Sequence[str], train: Marked, validation: Marked, session: Session) -> Trained:
    """Train `encoder` to tag words, and save `model` in the session's folder: the weights of the best validation epoch, which
    plain transformers loads (`pipeline("token-classification", aggregation_strategy="first")`).

    Without validation texts, the last epoch is kept. The same seed on the same CPU and number of threads gives the same
    weights.

    Raises UserError for settings that cannot be trained with, and if the loss is not finite.
    """
    recipe, tags = Recipe.of(encoder, session.trainer), tags_of(labels)
    begin = partial(with_head, encoder, AutoModelForTokenClassification, tags, session.seed)
    model, tokenizer = untrained(encoder, recipe, train.texts, begin, seed=session.seed)
    recipe, epoch = recipe.over(train, session.trainer.accumulate_grad_batches)
    rows = TaggedRows.of(tokenizer, epoch, tags, recipe.max_length)
    validation_rows = TaggedRows.of(tokenizer, validation, tags, recipe.max_length)
    module = Tagger(model, recipe, validation_rows, validation, labels)
    times = Training(module, rows, validation_rows, recipe, session).run()
    save(session.folder / "model", model, tokenizer, tags, recipe.max_length)
    training_texts.write(session.folder / "model", [*train.texts, *validation.texts], [starting_folder(encoder)])
    return Trained.of(model, session.folder, module.history, module.best_epoch, times)
