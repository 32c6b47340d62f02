"""Rules of `stage=student`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from findistill.config.fields import declares
from findistill.config.validate import missing, rule
from findistill.methods.annotate.rules import annotates
from findistill.models.folder import problems
from findistill.models.rules import encoder
from findistill.training.config import INTERMEDIATE_TERMS, LAYER_MAPS, PREDICTION_TERMS, term_nodes

VOTERS = 8  # human votes are counted in eighths


@rule("student")
def distils(config: Any) -> Iterator[str]:
    distill = config.distill
    yield from encoder(config, "student")
    yield from _from_teacher(config) if declares(distill, "from_teacher") else _from_votes(config)
    if distill.source == "annotator":
        yield from annotates(config)
    labels = config.data.labels  # None: those of the rows, checked when they are known
    if distill.objective == "reg" and distill.target == "scalar" and labels is not None and "positive" not in labels:
        yield "distill.target=scalar is positive share minus negative share; data.labels has no 'positive'"


def _from_teacher(config: Any) -> Iterator[str]:
    distill, data = config.distill, config.data
    if not distill.teacher:
        yield from missing(config, "teacher")
    yield from problems(distill.teacher, "classifier")
    terms = term_nodes(distill.terms)
    inner = [name for name, node in terms.items() if node["_target_"] in INTERMEDIATE_TERMS.values()]
    if inner and not distill.teacher and declares(config.teacher, "linear"):
        yield f"distill.terms.{inner[0]} compares layers, and teacher={config.teacher.name} has none: use distill=logit"
    for name, node in terms.items():
        weight = node["weight"]
        if not isinstance(weight, int | float) or isinstance(weight, bool) or not 0 <= weight < float("inf"):
            yield f"distill.terms.{name}.weight={weight} is not a weight: at least 0, and 0 leaves the term out"
    # When a term of another package is learnt is known once it is built, and checked there.
    targets = {node["_target_"] for node in terms.values()}
    if distill.objective in ("cls", "reg") or distill.source != "teacher" or distill.min_agreement is not None:
        yield "distill.objective, votes and min_agreement are not set by hand; choose distill=cls, reg, logit, minilm or tinybert"
    if not targets - set(INTERMEDIATE_TERMS.values()):
        yield "distill.terms: none teaches the labels; set distill.terms.NAME=1 for one of " + ", ".join(PREDICTION_TERMS)
    if distill.intermediate.epochs and not targets - set(PREDICTION_TERMS.values()):
        yield (
            f"distill.intermediate.epochs={distill.intermediate.epochs} has nothing to learn: give one of distill.terms."
            f"{', '.join(INTERMEDIATE_TERMS)} a weight above 0"
        )
    if distill.teachers > 1 and distill.teacher:
        yield f"distill.teachers={distill.teachers} trains teachers of its own: leave out distill.teacher, or distill.teachers=1"
    numbers = OmegaConf.is_list(distill.layers) and all(isinstance(layer, int) for layer in distill.layers)
    if not numbers and distill.layers not in LAYER_MAPS:
        yield f"distill.layers={distill.layers}: choose one of {', '.join(LAYER_MAPS)}, or list teacher layers: [2,4,6]"
    if config.teacher.objective == "regression" and not distill.teacher:
        yield f"distill={distill.objective} learns from label probabilities: set teacher.objective=classification"
    if not declares(data, "has_labels") and not distill.teacher:
        yield (
            f"distill={distill.objective} trains its teacher on human labels, and data={data.name} has none; "
            "name a trained one: distill.teacher=RUN_FOLDER"
        )
    elif not declares(data, "has_labels") and distill.linear_teachers:
        names = ",".join(distill.linear_teachers)
        yield f"distill.linear_teachers=[{names}] are trained on human labels, and data={data.name} has none: leave them out"


def _is_vote_objective(name: str) -> bool:
    if name in ("cls", "reg"):
        return True
    # Only for another's objective, which a package registered: torch is imported here.
    from findistill.training.objectives import OBJECTIVES

    return name in OBJECTIVES


def _from_votes(config: Any) -> Iterator[str]:
    distill, annotate = config.distill, config.annotate
    if distill.source == "teacher" or not _is_vote_objective(distill.objective):
        yield (
            f"distill.objective={distill.objective}, distill.source={distill.source}: votes are learnt by cls, reg or "
            "an objective that a package registers; they do not choose a teacher model, distill=logit, minilm and tinybert do"
        )
        return
    if distill.min_agreement is None:
        yield "distill.min_agreement is not set: give the number of answers that must agree, 1 keeps all texts"
        return
    most, reason = annotate.samples * max(1, len(annotate.ensemble)), f"annotate.samples={annotate.samples}"
    if annotate.stop_at is not None:
        most, reason = annotate.stop_at, f"annotate.stop_at={annotate.stop_at} asks no further"
    if distill.source == "human":
        most, reason = VOTERS, "human votes are counted in eighths"
    if distill.source == "folder":
        if not (Path(distill.annotations) / "annotations.parquet").is_file():
            yield (
                f"distill.annotations={distill.annotations}: no annotations.parquet there; "
                "give the folder of annotations, such as runs/.artifacts/annotate-KEY"
            )
    elif distill.min_agreement > most:
        yield f"distill.min_agreement={distill.min_agreement} can never be reached: {reason}. Use at most {most}."
    if distill.source == "human" and not (declares(config.data, "has_votes") or config.data.reviewed):
        yield (
            f"distill.source=human: data={config.data.name} publishes no votes of its annotators; use data=phrasebank, or name "
            "what people decided in stage=review: data.reviewed=FILE"
        )
    if distill.objective == "reg" and distill.label_smoothing:
        yield "distill.label_smoothing only works with distill=cls: REG's targets, the vote shares, are soft already"
    if distill.objective == "reg" and distill.class_weights != "none":
        yield "distill.class_weights only works with distill=cls: REG's targets have no single class to weigh"
    if distill.objective == "cls" and distill.target != "distribution":
        yield "distill.target only works with distill=reg: CLS trains on the hard label"
