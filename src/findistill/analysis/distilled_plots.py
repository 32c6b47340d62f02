"""Figures of a study of distillation from a teacher model; `methods` are those of one test set."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter

from findistill.analysis.intervals import Estimate
from findistill.analysis.methods import LABELS_ALONE, Method, differing, setting, taught_by
from findistill.analysis.plots import BESIDE_GREEN, GREEN, GREY, MARKERS, blank, folded, styled


def size_name(student: Method) -> str:
    return str(setting(student.config, "student.name"))


def terms(student: Method) -> str:
    """What the student learnt from: `kl`, `hidden + attention + soft_ce`, or the labels alone."""
    return taught_by(student.terms)


def sizes(students: Sequence[Method]) -> list[str]:
    """The students' names, smallest first."""
    known = {size_name(student): student.mean_metric("model/parameters") or np.inf for student in students}
    return sorted(known, key=lambda name: known[name])


def pools(students: Sequence[Method]) -> list[list[Method]]:
    """Students that differ in nothing but the size of `distill.pool`, smallest first, where there are several sizes."""
    lines: list[list[Method]] = []
    without = []
    for student in students:
        if student.on_labels_alone:
            continue
        if not _source(student):
            without.append(student)
        elif line := next((line for line in lines if _source(line[0]) == _source(student) and _alike(line[0], student)), None):
            line.append(student)
        else:
            lines.append([student])
    for line in lines:
        line += [student for student in without if _alike(line[0], student)]
        line.sort(key=_unlabelled)
    return [line for line in lines if len(line) > 1]


def _source(student: Method) -> str:
    """The data set of the pool, without its limit."""
    return str(setting(student.config, "distill.pool") or "").partition(" ")[0]


def _alike(one: Method, other: Method) -> bool:
    return set(differing([one.config, other.config])) <= {"distill.pool"}


def _unlabelled(student: Method) -> float:
    return student.mean_metric("data/unlabelled") or 0.0


@styled
def by_size(students: Sequence[Method], teacher: Method | None, estimates: dict[str, dict[str, Estimate]]) -> Figure:
    """Accuracy of each student by what it learnt from, a column a student, the teacher last; one method each."""
    names = sizes(students)
    series = sorted({terms(student) for student in students}, key=lambda name: (name != LABELS_ALONE, name))
    looks = _looks(series)
    figure = blank(10, 4.6)
    axes = figure.subplots()
    for student in students:
        place = series.index(terms(student))
        x = names.index(size_name(student)) + 0.14 * (place - (len(series) - 1) / 2)
        _mark(axes, x, estimates[student.name]["accuracy"], looks[terms(student)])
    ticks = [f"{name}\n{_millions(next(s for s in students if size_name(s) == name))}" for name in names]
    handles = [Line2D([], [], markersize=7, linestyle="", label=folded(name, 60), **looks[name]) for name in series]
    if teacher:
        own: dict[str, Any] = {"color": GREEN, "marker": "D"}
        _mark(axes, len(names), estimates[teacher.name]["accuracy"], own)
        ticks.append(f"teacher\n{_millions(teacher)}")
        handles.append(Line2D([], [], markersize=7, linestyle="", label=folded(teacher.name, 60), **own))
        _of_teacher(axes, estimates[teacher.name]["accuracy"].mean)
    axes.set_xticks(range(len(ticks)), ticks)
    axes.set_xlim(-0.6, len(ticks) - 0.4)
    axes.grid(axis="x", visible=False)
    axes.set(
        title=f"Students by what they learnt from, {students[0].test_set}", ylabel="accuracy with 95% interval over test rows"
    )
    handles.append(Line2D([], [], color="black", marker=".", linestyle="", markersize=4, label="one seed"))
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    return figure


@styled
def by_pool(students: Sequence[Method], teacher: Method | None, estimates: dict[str, dict[str, Estimate]]) -> Figure:
    """Accuracy by the number of unlabelled texts distilled on: a line a student and set of terms; dotted without a teacher."""
    lines = pools(students)
    colours: dict[str, str] = {}  # of a student's first line
    figure = blank(10, 4.6)
    axes = figure.subplots()
    named = {(size_name(line[-1]), terms(line[-1]), _source(line[-1])) for line in lines}  # the first may have no pool
    several = [len({name[part] for name in named}) > 1 for part in (1, 2)]
    places = _apart([[_unlabelled(member) for member in members] for members in lines])
    for place, (members, x) in enumerate(zip(lines, places, strict=True)):
        name = size_name(members[0])
        look: dict[str, Any] = {"color": BESIDE_GREEN[place % len(BESIDE_GREEN)], "marker": MARKERS[place % len(MARKERS)]}
        colours.setdefault(name, look["color"])
        found = [estimates[member.name]["accuracy"] for member in members]
        told = [part for part, shown in zip((terms(members[-1]), _source(members[-1])), several, strict=True) if shown]
        axes.plot(x, [one.mean for one in found], lw=1.5, label=", ".join([name, *told]), markersize=8, **look)
        for at, one in zip(x, found, strict=True):
            _spread(axes, at, one, look["color"])
    for name in sizes(students):
        alone = [student for student in students if student.on_labels_alone and size_name(student) == name]
        if alone and name in colours:
            mean = estimates[alone[0].name]["accuracy"].mean
            axes.axhline(mean, color=colours[name], lw=1.2, linestyle=":", label=f"{name}, {LABELS_ALONE}", zorder=1)
    if teacher:
        mean = estimates[teacher.name]["accuracy"].mean
        axes.axhline(mean, color=GREEN, lw=1.4, linestyle="--", label=folded(teacher.name, 60))
        _of_teacher(axes, mean)
    axes.set(title=f"Unlabelled texts, {students[0].test_set}", ylabel="accuracy with 95% interval over test rows")
    axes.set_xlabel("unlabelled texts that the teacher labelled")
    axes.xaxis.set_major_formatter(lambda x, _: f"{x:,.0f}")
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def _apart(lines: Sequence[Sequence[float]]) -> list[list[float]]:
    """The same places, those that would lie on each other moved to the right of the one before."""
    step = 0.012 * max(x for line in lines for x in line)
    moved = [list(line) for line in lines]
    before = -np.inf
    for x, line, at in sorted((x, line, at) for line, xs in enumerate(lines) for at, x in enumerate(xs)):
        before = moved[line][at] = max(x, before + step)
    return moved


def _looks(series: Sequence[str]) -> dict[str, dict[str, Any]]:
    taught = [name for name in series if name != LABELS_ALONE]
    looks: dict[str, dict[str, Any]] = {
        name: {"color": BESIDE_GREEN[at % len(BESIDE_GREEN)], "marker": MARKERS[at % len(MARKERS)]}
        for at, name in enumerate(taught)
    }
    return looks | {LABELS_ALONE: {"color": GREY, "marker": "X"}}


def _mark(axes: Axes, x: float, one: Estimate, look: dict[str, Any]) -> None:
    axes.plot(x, one.mean, markersize=8, linestyle="", **look)
    _spread(axes, x, one, look["color"])
    axes.annotate(f"{one.mean:.3f}", (x, one.high), xytext=(0, 3), textcoords="offset points", ha="center", fontsize=8.5)


def _spread(axes: Axes, x: float, one: Estimate, colour: str) -> None:
    """The interval over test rows, and the single seeds."""
    axes.vlines(x, one.low, one.high, color=colour, lw=4, alpha=0.3)
    if len(one.per_seed) > 1:
        axes.plot([x] * len(one.per_seed), one.per_seed, ".", color="black", markersize=3)


def _of_teacher(axes: Axes, accuracy: float) -> None:
    """A second scale: accuracy as a share of the teacher's."""
    to_share, back = (lambda y: np.divide(y, accuracy)), (lambda share: np.multiply(share, accuracy))
    second = axes.secondary_yaxis("right", functions=(to_share, back))
    second.set_ylabel("share of the teacher's accuracy")
    second.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))


def _millions(method: Method) -> str:
    count = method.mean_metric("model/parameters")
    return f"{count / 1e6:.1f} M parameters" if count else ""
