"""The model card that goes with every trained model, generated from the run."""

from typing import TYPE_CHECKING, cast

import yaml

from findistill import __version__
from findistill.runs.job import git_commit
from findistill.settings.compose import plain
from findistill.settings.rules import asks_teacher
from findistill.settings.schema import FAULTS, Config, DistillTerms, Encoder, TeacherDistill, faults

if TYPE_CHECKING:
    from findistill.data.labels import LabelSet


def model_card(config: Config, labels: "LabelSet", rows: int, device: str, licence: str) -> str:
    """A Hugging Face model card: what the model is, whose labels it learnt from, and how to use it."""
    stage, data = config.stage.name, config.data
    encoder = config.student if stage == "student" else config.teacher
    if stage == "teacher":
        source = "the human labels of the data set"
        regression = config.teacher.objective == "regression"
        recipe = "Mean squared error on the texts' scores." if regression else "Cross-entropy."
    elif config.distill.votes == "teacher":
        source, recipe = _from_teacher(cast(TeacherDistill, config.distill), config)
    else:
        distill = config.distill
        votes = (
            "the published agreement of the data set's human annotators"
            if distill.votes == "human"
            else f"{config.annotate.samples} answers of {config.llm.name} ({config.llm.model}) to each text, temperature "
            f"{config.annotate.temperature:g}, prompt {config.prompt.name}, {config.shots.k} demonstrations "
            f"({config.shots.selection})"
        )
        source = f"{votes}; no human label of these texts was used" if distill.votes == "annotator" else votes
        loss = {
            "cls": "cross-entropy on the majority label (CLS)",
            "reg": f"mean squared error on the vote {distill.target} (REG)",
        }
        recipe = f"Texts with at least {distill.min_agreement} agreeing votes; {loss[distill.objective]}."
    needs = ""
    if encoder.model == "charformer":
        needs = "import findistill.learning.charformer  # the model's code; plain transformers does not have it\n"
    header = {
        "library_name": "transformers",
        "pipeline_tag": "text-classification",
        "language": "en",
        "tags": ["findistill", "finance", stage],
    } | ({} if needs else {"base_model": encoder.model})
    return f"""---
{yaml.safe_dump(header, sort_keys=False).strip()}
---

# {encoder.name}: {", ".join(labels.names)}

A text classifier for financial text, made by findistill {__version__} (commit {git_commit() or "unknown"}).

| | |
| --- | --- |
| start | {_start(encoder)} |
| texts | {rows:,} of {data.name} |
| licence of the texts | {licence} |
| labels from | {source} |
| objective | {recipe} |
| seed | {config.seed} |
| trained on | {device} |

The run folder around this model holds the resolved configuration, the metrics and the test predictions.

```python
{needs}from transformers import pipeline

classify = pipeline("text-classification", model="PATH_OF_THIS_FOLDER")
print(classify("Profit rose for the third quarter in a row."))
```
"""


def _start(encoder: Encoder) -> str:
    """What the training began from."""
    how = {"pretrained": "", "random": "random weights; ", "parent": "embeddings of "}[encoder.init]
    size = f", size {plain(encoder.shape)}" if encoder.shape is not None else ""
    layers = f", encoder layers {list(encoder.layers)}" if encoder.layers else ""
    trimmed = ", vocabulary trimmed to the texts" if encoder.trim_vocabulary else ""
    pretrained = f", masked-language pretraining on {encoder.pretrain.source}" if encoder.pretrain.source else ""
    return f"{how}{encoder.model}{size}{layers}{trimmed}{pretrained}"


def _from_teacher(distill: TeacherDistill, config: Config) -> tuple[str, str]:
    """Whose labels a student of a teacher model learnt from, and how."""
    if not asks_teacher(distill):
        return "the human labels of the data set", "Cross-entropy, without a teacher."
    teacher = distill.teacher or f"{config.teacher.name} ({config.teacher.model}), trained on the data's human labels"
    unlabelled = f", and texts of {distill.pool} without labels" if distill.pool else ""
    weights = vars(distill.terms) if isinstance(distill.terms, DistillTerms) else dict(distill.terms)
    terms = " + ".join(f"{weight:g} x {name}" for name, weight in weights.items() if weight)
    stages = f", {distill.intermediate.epochs} epochs on the intermediate terms first" if distill.intermediate.epochs else ""
    faulty = "; ".join(what for name, what in FAULTS.items() if name in faults(distill.recipe))
    recipe = f"Distillation at temperature {distill.temperature:g}: {terms}{stages}."
    return f"the teacher {teacher}{unlabelled}", f"{recipe} Known faults kept: {faulty}." if faulty else recipe
