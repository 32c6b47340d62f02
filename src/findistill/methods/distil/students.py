"""What distinguishes students in tables and figures: objective and threshold, or loss terms; size; unlabelled texts."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from findistill.report.methods import Method, details_of, setting
from findistill.training.config import term_weight

KIND = "student"
LABELS_ALONE = "labels alone"  # a student without a teacher, though `distill.source=teacher`
_OF_A_SERIES = {"distill.objective", "distill.min_agreement", "distill._target_", "distill.name"}


def source(method: Method) -> str | None:
    """The `distill.source` of a student: annotator, folder, human or teacher; else None."""
    value = setting(method.config, "distill.source") if method.kind == KIND else None
    return None if value is None else str(value)


def objective(method: Method) -> str | None:
    """`CLS`, `REG` or another objective of a student that learnt from votes, else None."""
    name = setting(method.config, "distill.objective") if method.kind == KIND and source(method) != "teacher" else None
    return str(name).upper() if name else None


def threshold(method: Method) -> int | None:
    """The `distill.min_agreement` of a student, else None."""
    value = setting(method.config, "distill.min_agreement") if method.kind == KIND else None
    return None if value is None else int(value)


def terms(method: Method) -> dict[str, float]:
    """The loss terms, with their weights, of a student that learnt from a teacher model; empty for other methods."""
    return used_terms(setting(method.config, "distill.terms") or {}) if source(method) == "teacher" else {}


def used_terms(terms: Mapping[str, Any]) -> dict[str, float]:
    """Name -> weight of the entries of `distill.terms` whose weight is not 0."""
    return {name: weight for name, term in terms.items() if (weight := term_weight(term))}


def terms_name(terms: Mapping[str, Any]) -> str:
    """The terms of a loss in words: `kl`, `hidden + attention + soft_ce`, `labels alone`."""
    used = used_terms(terms)
    if set(used) == {"hard"}:
        return LABELS_ALONE
    return " + ".join(name if weight == 1 else f"{weight:g} {name}" for name, weight in used.items())


def loss_name(method: Method) -> str:
    """The terms of a student's loss in words."""
    return terms_name(terms(method))


def on_labels_alone(method: Method) -> bool:
    """Whether the only term of a student is the gold label: the baseline without a teacher."""
    return loss_name(method) == LABELS_ALONE


def size_name(method: Method) -> str:
    return str(setting(method.config, "student.name"))


def sizes(students: Sequence[Method]) -> list[str]:
    """The students' names, smallest first."""
    parameters = {size_name(student): student.mean_metric("model/parameters") or np.inf for student in students}
    return sorted(parameters, key=lambda name: parameters[name])


def unlabelled_texts(method: Method) -> float:
    """How many texts only the teacher labelled."""
    return method.mean_metric("data/unlabelled") or 0.0


def unlabelled_source(method: Method) -> str:
    """The data set of the unlabelled texts, without its limit."""
    value = setting(method.config, "distill.unlabelled") or ""
    return str(value.get("name") or "") if isinstance(value, Mapping) else str(value).partition(" ")[0]


def series_name(method: Method, students: Sequence[Method]) -> str:
    """The name of a student without its threshold: `CLS`, `REG`, `REG, target=scalar` ..."""
    configs = [student.config for student in students if objective(student) == objective(method)]
    details = details_of(configs, without=_OF_A_SERIES)
    written = (f"{detail.key.split('.')[-1]}={detail.of(method.config)}" for detail in details)
    return ", ".join([objective(method) or method.name, *written])


def threshold_series(methods: Sequence[Method]) -> dict[str, list[Method]]:
    """Students that differ only in the agreement threshold, the loosest first, by `series_name`."""
    students = [method for method in methods if objective(method) and threshold(method) is not None]
    series: dict[str, list[Method]] = {}
    for student in sorted(students, key=lambda method: (objective(method) or "", threshold(method) or 0)):
        series.setdefault(series_name(student, students), []).append(student)
    return series


def unlabelled_series(students: Sequence[Method]) -> list[list[Method]]:
    """Groups of two or more students that differ only in the number of unlabelled texts, fewest first."""

    def alike(one: Method, other: Method, sources: Sequence[str]) -> bool:
        keys = one.differs_in(other)
        return unlabelled_source(other) in sources and all(key.startswith("distill.unlabelled") for key in keys)

    distilled = [student for student in students if not on_labels_alone(student)]
    series: list[list[Method]] = []
    for student in (student for student in distilled if unlabelled_source(student)):
        if not any(student is other for line in series for other in line):
            lines = [other for other in distilled if alike(student, other, ("", unlabelled_source(student)))]
            series.append(sorted(lines, key=unlabelled_texts))
    return [line for line in series if len(line) > 1]
