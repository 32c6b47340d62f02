"""Figures of students: by agreement threshold, by objective, by size and terms, by unlabelled texts; one test set each."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from findistill.methods.distil import students as facts
from findistill.methods.distil.students import LABELS_ALONE
from findistill.report import style
from findistill.report.glyphs import label_names
from findistill.report.methods import Method, setting
from findistill.report.plots import RECALLS, SCORES
from findistill.report.style import BESIDE_GREEN, GREEN, GREY, SERIES
from findistill.stats.curves import precision_recall
from findistill.stats.intervals import Estimate

Estimates = Mapping[str, Mapping[str, Estimate]]
TEACHER: dict[str, Any] = {"color": GREEN, "marker": "D"}
ACCURACY = "accuracy with 95% interval"


def thresholds(methods: Sequence[Method], estimates: Estimates) -> Figure:
    """Accuracy and macro F1 of the students by agreement threshold, and the share of texts that each threshold keeps.

    Bars are 95% intervals, small marks single seeds, horizontal lines the teachers and baselines, with
    their accuracy and macro F1 in the legend; a line far from the students is off the scale.
    """
    series = facts.threshold_series(methods)
    figure = style.blank(10, 4.9)
    left, right, share_axes = figure.subplots(1, 3, width_ratios=(1, 1, 0.72))
    ticks = sorted({value for members in series.values() for one in members if (value := facts.threshold(one)) is not None})
    samples = setting(methods[0].config, "annotate.samples")
    for axes, (key, title) in zip((left, right), SCORES, strict=True):
        for place, (name, members) in enumerate(series.items()):
            x = [(facts.threshold(one) or 0) + 0.16 * (place - (len(series) - 1) / 2) for one in members]
            _marked_line(axes, x, [estimates[one.name][key] for one in members], name, style.look_of(place), size=7)
        low, high = axes.get_ylim()
        reach = 2.0 * max(high - low, 0.05)  # lines farther off would flatten the students; their values are in the legend
        for place, method in enumerate(method for method in methods if method.kind != facts.KIND):
            level = estimates[method.name][key].mean
            values = " / ".join(f"{estimates[method.name][each].mean:.3f}" for each, _ in SCORES)
            colour = GREEN if method.kind == "teacher" else None
            style.reference_line(axes, level, f"{method.name}: {values}", place=place, colour=colour)
            if low - reach <= level <= high + reach:
                low, high = min(low, level - 0.01), max(high, level + 0.01)
        axes.set(title=title, ylabel=title[0].lower() + title[1:], ylim=(low, high))
        axes.set_xlabel("agreement threshold" + (f" (answers of {samples})" if samples else ""))
    shares: dict[Any, float] = {}
    for members in series.values():  # every series trains on the same annotated texts: the first that has shares will do
        recorded = {facts.threshold(one): one.mean_metric("data/kept_share") for one in members}
        shares = shares or {at: share for at, share in recorded.items() if share is not None}
    share_axes.plot(list(shares), list(shares.values()), color=GREY, marker="o", markersize=6)
    for at, share in shares.items():
        style.write_above(share_axes, f"{share:.0%}", at, share, offset=(5, 5), ha="left")
    share_axes.set(
        title="Texts kept for training", xlabel="agreement threshold", ylabel="share of annotated texts", ylim=(0, 1.1)
    )
    style.percent(share_axes.yaxis, decimals=None)
    share_axes.margins(x=0.16)
    for axes in (left, right, share_axes):
        axes.set_xticks(ticks, [f"≥{tick}" for tick in ticks])
    style.shared_legend(figure, left, columns=3)
    return figure


def objective_curves(methods: Sequence[Method]) -> Figure:
    """Precision-recall curves by objective: one panel per class and one for micro, mean over seeds.

    Each series shows only its loosest (pale) and strictest threshold, as more curves could not be distinguished.
    """
    series = facts.threshold_series(methods)
    labels = label_names(methods[0].labels)
    keys: list[Any] = [*range(len(labels)), "micro"]
    columns = 2 if len(keys) <= 4 else 3
    figure = style.blank(10, 3.3 * -(-len(keys) // columns) + 0.9)
    every = style.panels(figure, len(keys), columns)
    lowest = 1.0
    for place, members in enumerate(series.values()):
        for one in members[:1] if members[0].name == members[-1].name else (members[0], members[-1]):
            curves = [precision_recall(one.gold, each) for each in one.probabilities]
            strength = 1.0 if one is members[-1] else 0.45
            colour = tuple(1 - strength * (1 - part) for part in to_rgb(SERIES[place % len(SERIES)]))  # mixed with white
            label = f"{one.name}, micro AP {np.mean([curve['micro'].average_precision for curve in curves]):.3f}"
            for axes, key in zip(every, keys, strict=True):
                if key in curves[0]:
                    mean = np.mean([curve[key].at(RECALLS) for curve in curves], axis=0)
                    axes.plot(RECALLS, mean, color=colour, linestyle=style.LINES[place % 4], lw=1.6, label=label)
                    lowest = min(lowest, float(mean.min()))
    for axes, key in zip(every, keys, strict=True):
        axes.set(title="All labels pooled (micro)" if key == "micro" else labels[key].strip(), xlim=(0, 1))
        axes.set_ylim(max(0.0, lowest - 0.03), 1.01)
    for axes in every[-columns:]:
        axes.set_xlabel("recall")
    for axes in every[::columns]:
        axes.set_ylabel("precision")
    style.shared_legend(figure, every[-1], columns=2 if len(series) == 2 else 3)
    return figure


def by_size(students: Sequence[Method], teacher: Method | None, estimates: Estimates) -> Figure:
    """Accuracy of each student by its loss terms: one column per student, the teacher last; one method each."""
    sizes = facts.sizes(students)
    series = sorted({facts.loss_name(student) for student in students}, key=lambda name: (name != LABELS_ALONE, name))
    looks = {name: style.look_of(at, BESIDE_GREEN) for at, name in enumerate(name for name in series if name != LABELS_ALONE)}
    looks[LABELS_ALONE] = {"color": GREY, "marker": "X"}
    figure, axes = style.canvas(4.6, title=f"Students by their loss terms, {students[0].test_set}", ylabel=ACCURACY)
    for student in students:
        place = series.index(facts.loss_name(student))
        x = sizes.index(facts.size_name(student)) + 0.14 * (place - (len(series) - 1) / 2)
        _labelled_mark(axes, x, estimates[student.name]["accuracy"], looks[series[place]])
    columns = {name: next(student for student in students if facts.size_name(student) == name) for name in sizes}
    entries = {style.folded(name, 60): looks[name] for name in series}
    if teacher:
        _labelled_mark(axes, len(sizes), estimates[teacher.name]["accuracy"], TEACHER)
        columns["teacher"] = teacher
        entries[style.folded(teacher.name, 60)] = TEACHER
        _share_of_teacher(axes, estimates[teacher.name]["accuracy"].mean)
    axes.set_xticks(range(len(columns)), [f"{name}\n{_millions(method)}" for name, method in columns.items()])
    axes.set_xlim(-0.6, len(columns) - 0.4)
    axes.grid(axis="x", visible=False)
    handles = [style.handle(name, look) for name, look in entries.items()]
    handles.append(style.handle("one seed", {"color": "black", "marker": "."}, markersize=4))
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    return figure


def by_unlabelled(students: Sequence[Method], teacher: Method | None, estimates: Estimates) -> Figure:
    """Accuracy by the number of unlabelled texts: one line per student and set of terms, dotted without a teacher.

    The x-axis is not to scale, so that marks at the same number can be placed side by side.
    """
    lines = facts.unlabelled_series(students)
    numbers = sorted({facts.unlabelled_texts(member) for members in lines for member in members})
    names = [(facts.size_name(line[-1]), facts.loss_name(line[-1]), facts.unlabelled_source(line[-1])) for line in lines]
    varied = [part for part in range(3) if part == 0 or len({name[part] for name in names}) > 1]
    colours: dict[str, str] = {}  # by student, from its first line
    figure, axes = style.canvas(4.6, title=f"Unlabelled texts, {students[0].test_set}", ylabel=ACCURACY)
    axes.set_xlabel("unlabelled texts that the teacher labelled (not to scale)")
    for place, (members, name) in enumerate(zip(lines, names, strict=True)):
        look = style.look_of(place, BESIDE_GREEN)
        colours.setdefault(name[0], look["color"])
        x = [numbers.index(facts.unlabelled_texts(member)) + 0.07 * (place - (len(lines) - 1) / 2) for member in members]
        own = [estimates[member.name]["accuracy"] for member in members]
        _marked_line(axes, x, own, ", ".join(name[part] for part in varied), look, size=8, lw=1.5)
    for student in facts.sizes(students):
        alone = [method for method in students if facts.on_labels_alone(method) and facts.size_name(method) == student]
        if alone and student in colours:
            level, label = estimates[alone[0].name]["accuracy"].mean, f"{student}, {LABELS_ALONE}"
            style.reference_line(axes, level, label, colour=colours[student], linestyle=":", lw=1.2)
    if teacher:
        level = estimates[teacher.name]["accuracy"].mean
        style.reference_line(axes, level, style.folded(teacher.name, 60), colour=GREEN)
        _share_of_teacher(axes, level)
    axes.set_xticks(range(len(numbers)), [f"{number:,.0f}" for number in numbers])
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def _marked_line(
    axes: Axes, x: Sequence[float], own: Sequence[Estimate], label: str, look: dict[str, Any], *, size: float, **line: Any
) -> None:
    """Means as a line, each with its interval and single seeds."""
    axes.plot(x, [one.mean for one in own], label=label, markersize=size, **line, **look)
    for at, one in zip(x, own, strict=True):
        style.mark(axes, at, one, look, size=size)


def _labelled_mark(axes: Axes, x: float, one: Estimate, look: dict[str, Any]) -> None:
    style.mark(axes, x, one, look)
    style.write_above(axes, f"{one.mean:.3f}", x, one.high, fontsize=8.5)


def _share_of_teacher(axes: Axes, accuracy: float) -> None:
    """A second scale: accuracy as a share of the teacher's."""
    to_share, back = (lambda y: np.divide(y, accuracy)), (lambda share: np.multiply(share, accuracy))
    second = axes.secondary_yaxis("right", functions=(to_share, back))
    second.set_ylabel("accuracy relative to the teacher's")
    style.percent(second.yaxis)


def _millions(method: Method) -> str:
    count = method.mean_metric("model/parameters")
    return f"{count / 1e6:.1f} M parameters" if count else ""
