"""Distilling a teacher model into a student: `distil` computes the teacher's outputs once, then trains in one stage or two.

With `distill.intermediate.epochs` above 0 the student first matches the teacher's intermediate layers, then its predictions
(the two-step task distillation of TinyBERT, Jiao et al. 2020); with 0 all terms are trained together.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from findistill.data import training_texts
from findistill.data.labels import LabelSet
from findistill.errors import UserError
from findistill.models.config import Encoder
from findistill.models.encoders import load, save
from findistill.models.features import Anatomy
from findistill.models.forward import device_of
from findistill.models.label_names import example, match_labels
from findistill.models.training_profile import TrainingProfile
from findistill.models.weights import locate
from findistill.training import published_faults
from findistill.training.config import TeacherDistill, faults
from findistill.training.distiller import Distiller, Stage, TeacherRows
from findistill.training.loop import Session, Training, freeing
from findistill.training.losses.base import UNLABELLED, Pair
from findistill.training.losses.weighted import WeightedTerms
from findistill.training.recipe import Recipe
from findistill.training.teacher_outputs import Making, mean_logits, obtain
from findistill.training.teachers import Obtain, Reading, open_teacher
from findistill.training.trainer import Examples, Trained, longest_of, note_cut, starting_folder, untrained


def with_unlabelled(examples: Examples, ids: Sequence[str], texts: Sequence[str]) -> Examples:
    """`examples`, followed by texts without a label: all-zero targets, hard label -1."""
    return Examples(
        [*examples.ids, *ids],
        [*examples.texts, *texts],
        np.concatenate([examples.targets, np.zeros((len(texts), examples.targets.shape[1]), np.float32)]),
        np.concatenate([examples.hard, np.full(len(texts), UNLABELLED, np.int64)]),
    )


@freeing()
def distil(
    encoder: Encoder, distill: TeacherDistill, labels: LabelSet, train: Examples, validation: Examples, teacher: str | Path,
    session: Session, *, artifact: Making, root: Path, others: Sequence[str] = (), corpus: Sequence[str] = (),
) -> Trained:  # fmt: skip
    """Train `encoder` on the outputs of the model `teacher` for `train`, and save `model` in the session's folder like `fit`.

    Rows of `train` with the hard label -1 are unlabelled: every term but `hard` uses them. The teacher's outputs are
    artifacts, created by `artifact` under `root` if they are not there yet. Its labels are matched by name. The logits are the
    mean over it and the models `others` (an ensemble as teacher: Hinton et al. 2015, section 1), each scaled to the spread of
    the teacher's logits. The weights kept are those of the best validation epoch of the last stage. `corpus` as in `fit`.

    Raises UserError for a teacher that lacks a label, for terms by which the two models cannot be compared (different tokens
    or heads, no attention), for outputs larger than allowed, and for what `fit` refuses.
    """
    if not len(train):
        raise UserError("no training rows are left: raise data.limit or name texts in distill.unlabelled.")
    recipe, cache = Recipe.of(encoder, session.trainer), session.tokens_cache
    names, teacher = labels.names, str(teacher)
    begin = partial(load, encoder, names, scalar=False, seed=session.seed)
    model, tokenizer = untrained(encoder, recipe, [*train.texts, *corpus], begin, seed=session.seed)
    source = open_teacher(teacher)
    columns = matched(names, source.labels, teacher, distill.label_map)
    student_rows, validation_rows = (part.rows(tokenizer, recipe.max_length, cache) for part in (train, validation))
    note_cut(student_rows.tokens.lengths, recipe.max_length, longest_of(model))
    distiller = published_faults.PublishedDistiller if faults(distill.recipe) else Distiller
    stages = stages_of(distill, distiller.term_nodes(distill), recipe, Anatomy.of(model, encoder.name), source.anatomy)
    get = partial(
        obtain, artifact=artifact, root=root, limit_gb=distill.cache_gb, dtype=distill.cache_dtype,
        device=device_of(session.trainer.accelerator),
    )  # fmt: skip
    reading = Reading(train.texts, recipe.max_length, tokenizer, student_rows.tokens, encoder.name, cache)
    terms = [stage.terms for stage in stages]
    outputs = source.outputs(reading, terms, get, every=distill.cache == "all")
    del source
    if others:
        first = outputs.arrays["logits"][:, columns]
        further = [_logits(other, names, reading, get) for other in others]
        outputs, columns = outputs.with_logits(mean_logits([first, *further])), list(range(len(names)))

    history: list[dict[str, float]] = []
    best_epoch, times = 0, {"train_s": 0.0, "cpu_s": 0.0}
    for number, stage in enumerate(stages):
        rows = TeacherRows(student_rows.tokens, train.targets, train.hard, outputs, columns, stage.terms.teacher_arrays)
        module = distiller(model, stage, len(names), distill)
        model.train()
        stage_validation = validation_rows if stage.is_last else None
        training = Training(module, rows, stage_validation, stage.recipe, session, module.check_every, f"stage{number}")
        times = {name: times[name] + seconds for name, seconds in training.run().items()}
        best_epoch = len(history) + module.best_epoch
        start = history[-1]["epoch"] if history else 0.0
        history += [{**row, "epoch": start + row["epoch"]} for row in module.history]
    save(session.folder / "model", model, tokenizer, names, recipe.max_length)
    learnt_from = [starting_folder(encoder), *(locate(each) for each in (teacher, *others))]
    training_texts.write(session.folder / "model", [*train.texts, *validation.texts], learnt_from)
    gold = [names[label] for label in train.hard if label != UNLABELLED]
    TrainingProfile.of(student_rows.tokens.flat, tokenizer, gold).write(session.folder / "model")
    return Trained.of(model, session.folder, history, best_epoch, times)


def _logits(teacher: str, names: Sequence[str], reading: Reading, get: Obtain) -> np.ndarray:
    """(n, labels) logits of a further teacher, its columns in the order of `names`."""
    source = open_teacher(teacher)
    return source.outputs(reading, [], get).arrays["logits"][:, matched(names, source.labels, teacher)]


def stages_of(
    distill: TeacherDistill, nodes: Mapping[str, Mapping[str, Any]], recipe: Recipe, student: Anatomy, teacher: Anatomy
) -> list[Stage]:
    """One stage of all terms, or two, the intermediate terms first.

    Raises UserError for terms that cannot compare the two models, and for a stage without terms.
    """
    pair = Pair(student, teacher, distill.temperature, distill.layers, distill.relation_layer, distill.relation_heads)
    first = distill.intermediate
    stages = []
    if first.epochs:
        before = replace(recipe, epochs=first.epochs, learning_rate=first.learning_rate or recipe.learning_rate)
        if first.schedule == "constant":
            before = replace(before, schedule="constant", scheduler=None, warmup=0.0)
        stages.append(Stage(WeightedTerms.build(nodes, pair, ("intermediate",)), before, is_last=False))
    kinds = ("prediction",) if first.epochs else ("intermediate", "prediction")
    stages.append(Stage(WeightedTerms.build(nodes, pair, kinds), recipe))
    for stage in stages:
        if not len(stage.terms.terms):
            kind = "prediction" if stage.is_last else "intermediate"
            alternative = ", or train in one stage: distill.intermediate.epochs=0" if first.epochs else ""
            raise UserError(
                f"distill.terms: {', '.join(nodes)}: none belongs to the {kind} stage.\nGive one a weight above 0{alternative}"
            )
    return stages


def matched(names: Sequence[str], teacher_labels: Sequence[str], where: str, label_map: Any = None) -> list[int]:
    """The column of the teacher's logits for each of our labels. Raises UserError unless each has exactly one."""
    if len(teacher_labels) < len(names):
        raise UserError(
            f"distill.teacher: {where} has {len(teacher_labels)} outputs ({', '.join(teacher_labels)}), the data "
            f"{len(names)} labels.\nA teacher needs a logit for every label of the data (a scalar head has none)."
        )
    columns = match_labels(teacher_labels, names, model=where, setting="distill.label_map", label_map=label_map).tolist()
    for label, name in enumerate(names):
        if columns.count(label) != 1:
            raise UserError(
                f"distill.label_map assigns {columns.count(label)} outputs of {where} to {name}, but a teacher needs one "
                f"logit for each label: {example(teacher_labels, names, 'distill.label_map')}"
            )
    return [columns.index(label) for label in range(len(names))]
