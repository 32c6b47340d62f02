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
    labels = config.data.labels  # None: those in the rows, checked once they are known
    if distill.objective == "reg" and distill.target == "scalar" and labels is not None and "positive" not in labels:
        yield "distill.target=scalar is the positive minus the negative share; data.labels has no 'positive'"


def _from_teacher(config: Any) -> Iterator[str]:
    distill, data = config.distill, config.data
    if not distill.teacher:
        yield from missing(config, "teacher")
    yield from problems(distill.teacher, "classifier")
    terms = term_nodes(distill.terms)
    inner = [name for name, node in terms.items() if node["_target_"] in INTERMEDIATE_TERMS.values()]
    if inner and not distill.teacher and declares(config.teacher, "linear"):
        yield f"distill.terms.{inner[0]} compares layers, and teacher={config.teacher.name} has none; use distill=logit"
    for name, node in terms.items():
        weight = node["weight"]
        if not isinstance(weight, int | float) or isinstance(weight, bool) or not 0 <= weight < float("inf"):
            yield f"distill.terms.{name}.weight={weight} is not a weight: it must be at least 0, and 0 disables the term"
    # The stage of a term from another package is known, and checked, only once it is built.
    targets = {node["_target_"] for node in terms.values()}
    if distill.objective in ("cls", "reg") or distill.source != "teacher" or distill.min_agreement is not None:
        yield "distill.objective, source and min_agreement come from the preset: use distill=cls, reg, logit, minilm or tinybert"
    if not targets - set(INTERMEDIATE_TERMS.values()):
        yield "distill.terms: no term trains the predictions; set distill.terms.NAME=1 for one of " + ", ".join(PREDICTION_TERMS)
    if distill.intermediate.epochs and not targets - set(PREDICTION_TERMS.values()):
        yield (
            f"distill.intermediate.epochs={distill.intermediate.epochs} has nothing to learn from: give one of "
            f"distill.terms.{', '.join(INTERMEDIATE_TERMS)} a weight above 0"
        )
    if distill.teachers > 1 and distill.teacher:
        yield f"distill.teachers={distill.teachers} trains its own teachers; remove distill.teacher, or set distill.teachers=1"
    numbers = OmegaConf.is_list(distill.layers) and all(isinstance(layer, int) for layer in distill.layers)
    if not numbers and distill.layers not in LAYER_MAPS:
        yield f"distill.layers={distill.layers}: choose one of {', '.join(LAYER_MAPS)}, or list teacher layers: [2,4,6]"
    if config.teacher.objective == "regression" and not distill.teacher:
        yield f"distill={distill.objective} learns from label probabilities: set teacher.objective=classification"
    if not declares(data, "has_labels") and not distill.teacher:
        yield (
            f"distill={distill.objective} trains its teacher on human labels, and data={data.name} has none; "
            "use a trained one with distill.teacher=RUN_FOLDER"
        )
    elif not declares(data, "has_labels") and distill.linear_teachers:
        names = ",".join(distill.linear_teachers)
        yield f"distill.linear_teachers=[{names}] are trained on human labels, and data={data.name} has none; remove them"


def _is_vote_objective(name: str) -> bool:
    if name in ("cls", "reg"):
        return True
    # This imports torch, so only for an objective that another package registers.
    from findistill.training.objectives import OBJECTIVES

    return name in OBJECTIVES


def _most_votes(config: Any) -> int:
    """How many votes of an annotator can agree on a text."""
    annotate = config.annotate
    stops = annotate.stop_at is not None and (config.prompt.steps or not declares(config.llm, "in_process"))
    return int(annotate.stop_at if stops else annotate.samples)


def _from_votes(config: Any) -> Iterator[str]:
    distill, annotate = config.distill, config.annotate
    if distill.source == "teacher" or not _is_vote_objective(distill.objective):
        yield (
            f"distill.objective={distill.objective}, distill.source={distill.source}: to learn from votes, use cls, "
            "reg or an objective that a plugin registers; to learn from a teacher model, distill=logit, minilm or tinybert"
        )
        return
    if distill.min_agreement is None:
        yield "distill.min_agreement is not set: set it to the number of answers that must agree (1 keeps all texts)"
        return
    members = annotate.ensemble or [config]
    most = sum(_most_votes(member) for member in members)
    reason = f"annotate.samples={annotate.samples}"
    if annotate.ensemble:
        reason = f"the {len(members)} annotators of annotate.ensemble have {most} votes in all"
    elif most < annotate.samples:
        reason = f"annotate.stop_at={annotate.stop_at} stops sampling there"
    if distill.source == "human":
        most, reason = VOTERS, "human votes are counted in eighths"
    if distill.source == "folder":
        if not (Path(distill.annotations) / "annotations.parquet").is_file():
            yield (
                f"distill.annotations={distill.annotations}: no annotations.parquet there; "
                "use an annotation folder, such as runs/.artifacts/annotate-KEY"
            )
    elif distill.min_agreement > most:
        yield f"distill.min_agreement={distill.min_agreement} can never be reached: {reason}. Use at most {most}."
    if distill.source == "human" and not (declares(config.data, "has_votes") or config.data.reviewed):
        yield (
            f"distill.source=human: data={config.data.name} has no annotator votes; use data=phrasebank, or the "
            "decisions of stage=review with data.reviewed=FILE"
        )
    if distill.objective == "reg" and distill.label_smoothing:
        yield "distill.label_smoothing only works with distill=cls: REG's targets, the vote shares, are already soft"
    if distill.objective == "reg" and distill.class_weights != "none":
        yield "distill.class_weights only works with distill=cls: REG's targets have no single class to weight"
    if distill.objective == "cls" and distill.target != "distribution":
        yield "distill.target only works with distill=reg: CLS trains on the hard label"
