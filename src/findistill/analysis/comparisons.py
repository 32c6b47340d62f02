"""Which methods are the best, and whether they differ: paired tests in families, adjusted by Holm."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np

from findistill.analysis.intervals import Paired, holm, paired, paired_macro_f1
from findistill.analysis.methods import Method, differing, setting
from findistill.analysis.metrics import confusion, scores

SELECTED_BY = "val/macro_f1"
DIFFER_IN = "annotators that differ in "
BEST_ANNOTATOR = "best annotator against the rest"
SHOTS_DIFFER_IN = "few-shot methods that differ in "
AGAINST_NONE = "demonstrations against none"
AGAINST_TUNED = "best few-shot method against the others"
OWN_PROMPTS = "a fine-tuned model against its own prompts"
AGAINST_CLASSIFIERS = "fine-tuned language models against classifiers"
AGAINST_LABELS = "distilled against labels alone"
TAUGHT_DIFFER_IN = "distilled students that differ in "
TEACHERS_DIFFER_IN = "teachers that differ in "
# What presets set together counts as one setting: an llm, a prompt; of trained models also these, by what their keys begin with.
SECTIONS = {"llm": ("llm.",), "prompt": ("prompt.",)}
GROUPS = {
    **SECTIONS,
    "trainer": ("trainer.",),
    "student": ("student.",),
    "teacher": ("teacher.",),
    "distill.terms": ("distill.terms.", "distill.objective", "distill.temperature", "distill.intermediate."),
}


@dataclass(frozen=True)
class Comparison:
    """Method a minus method b on the same test rows."""

    test_set: str
    family: str
    a: str
    b: str
    rows: int
    accuracy: Paired
    macro_f1: Paired
    p_holm: float
    main: bool = False  # the study's own question: best CLS against best REG


def best(methods: list[Method]) -> tuple[Method | None, bool]:
    """The method with the highest mean validation macro F1, and True.

    Where a method has no validation score the *test* split decides, which favours the chosen one, and False says so.
    """
    if not methods:
        return None, True
    validated = [method.mean_metric(SELECTED_BY) for method in methods]
    fair = all(value is not None for value in validated)
    ranked = [value or 0.0 for value in validated] if fair else [_test_macro_f1(method) for method in methods]
    return methods[int(np.argmax(ranked))], fair


def compare(methods: list[Method], *, resamples: int = 2000) -> list[Comparison]:
    """Paired tests per test set, in two families, p-values adjusted by Holm within each.

    "CLS against REG": the best of each (the study's main question), and the two at each agreement threshold (students
    otherwise equal). "Best student against the rest": against every teacher and baseline. "Annotators that differ in
    <setting>": pairs that are otherwise equal, a family a setting. "Best annotator against the rest": the baselines.
    Of few-shot methods: pairs that differ in one setting, each number of demonstrations against none, the best against
    fine-tuned models and baselines, and each against the same language model fine-tuned. Fine-tuned language models
    against classifiers that learnt from human labels. Of models that learnt from human labels or a teacher model: pairs
    that differ in one setting, and each distilled student against the same student on labels alone.
    """
    found: list[Comparison] = []
    pairs: list[tuple[Method, Method]]
    for test_set in dict.fromkeys(method.test_set for method in methods):
        here = [method for method in methods if method.test_set == test_set]
        students = [method for method in here if method.kind == "student"]
        best_cls, _ = best([student for student in students if student.objective == "CLS"])
        best_reg, _ = best([student for student in students if student.objective == "REG"])
        pairs = [(best_cls, best_reg)] if best_cls and best_reg else []
        pairs += [
            (a, b)
            for a in students
            for b in students
            if (a.objective, b.objective) == ("CLS", "REG") and a.threshold == b.threshold and _same_but_loss(a, b)
        ]
        found += _family("CLS against REG", _once(pairs), resamples, main=True)
        winner, _ = best(students)
        if winner:
            others = [(winner, method) for method in here if method.kind != "student"]
            found += _family("best student against the rest", others, resamples, main=False)
        annotators = [method for method in here if method.kind == "annotator"]
        for axis, pairs in pairs_by_setting(annotators).items():
            found += _family(DIFFER_IN + axis, pairs, resamples, main=False)
        winner, _ = best(annotators)
        if winner:
            others = [(winner, method) for method in here if method.kind == "baseline"]
            found += _family(BEST_ANNOTATOR, others, resamples, main=False)
        asked = [method for method in here if method.kind == "fewshot"]
        found += _family(AGAINST_NONE, _against_none(asked), resamples, main=False)
        for axis, pairs in pairs_by_setting(asked).items():
            if axis != "shots.k":
                found += _family(SHOTS_DIFFER_IN + axis, pairs, resamples, main=False)
        winner, _ = best(asked)
        if winner:
            others = [(winner, method) for method in here if method.kind != "fewshot"]
            found += _family(AGAINST_TUNED, others, resamples, main=False)
        tuned = [method for method in here if method.kind == "qlora"]
        pairs = [(a, b) for a in tuned for b in asked if value_of(a, "llm") == value_of(b, "llm")]
        found += _family(OWN_PROMPTS, pairs, resamples, main=False)
        pairs = [(a, b) for a in tuned for b in here if b.kind == "teacher"]
        found += _family(AGAINST_CLASSIFIERS, pairs, resamples, main=False)
        taught = [student for student in students if student.terms]
        found += _family(AGAINST_LABELS, _against_labels(taught), resamples, main=False)
        by_kind = {
            TAUGHT_DIFFER_IN: [student for student in taught if not student.on_labels_alone],
            TEACHERS_DIFFER_IN: [method for method in here if method.kind == "teacher"],
        }
        for family, members in by_kind.items():
            for axis, pairs in pairs_by_setting(members, GROUPS).items():
                if axis == "distill.recipe":  # faults are each compared with the recipe that has none
                    pairs = [(a, b) if value_of(b, axis) == "fixed" else (b, a) for a, b in pairs
                             if "fixed" in (value_of(a, axis), value_of(b, axis))]  # fmt: skip
                found += _family(family + axis, pairs, resamples, main=False)
    return found


def pairs_by_setting(
    methods: list[Method], groups: Mapping[str, tuple[str, ...]] = SECTIONS
) -> dict[str, list[tuple[Method, Method]]]:
    """Pairs of methods that differ in one setting alone, by that setting; each of `groups` counts as one.

    The first of a pair has the larger number, or the name that comes first in the alphabet.
    """
    found: dict[str, list[tuple[Method, Method]]] = {}
    for a, b in combinations(methods, 2):
        if axis := _axis(differing([a.config, b.config]), groups):
            found.setdefault(axis, []).append((b, a) if _rank(b, axis) < _rank(a, axis) else (a, b))
    return found


def _axis(keys: list[str], groups: Mapping[str, tuple[str, ...]]) -> str | None:
    """The one setting, or group of settings, that these keys are; None where they are several."""
    if len(keys) == 1 and keys[0].partition(".")[0] not in SECTIONS:
        return keys[0]
    names = {next((name for name, begins in groups.items() if key.startswith(begins)), key) for key in keys}
    return names.pop() if len(names) == 1 else None


def _against_labels(taught: list[Method]) -> list[tuple[Method, Method]]:
    """Each distilled student, and the student that is otherwise equal but had no teacher."""
    alone = [method for method in taught if method.on_labels_alone]
    return [
        (method, bare)
        for method in taught
        for bare in alone
        if not method.on_labels_alone
        and all(key.startswith(("distill.", "teacher.")) for key in differing([method.config, bare.config]))
    ]


def _against_none(asked: list[Method]) -> list[tuple[Method, Method]]:
    """Each few-shot method with demonstrations, and the one without that is otherwise equal."""
    none = [method for method in asked if setting(method.config, "shots.k") == 0]
    return [
        (method, bare)
        for method in asked
        for bare in none
        if method is not bare and set(differing([method.config, bare.config])) <= {"shots.k", "shots.selection"}
    ]


def value_of(method: Method, axis: str) -> Any:
    """The setting as `pairs_by_setting` names it: an llm, a prompt, a teacher, a student by their names."""
    return setting(method.config, f"{axis}.name" if axis in ("llm", "prompt", "student", "teacher") else axis)


def _rank(method: Method, axis: str) -> tuple[int, float, str]:
    value = value_of(method, axis)
    if value is None:
        return (2, 0.0, "")
    return (0, -value, "") if isinstance(value, int | float) else (1, 0.0, str(value))


def _family(name: str, pairs: list[tuple[Method, Method]], resamples: int, *, main: bool) -> list[Comparison]:
    made = [
        Comparison(
            a.test_set,
            name,
            a.name,
            b.name,
            len(a.ids),
            paired(a.correct, b.correct, a.ids, b.ids, resamples=resamples),
            paired_macro_f1(a.gold, a.predicted, b.predicted, len(a.labels), resamples=resamples),
            p_holm=1.0,
            main=main and index == 0,
        )
        for index, (a, b) in enumerate(pairs)
    ]
    adjusted = holm([one.accuracy.p or 0.0 for one in made])
    return [replace(one, p_holm=p) for one, p in zip(made, adjusted, strict=True)]


def _once(pairs: list[tuple[Method, Method]]) -> list[tuple[Method, Method]]:
    return list({(a.name, b.name): (a, b) for a, b in pairs}.values())


def _same_but_loss(a: Method, b: Method) -> bool:
    same_votes = setting(a.config, "distill.votes") == setting(b.config, "distill.votes")
    return same_votes and all(key.startswith("distill.") for key in differing([a.config, b.config]))


def _test_macro_f1(method: Method) -> float:
    tables = np.stack([confusion(method.gold, one, len(method.labels)) for one in method.predicted])
    return float(scores(tables)["macro_f1"].mean())
