"""Paired tests between methods on the same rows: the families come from the report parts, p-values are adjusted by Holm."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from findistill.report import parts
from findistill.report.methods import Method, setting
from findistill.report.parts import Family
from findistill.report.tables import points
from findistill.stats.metrics import confusion, scores
from findistill.stats.significance import Paired, holm, paired

SELECTED_BY = "val/macro_f1"
# Presets that set several keys but count as one setting: name -> the prefixes of its keys.
PRESETS = {"llm": ("llm.",), "prompt": ("prompt.",)}
TRAINED_PRESETS = {  # and of trained models
    **{section: (f"{section}.",) for section in ("llm", "prompt", "trainer", "student", "teacher")},
    "distill.terms": ("distill.terms.", "distill.objective", "distill.temperature", "distill.intermediate."),
}


@dataclass(frozen=True)
class Comparison:
    """Method a minus method b on the same test rows; `contrast` is the setting in which they differ, if it is only one."""

    test_set: str
    family: str
    contrast: str
    a: str
    b: str
    n_rows: int
    n_seeds_a: int
    n_seeds_b: int
    accuracy: Paired
    macro_f1: Paired
    p_holm: float
    main: bool = False


def best(methods: Sequence[Method]) -> tuple[Method | None, bool]:
    """The method with the highest mean validation macro F1, and True.

    If a method has no validation score, or they were validated on different labels (votes of different annotators), the
    *test* split decides, which is biased in favour of the selected one, and the second value is False.
    """
    if not methods:
        return None, True
    validated = [method.mean_metric(SELECTED_BY) for method in methods]
    labels = {parts.of_kind(method.kind).validated_on(method) for method in methods}
    fair = len(labels) == 1 and all(value is not None for value in validated)
    ranked = [value or 0.0 for value in validated] if fair else [_test_macro_f1(method) for method in methods]
    return methods[int(np.argmax(ranked))], fair


Families = Callable[[Sequence[Method]], Iterable[Family]]


def compare(methods: Sequence[Method], *, resamples: int = 2000, families: Families | None = None) -> list[Comparison]:
    """Paired tests, one test set at a time; p-values adjusted by Holm within each family.

    Args:
        families: of the methods of one test set; by default those of all report parts.
    """
    families = families or _of_parts
    comparisons: list[Comparison] = []
    for test_set in dict.fromkeys(method.test_set for method in methods):
        here = [method for method in methods if method.test_set == test_set]
        for family in families(here):
            comparisons += _tested(family, resamples)
    return comparisons


def _of_parts(methods: Sequence[Method]) -> Iterator[Family]:
    for part in parts.registered().values():
        yield from part.families(methods)


def comparisons_table(comparisons: Sequence[Comparison]) -> pd.DataFrame:
    """All numbers of the paired tests, one row per test, for comparisons.csv."""
    rows = []
    for one in comparisons:
        gaps = {"accuracy": one.accuracy, "macro_f1": one.macro_f1}
        differences = {f"{metric}_difference": gap.difference for metric, gap in gaps.items()}
        intervals = {
            f"{metric}_{end}": value for metric, gap in gaps.items() for end, value in (("lo", gap.low), ("hi", gap.high))
        }
        rows.append({**vars(one), **differences, **intervals, "p": one.accuracy.p, "over": one.accuracy.over})
    return pd.DataFrame(rows, columns=[
        "test_set", "family", "contrast", "a", "b", "accuracy_difference", "accuracy_lo", "accuracy_hi", "macro_f1_difference",
        "macro_f1_lo", "macro_f1_hi", "p", "p_holm", "over", "n_rows", "n_seeds_a", "n_seeds_b",
    ])  # fmt: skip


def contrasts_table(comparisons: Sequence[Comparison]) -> pd.DataFrame:
    """The pairs of each contrast averaged, as text: the effect of a setting, all else equal."""
    groups: dict[tuple[str, str], list[Comparison]] = {}
    for one in (one for one in comparisons if one.contrast):
        groups.setdefault((one.family, one.contrast), []).append(one)
    rows = []
    for (family, contrast), group in groups.items():
        gaps = [one.accuracy.difference for one in group]
        mean, least, most = (points(value) for value in (float(np.mean(gaps)), min(gaps), max(gaps)))
        rows.append((family, contrast, f"{len(group)}", mean, least, most, f"{sum(one.p_holm < 0.05 for one in group)}"))
    columns = ["Family", "A against B", "Pairs", "Accuracy, mean", "Least", "Most", "p < 0.05, Holm"]
    return pd.DataFrame(rows, columns=columns)


def setting_families(
    prefix: str, methods: Sequence[Method], presets: Mapping[str, tuple[str, ...]] = PRESETS
) -> Iterable[Family]:
    """Pairs of methods that differ in only one setting, one family per setting: `<prefix><setting>`."""
    for axis, pairs in pairs_by_setting(methods, presets).items():
        yield Family(prefix + axis, pairs, partial(contrast, axis))


def contrast(axis: str, a: Method, b: Method) -> str:
    """`prompt=cot against direct`; empty if the values are sections without a name."""
    values = [value_of(method, axis) for method in (a, b)]
    if any(isinstance(value, Mapping) for value in values):
        return ""
    first, second = ("none" if value in (None, "") else value for value in values)
    return f"{axis}={first} against {second}"


def pairs_by_setting(
    methods: Sequence[Method], presets: Mapping[str, tuple[str, ...]] = PRESETS
) -> dict[str, list[tuple[Method, Method]]]:
    """Pairs of methods that differ in only one setting, by that setting; each of `presets` counts as one.

    The first of a pair has the larger number, or the name that comes first in the alphabet.
    """
    pairs: dict[str, list[tuple[Method, Method]]] = {}
    for a, b in combinations(methods, 2):
        if axis := _axis(a.differs_in(b), presets):
            pairs.setdefault(axis, []).append((b, a) if _rank(b, axis) < _rank(a, axis) else (a, b))
    return pairs


def _axis(keys: list[str], presets: Mapping[str, tuple[str, ...]]) -> str | None:
    """The one setting, or preset, that these keys belong to; None if there are several."""
    if len(keys) == 1 and keys[0].partition(".")[0] not in PRESETS:
        return keys[0]
    names = {next((name for name, begins in presets.items() if key.startswith(begins)), key) for key in keys}
    return names.pop() if len(names) == 1 else None


def value_of(method: Method, axis: str) -> Any:
    """The value of a setting of `pairs_by_setting`; for a section (an llm, a prompt, a student), its name."""
    value = setting(method.config, axis)
    return value.get("name", value) if isinstance(value, Mapping) else value


def _rank(method: Method, axis: str) -> tuple[int, float, str]:
    value = value_of(method, axis)
    if value is None:
        return (2, 0.0, "")
    return (0, -value, "") if isinstance(value, int | float) else (1, 0.0, str(value))


def _tested(family: Family, resamples: int) -> list[Comparison]:
    gaps = [
        paired(a.gold, a.predicted, b.predicted, len(a.labels), seeds_a=a.units, seeds_b=b.units, resamples=resamples)
        for a, b in family.pairs
    ]
    adjusted = holm([gap["accuracy"].p or 0.0 for gap in gaps])
    return [
        Comparison(
            a.test_set, family.name, family.contrast(a, b) if family.contrast else "", a.name, b.name, len(a.ids),
            len(set(a.units)), len(set(b.units)), gap["accuracy"], gap["macro_f1"], p, main=family.main and index == 0,
        )
        for index, ((a, b), gap, p) in enumerate(zip(family.pairs, gaps, adjusted, strict=True))
    ]  # fmt: skip


def _test_macro_f1(method: Method) -> float:
    tables = np.stack([confusion(method.gold, one, len(method.labels)) for one in method.predicted])
    return float(scores(tables)["macro_f1"].mean())
