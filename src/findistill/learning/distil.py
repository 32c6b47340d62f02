"""Distilling a teacher model into a student: `distil` makes the teacher's outputs once, then trains in one stage or two.

With `distill.intermediate.epochs` above 0 the student first matches the teacher's insides, then its predictions (the
two-step task distillation of TinyBERT, Jiao et al. 2020); with 0 all terms are learnt together.
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from findistill.errors import UserError
from findistill.learning.adapter import Anatomy, read
from findistill.learning.batches import Rows, Tokens, tokenise
from findistill.learning.classify import MONITORS, EncoderClassifier, Recipe
from findistill.learning.encoders import load, open_trained, save
from findistill.learning.fit import Examples, Trained, device_of, freeing, recipe_of, train_loop
from findistill.learning.objectives import Objective, cross_entropy
from findistill.learning.teacher_cache import Making, TeacherOutputs, obtain
from findistill.learning.terms import PREDICTION, UNLABELLED, Terms
from findistill.learning.vocabulary import trim
from findistill.settings.rules import INTERMEDIATE
from findistill.settings.schema import faults

if TYPE_CHECKING:
    from pytorch_lightning.loggers import Logger
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from findistill.data.labels import LabelSet
    from findistill.settings.schema import Encoder, TeacherDistill, Trainer

log = logging.getLogger(__name__)

CHECK_EVERY = 50  # steps between two looks at the test rows, fault `selection`


def with_unlabelled(examples: Examples, ids: Sequence[str], texts: Sequence[str]) -> Examples:
    """`examples` and, behind them, texts without a label: all-zero targets, hard label -1."""
    return Examples(
        [*examples.ids, *ids],
        [*examples.texts, *texts],
        np.concatenate([examples.targets, np.zeros((len(texts), examples.targets.shape[1]), np.float32)]),
        np.concatenate([examples.hard, np.full(len(texts), UNLABELLED, np.int64)]),
    )


@dataclass(frozen=True)
class TaughtRows(Rows):
    """`Rows` whose batches also hold the teacher's arrays of their texts, as `teacher/<array>`."""

    outputs: TeacherOutputs
    columns: list[int]  # the teacher's logits in the order of our labels
    names: list[str]

    def __getitem__(self, indexes: list[int]) -> dict[str, torch.Tensor]:
        taught = self.outputs.rows(indexes, self.names)
        if "logits" in taught:
            taught["logits"] = taught["logits"][:, self.columns]
        return super().__getitem__(indexes) | {f"teacher/{name}": value for name, value in taught.items()}


class Distiller(EncoderClassifier):
    """Trains `model` on the terms; measured on validation labels, and kept, as `EncoderClassifier` does.

    A row of `history` also has each term's unweighted mean, `train/<term>`. `ends_after`: optimizer steps after which the
    learning rate is 0, where that is not the end of the training. `constant`: no warm-up, no decay.
    """

    def __init__(
        self,
        model: "PreTrainedModel",
        terms: Terms,
        recipe: Recipe,
        n_labels: int,
        *,
        constant: bool = False,
        ends_after: int | None = None,
    ) -> None:
        super().__init__(model, Objective(cross_entropy), recipe, n_labels)
        self.terms, self.constant, self.ends_after = terms, constant, ends_after
        self._terms: list[dict[str, torch.Tensor]] = []
        self._wanted = terms.wanted()[0]

    def on_train_epoch_start(self) -> None:
        super().on_train_epoch_start()
        self._terms.clear()

    def training_loss(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        taught = {name.removeprefix("teacher/"): value for name, value in batch.items() if name.startswith("teacher/")}
        terms = self.terms(read(self.model, batch, self._wanted), taught, batch["attention_mask"], batch["hard"])
        self._terms.append({name: value.detach() for name, value in terms.items()})
        return self.terms.total(terms)

    def configure_optimizers(self) -> dict[str, Any]:
        from transformers import get_constant_schedule, get_linear_schedule_with_warmup

        made = super().configure_optimizers()
        if self.constant:
            made["lr_scheduler"]["scheduler"] = get_constant_schedule(made["optimizer"])
        elif self.ends_after is not None:
            warmup = round(self.recipe.warmup * self.ends_after)
            made["lr_scheduler"]["scheduler"] = get_linear_schedule_with_warmup(made["optimizer"], warmup, self.ends_after)
        return made

    def _end_epoch(self, measured: dict[str, float]) -> None:
        before = self._best
        super()._end_epoch(measured)
        if self._best > before:
            self.best_epoch = len(self.history)  # a row of the history, also where an epoch has several
        steps = int(self.trainer.num_training_batches)
        done = (self.trainer.fit_loop.epoch_loop.batch_progress.current.processed or steps) / steps
        self.history[-1]["epoch"] = self.current_epoch + done
        if self._terms:
            means = {name: torch.stack([terms[name] for terms in self._terms]).mean() for name in self._terms[0]}
            self.history[-1] |= {f"train/{name}": float(mean) for name, mean in means.items()}


@freeing
def distil(
    encoder: "Encoder",
    distill: "TeacherDistill",
    trainer: "Trainer",
    labels: "LabelSet",
    train: Examples,
    validation: Examples,
    teacher: str | Path,
    *,
    artifact: Making,
    root: Path,
    seed: int,
    folder: Path,
    loggers: "list[Logger]",
    tokens_cache: Path | None = None,
    corpus: Sequence[str] = (),
) -> Trained:
    """Train `encoder` on what the model `teacher` says of `train`, and leave `folder/model` as `fit` does.

    Rows of `train` with the hard label -1 have none: every term but `hard` learns from them. The teacher's outputs are
    artifacts, made by `artifact` under `root` where they are not there yet. Its labels are matched by name. The weights
    kept are those of the best validation epoch of the last stage. `corpus` as in `fit`.

    Raises UserError for a teacher that lacks a label, for terms that the two models cannot be compared by (other tokens,
    heads, no attention), for outputs larger than allowed, and for what `fit` refuses.
    """
    if trainer.monitor not in MONITORS:
        raise UserError(f"trainer.monitor={trainer.monitor}: choose one of {', '.join(MONITORS)}.")
    if not len(train):
        raise UserError("no training rows are left: raise data.limit or name texts in distill.pool.")
    recipe = recipe_of(encoder, trainer)
    names, teacher = labels.names, str(teacher)
    import pytorch_lightning as pl

    pl.seed_everything(seed, workers=True, verbose=False)
    model, tokenizer = load(encoder, names, scalar=False, seed=seed)
    longest = getattr(model.config, "max_position_embeddings", recipe.max_length)
    if recipe.max_length > longest:
        raise UserError(f"trainer.max_length={recipe.max_length}: {encoder.model} reads at most {longest} tokens.")
    if encoder.trim_vocabulary:
        tokenizer = trim(model, tokenizer, [*train.texts, *corpus], recipe.max_length)
    taught, their_tokenizer = open_trained(teacher)
    columns = matched(names, taught, teacher)
    tokens = tokenise(tokenizer, train.texts, recipe.max_length, tokens_cache)
    their_length = min(recipe.max_length, getattr(taught.config, "max_position_embeddings", recipe.max_length))
    their_tokens = tokenise(their_tokenizer, train.texts, their_length, tokens_cache)
    held_tokens = tokenise(tokenizer, validation.texts, recipe.max_length, tokens_cache)
    held = Rows(held_tokens, validation.targets, validation.hard)

    sizes = Anatomy.of(model, encoder.name), Anatomy.of(taught, teacher)
    stages = _stages(distill, recipe, *sizes)
    if any(terms.by_token for terms, _ in stages):
        check_same_tokens(tokenizer, tokens, their_tokenizer, their_tokens, encoder.name, teacher)
    wanted = {name: None for terms, _ in stages for name in ("logits", *terms.wanted()[1])}
    if distill.cache == "all" and any(terms.by_token for terms, _ in stages):
        wanted |= dict.fromkeys(sizes[1].all_arrays())
    outputs = obtain(
        taught, sizes[1], their_tokens, list(wanted),
        artifact=artifact, root=root, limit_gb=distill.cache_gb, dtype=distill.cache_dtype,
        device=device_of(trainer.accelerator),
    )  # fmt: skip
    del taught

    found = faults(distill.recipe)
    history: list[dict[str, float]] = []
    best_epoch, train_s, cpu_s = 0, 0.0, 0.0
    for number, (terms, stage) in enumerate(stages):
        last = number == len(stages) - 1
        rows = TaughtRows(tokens, train.targets, train.hard, outputs, columns, terms.wanted()[1])
        ends_after = None
        if last and "schedule" in found:
            # The study divided its number of batches, not of examples, by the batch size.
            ends_after = max(1, math.ceil(len(train) / stage.batch_size) // stage.batch_size * stage.epochs)
        module = Distiller(
            model,
            terms,
            stage,
            len(names),
            constant=not last and distill.intermediate.schedule == "constant",
            ends_after=ends_after,
        )
        model.train()
        ran = train_loop(
            module, rows, held if last else None, stage, trainer, seed=seed, folder=folder, loggers=loggers,
            check_every=CHECK_EVERY if last and "selection" in found else None,
        )  # fmt: skip
        model.load_state_dict(module.best_state)
        best_epoch = len(history) + module.best_epoch
        start = history[-1]["epoch"] if history else 0.0
        history += [{**row, "epoch": start + row["epoch"]} for row in module.history]
        train_s, cpu_s = train_s + ran.train_s, cpu_s + ran.cpu_s
    if ran.writes:
        save(folder / "model", model, tokenizer, names, recipe.max_length)
    return Trained(
        model_dir=folder / "model",
        history=history,
        best_epoch=best_epoch,
        train_s=train_s,
        cpu_s=cpu_s,
        parameters=model.num_parameters(),
        megabytes=sum(p.numel() * p.element_size() for p in model.parameters()) / 1e6,
    )


def _stages(distill: "TeacherDistill", recipe: Recipe, student: Anatomy, teacher: Anatomy) -> list[tuple[Terms, Recipe]]:
    """The terms of each stage with its numbers: one stage of all terms, or the intermediate ones first."""
    first = distill.intermediate
    if not first.epochs:
        return [(Terms(distill, (*INTERMEDIATE, *PREDICTION), student, teacher), recipe)]
    rate = recipe.learning_rate if first.learning_rate is None else first.learning_rate
    return [
        (Terms(distill, INTERMEDIATE, student, teacher), replace(recipe, epochs=first.epochs, learning_rate=rate)),
        (Terms(distill, PREDICTION, student, teacher), recipe),
    ]


def matched(names: Sequence[str], teacher: "PreTrainedModel", where: str) -> list[int]:
    """The column of the teacher's logits for each of our labels. Raises UserError where it lacks one."""
    known = [str(teacher.config.id2label[column]).lower() for column in range(teacher.config.num_labels)]
    missing = [name for name in names if name.lower() not in known]
    if missing:
        raise UserError(
            f"distill.teacher: {where} knows the labels {', '.join(known)}, not {', '.join(missing)}."
            "\nA teacher needs a logit for every label of the data (a scalar head has none)."
        )
    return [known.index(name.lower()) for name in names]


def check_same_tokens(
    student: "PreTrainedTokenizerBase", ours: Tokens, teacher: "PreTrainedTokenizerBase", theirs: Tokens, name: str, where: str
) -> None:
    """Raise UserError unless both models read every text as the same pieces, whatever the numbers of the pieces.

    Hidden states and attention are compared position by position, which means nothing where the pieces differ.
    """
    numbers = teacher.get_vocab()
    pieces = student.get_vocab()
    translation = np.full(max(pieces.values(), default=0) + 1, -1, dtype=np.int64)
    for piece, number in pieces.items():
        translation[number] = numbers.get(piece, -1)
    if not np.array_equal(ours.offsets, theirs.offsets) or not np.array_equal(translation[ours.flat], theirs.flat):
        raise UserError(
            f"distill.terms: {name} ({len(pieces):,} pieces) and its teacher {where} ({len(numbers):,}) cut texts into "
            "different tokens, so their layers cannot be compared.\nUse a student with the teacher's vocabulary, or the "
            "terms on logits alone (distill=logit)."
        )
