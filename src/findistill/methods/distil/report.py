"""The report part of `stage=student`: students of votes by objective and threshold, students of a teacher by loss terms.

A student whose only term is the gold label is the baseline without a teacher. The teacher itself is added to the study;
jobs of stage=teacher are further teachers.
"""

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import combinations, product
from pathlib import Path
from typing import Any, cast

import pandas as pd

from findistill.config.overrides import flatten
from findistill.core.files import read_json
from findistill.methods.distil import plots
from findistill.methods.distil import students as facts
from findistill.methods.finetune.report import PART as TEACHERS
from findistill.report.budgets import BUDGET
from findistill.report.comparisons import TRAINED_PRESETS, best, contrast, pairs_by_setting, value_of
from findistill.report.methods import Method, setting
from findistill.report.parts import BASELINE, Family, Part, Picture, Results, Table, Wording
from findistill.report.plots import agreement
from findistill.stats.intervals import accuracy_share

log = logging.getLogger(__name__)

WORDING = Wording(__package__)
AGAINST_LABELS = "distilled against labels alone"
AGAINST_REST = "best student against the rest"
SAME_LABELS = "students against baselines, number of labels by number"
DIFFER_IN = "distilled students that differ in "
THRESHOLDS = "strictest threshold against loosest"
VOTES_DIFFER_IN = "students of votes that differ in "
ANNOTATOR = ("annotate.", "llm.", "prompt.", "shots.")  # the settings that make votes
VOTES = ("distill.source", "distill.annotations")  # where they come from
# Who votes and how votes are combined are one question: of a single annotator, every combination is the same.
ANNOTATORS = ("annotate.ensemble", "annotate.combine")


class StudentPart(Part):
    """Students of an annotator, of human votes or of a teacher model."""

    def name(self, config: Mapping[str, Any], metrics: Mapping[str, float]) -> str:
        distill = config["distill"]
        if distill["source"] == "teacher":
            recipe = setting(distill, "recipe")
            faults = "" if recipe in (None, "fixed") else f" ({recipe})"
            several = f", {distill['teachers']} teachers" if (setting(distill, "teachers") or 1) > 1 else ""
            linear = "".join(f", with {name}" for name in setting(distill, "linear_teachers") or ())
            return f"{config['student']['name']}: {facts.terms_name(distill['terms'])}{several}{linear}{faults}"
        scalar = " scalar" if distill["target"] == "scalar" else ""
        gold = " and human labels" if setting(distill, "gold") else ""
        return f"{distill['objective'].upper()}{scalar} ≥{distill['min_agreement']}{gold}"

    def status(self, config: Mapping[str, Any], folder: Path) -> dict[str, Any]:
        """The student's teachers: the names of artifacts, or the value of `distill.teacher`."""
        distill = config["distill"]
        if distill["source"] != "teacher":
            return {}
        artifacts = read_json(folder / "artifacts.json")
        names = [name for role, name in sorted(artifacts.items()) if role.partition("/")[0] == "teacher"]
        if distill["teacher"] and "teacher" not in artifacts:
            names.insert(0, distill["teacher"])
        return {"teacher": " ".join(names)} if names else {}

    def group(self, method: Method) -> str:
        objective = facts.objective(method)
        return f"{self.kind}, {objective}" if objective else self.kind

    def leaders(self, methods: Sequence[Method]) -> list[Method] | None:
        """The best student of each objective, if any were trained on votes."""
        by_objective = [best(members)[0] for members in _by_objective(self.own(methods)).values()]
        return [one for one in by_objective if one] or None

    def validated_on(self, method: Method) -> str:
        source, gold = (setting(method.config, f"distill.{key}") for key in ("source", "gold"))
        if source in ("teacher", "human") or gold:
            return ""  # human labels
        return repr({key: value for key, value in flatten(method.config).items() if key.startswith((*ANNOTATOR, *VOTES))})

    def families(self, methods: Sequence[Method]) -> Iterator[Family]:
        own = self.own(methods)
        by_objective = _by_objective(own)
        for a, b in combinations(by_objective, 2):
            leaders = cast(tuple[Method, Method], (best(by_objective[a])[0], best(by_objective[b])[0]))
            pairs = [leaders, *_same_threshold(by_objective[a], by_objective[b])]
            yield Family(f"{a} against {b}", list({(x.name, y.name): (x, y) for x, y in pairs}.values()), main=True)
        if top := best(own)[0]:
            yield Family(AGAINST_REST, [(top, method) for method in methods if method.kind != self.kind])
        if len({setting(student.config, BUDGET) for student in own}) > 1:
            baselines = [method for method in methods if method.kind == BASELINE]
            same = [(a, b) for a, b in product(own, baselines) if setting(a.config, BUDGET) == setting(b.config, BUDGET)]
            yield Family(SAME_LABELS, same, lambda a, b: f"{a.runs[0].method} against {b.runs[0].method}")
        series = [members for members in facts.threshold_series(own).values() if len(members) > 1]
        yield Family(THRESHOLDS, [(members[-1], members[0]) for members in series])
        voted = [student for student in own if facts.objective(student)]
        yield Family(VOTES_DIFFER_IN + "annotators", [(a, b) for a, b in combinations(voted, 2) if _differ_in(a, b, *ANNOTATORS)])
        for axis, pairs in pairs_by_setting(voted).items():
            if f"{axis}.".startswith(ANNOTATOR) and axis not in ANNOTATORS:
                yield Family(VOTES_DIFFER_IN + axis, pairs, partial(contrast, axis))
        of_teacher = [student for student in own if facts.terms(student)]
        yield Family(AGAINST_LABELS, _against_labels(of_teacher), lambda a, _: facts.loss_name(a))
        distilled = [student for student in of_teacher if not facts.on_labels_alone(student)]
        for axis, pairs in pairs_by_setting(distilled, TRAINED_PRESETS).items():
            if axis == "distill.recipe":  # each fault is compared with the recipe without faults
                pairs = [(a, b) if value_of(b, axis) == "fixed" else (b, a) for a, b in pairs
                         if "fixed" in (value_of(a, axis), value_of(b, axis))]  # fmt: skip
            yield Family(DIFFER_IN + axis, pairs, lambda a, b, axis=axis: _contrast(axis, a, b))  # type: ignore[misc]

    def tables(self, results: Results) -> Iterator[Table]:
        shares = teacher_shares(results.methods)
        if len(shares):
            yield WORDING.table("teacher_share", shares)

    def pictures(self, results: Results) -> Iterator[Picture]:
        methods, estimates = results.methods, results.estimates
        own = self.own(methods)
        voted = [student for members in facts.threshold_series(own).values() for student in members]
        scored = [student for student in voted if pd.notna(student.probabilities).any()]
        if len({facts.threshold(student) for student in voted}) > 1:
            yield WORDING.picture("thresholds", plots.thresholds(methods, estimates))
        if len(objectives := _by_objective(scored)) > 1:
            yield WORDING.picture("precision_recall", plots.objective_curves(scored), objectives=" against ".join(objectives))
        of_teacher = [student for student in own if facts.terms(student)]
        teacher = teacher_of(methods) if of_teacher else None
        if of_teacher and (teacher or len(facts.sizes(of_teacher)) > 1):
            yield WORDING.picture("students", plots.by_size(one_of_each(of_teacher), teacher, estimates))
        if facts.unlabelled_series(of_teacher):
            yield WORDING.picture("unlabelled", plots.by_unlabelled(of_teacher, teacher, estimates))
        votes, whose = _votes(results)
        if votes is not None:
            yield WORDING.picture("agreement", agreement(votes), texts=whose)

    def notes(self, methods: Sequence[Method]) -> list[str]:
        lacking = any(facts.terms(student) for student in self.own(methods)) and not teacher_of(methods)
        return WORDING.notes() if lacking else []


def _by_objective(students: Sequence[Method]) -> dict[str, list[Method]]:
    """Students of votes by objective, in alphabetical order."""
    objectives = sorted({objective for student in students if (objective := facts.objective(student))})
    return {objective: [student for student in students if facts.objective(student) == objective] for objective in objectives}


def _same_threshold(first: Sequence[Method], second: Sequence[Method]) -> list[tuple[Method, Method]]:
    """Pairs of two objectives with the same source and agreement threshold that differ only in settings of `distill`."""
    return [
        (a, b)
        for a, b in product(first, second)
        if (facts.threshold(a), facts.source(a)) == (facts.threshold(b), facts.source(b)) and _differ_in(a, b, "distill.")
    ]


def _differ_in(a: Method, b: Method, *sections: str) -> bool:
    """Whether all settings on which two methods differ are of these sections."""
    return all(key.startswith(sections) for key in a.differs_in(b))


def _against_labels(of_teacher: Sequence[Method]) -> list[tuple[Method, Method]]:
    """Each distilled student, with the otherwise equal student without a teacher."""
    alone = [method for method in of_teacher if facts.on_labels_alone(method)]
    distilled = [method for method in of_teacher if not facts.on_labels_alone(method)]
    return [(a, b) for a, b in product(distilled, alone) if _differ_in(a, b, "distill.", "teacher.")]


def _contrast(axis: str, a: Method, b: Method) -> str:
    if axis == "distill.terms":
        return f"{facts.loss_name(a)} against {facts.loss_name(b)}"
    return contrast(axis, a, b)


def teacher_of(methods: Sequence[Method], student: Method | None = None) -> Method | None:
    """A student's teacher (default: that of most students), or else the study's best on validation rows."""
    teachers = TEACHERS.own(methods)
    students = [student] if student else [method for method in methods if facts.terms(method)]
    used = Counter(name for one in students if (name := one.runs[0].status.get("teacher")))
    of_students = [method for method in teachers if method.runs[0].status.get("teacher") in used]
    return max(of_students, key=lambda method: used[method.runs[0].status["teacher"]], default=best(teachers)[0])


def teacher_shares(methods: Sequence[Method]) -> pd.DataFrame:
    """Each student's accuracy as a share of its teacher's, with bounds, and its share of the teacher's parameters.

    A student of labels alone has no teacher: it is compared with the report's teacher if there is only one.
    """
    rows, several = [], len(TEACHERS.own(methods)) > 1
    for student in (method for method in methods if facts.terms(method)):
        teacher = teacher_of(methods, student)
        if teacher and not (several and facts.on_labels_alone(student)):
            share, low, high = accuracy_share(student.correct, teacher.correct)
            own, of = (method.mean_metric("model/parameters") for method in (student, teacher))
            parameters = own / of if own and of else None
            rows.append((student.name, teacher.name, share, low, high, parameters))
    return pd.DataFrame(rows, columns=["method", "teacher", "share", "share_lo", "share_hi", "parameters"])


def one_of_each(students: Sequence[Method]) -> list[Method]:
    """One method per student and set of terms: the best on validation rows with the most common `distill.unlabelled`."""

    def unlabelled(student: Method) -> str:
        return repr(setting(student.config, "distill.unlabelled"))

    commonest = Counter(unlabelled(student) for student in students if not facts.on_labels_alone(student)).most_common(1)
    groups: dict[tuple[str, str], list[Method]] = {}
    for student in students:
        groups.setdefault((facts.size_name(student), facts.loss_name(student)), []).append(student)
    candidates = [
        [one for one in group if commonest and unlabelled(one) == commonest[0][0]] or group for group in groups.values()
    ]
    return [one for group in candidates if (one := best(group)[0])]


def _votes(results: Results) -> tuple[pd.DataFrame | None, str]:
    """The annotator's votes for the agreement figure, and which texts they are on."""
    if results.annotations is not None:
        return results.annotations, "the texts to be distilled"
    for method in results.methods:
        frame = method.runs[0].predictions
        if {"agreement", "n_samples"} <= set(frame.columns):
            answers = frame[["agreement", "n_samples", "predicted"]].rename(columns={"predicted": "label"})
            return answers.assign(gold=frame["label"]), "the test rows"
    return None, ""


PART = StudentPart(kind=facts.KIND, noun="student")
