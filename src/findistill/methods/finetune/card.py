"""The model card of every trained classifier, generated from the run; its text is in `classifier.md.j2`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from findistill.config.compose import plain
from findistill.config.fields import declares
from findistill.llm.identity import OWN_ANNOTATORS
from findistill.report.licences import Provenance
from findistill.report.model_card import write_model_card
from findistill.training.config import FAULTS, asks_teacher, faults, term_nodes


def write_classifier_card(
    folder: Path, config: Any, labels: Sequence[str], rows: int, learnt: Provenance, metrics: Mapping[str, float]
) -> Path:
    """Write the card of a trained classifier: what it is, whose labels it was trained on, its scores, and how to use it.

    Args:
        rows: number of training texts.
        learnt: the data sets, annotators and weights it was made from.
        metrics: of the job, after scoring.
    """
    stage, settings = config.stage.name, plain(config)
    role = "student" if stage == "student" else "teacher"
    encoder, distill = config[role], config.distill
    facts = {"encoder": settings[role], "asks_teacher": False}
    if role == "student" and distill.source == "teacher":
        facts |= {"asks_teacher": asks_teacher(distill), "terms": term_nodes(distill.terms)}
        facts["faults"] = [meaning for name, meaning in FAULTS.items() if name in faults(distill.recipe)]
    code, linear = (encoder._target_ or "").rpartition(".")[0], declares(encoder, "linear")
    library = "findistill" if linear else "transformers"
    return write_model_card(
        folder, "classifier", name=encoder.name, data=config.data, learnt=learnt, library=library, tags=[stage], linear=linear,
        base_model=None if code or linear or encoder.init == "random" else encoder.model, metrics=metrics, labels=labels,
        rows=rows, config=settings, stage=stage, code=code, seed=config.seed, without_prompt=OWN_ANNOTATORS,
        labels_apart=distill.source == "annotator" and _labels_apart(config), **facts,
    )  # fmt: skip


def _labels_apart(config: Any) -> bool:
    """Whether all human labels that the annotators used are of other texts than the annotated ones."""
    return bool(config.data.labelled) or all(member.shots.source for member in config.annotate.ensemble or [config])
