"""Teachers: an encoder, whose layers can be compared as well, or a linear classifier, which has only logits."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from transformers import PreTrainedTokenizerBase

from findistill.errors import UserError
from findistill.models.encoders import open_trained
from findistill.models.features import Anatomy
from findistill.models.linear import LinearClassifier
from findistill.models.tokens import Tokens, tokenise
from findistill.training.losses.weighted import WeightedTerms
from findistill.training.teacher_outputs import TeacherOutputs

Obtain = Callable[..., TeacherOutputs]  # `obtain` with its storage arguments bound


@dataclass(frozen=True)
class Reading:
    """The texts to train on, and how the student tokenises them."""

    texts: list[str]
    max_length: int
    tokenizer: PreTrainedTokenizerBase
    tokens: Tokens
    student: str
    cache: Path | None


class TeacherModel(Protocol):
    """A trained model that a student can learn from."""

    @property
    def labels(self) -> Sequence[str]: ...

    @property
    def anatomy(self) -> Anatomy: ...

    def outputs(self, reading: Reading, terms: Sequence[WeightedTerms], get: Obtain, *, every: bool = False) -> TeacherOutputs:
        """Its logits on the texts and the arrays that the terms compare; with `every`, all that it has.

        Raises:
            UserError: the terms cannot compare it with the student.
        """
        ...


def open_teacher(reference: str) -> TeacherModel:
    """Open a model folder, a run folder or a hub id.

    Raises:
        UserError: it cannot be loaded, or is not a complete text classifier.
    """
    linear = LinearClassifier.find(reference)
    return LinearTeacher(reference, linear) if linear else EncoderTeacher(reference)


class EncoderTeacher:
    """A transformers classifier."""

    def __init__(self, reference: str) -> None:
        self.reference = reference
        self.model, self.tokenizer = open_trained(reference)
        self.labels = [str(self.model.config.id2label[column]) for column in range(self.model.config.num_labels)]
        self.anatomy = Anatomy.of(self.model, reference)

    def outputs(self, reading: Reading, terms: Sequence[WeightedTerms], get: Obtain, *, every: bool = False) -> TeacherOutputs:
        length = min(reading.max_length, getattr(self.model.config, "max_position_embeddings", reading.max_length))
        tokens = tokenise(self.tokenizer, reading.texts, length, reading.cache)
        by_token = any(each.needs_same_tokens for each in terms)
        if by_token:
            check_same_tokens(reading.tokenizer, reading.tokens, self.tokenizer, tokens, reading.student, self.reference)
        arrays = {name: None for each in terms for name in each.teacher_arrays} | {"logits": None}
        if every and by_token:
            arrays |= dict.fromkeys(self.anatomy.all_arrays())
        return get(self.model, self.anatomy, tokens, list(arrays))


class LinearTeacher:
    """Logistic regression (`teacher=tfidf`, `embeddings`): its logits take seconds, so they are not artifacts."""

    def __init__(self, reference: str, model: LinearClassifier) -> None:
        self.model, self.labels = model, model.labels
        self.anatomy = Anatomy(reference, 0, 0, 0)

    def outputs(self, reading: Reading, terms: Sequence[WeightedTerms], get: Obtain, *, every: bool = False) -> TeacherOutputs:
        if inner := [name for each in terms for name in each.teacher_arrays if name != "logits"]:
            raise UserError(
                f"distill.terms: {self.anatomy.name} has only logits, no {inner[0].partition('/')[0]}: use distill=logit."
            )
        logits = self.model.logits(reading.texts).astype(np.float32)
        return TeacherOutputs({"logits": logits}, {"logits": np.arange(len(logits) + 1)})


def check_same_tokens(
    student: PreTrainedTokenizerBase, ours: Tokens, teacher: PreTrainedTokenizerBase, theirs: Tokens, name: str, where: str
) -> None:
    """Raise UserError unless both models split every text into the same pieces, whatever the ids of the pieces.

    Hidden states and attention are compared position by position, which is meaningless if the pieces differ.
    """
    numbers, pieces = teacher.get_vocab(), student.get_vocab()
    translation = np.full(max(pieces.values(), default=0) + 1, -1, dtype=np.int64)
    translation[list(pieces.values())] = [numbers.get(piece, -1) for piece in pieces]
    if not np.array_equal(ours.offsets, theirs.offsets) or not np.array_equal(translation[ours.flat], theirs.flat):
        raise UserError(
            f"distill.terms: {name} ({len(pieces):,} pieces) and its teacher {where} ({len(numbers):,}) split texts into "
            "different tokens, so their layers cannot be compared.\nUse a student with the teacher's vocabulary, or the "
            "terms that need only logits (distill=logit)."
        )
