"""Scores of methods by the number of human labels that they may use: the curve that shows when a baseline is enough."""

import json
from collections.abc import Collection, Mapping, Sequence

from matplotlib.figure import Figure

from findistill.config.overrides import flatten
from findistill.report import style
from findistill.report.methods import Method, deciding, setting
from findistill.report.parts import BASELINE
from findistill.report.plots import SCORES
from findistill.stats.intervals import Estimate

BUDGET = "data.labelled"

Point = tuple[int, Mapping[str, Estimate]]  # a number of labels, and the scores with it


def series(methods: Sequence[Method]) -> dict[str, list[Method]]:
    """Methods that differ only in the number of labels, fewest labels first, by name; those with one number are left out."""
    groups: dict[tuple[str, str], list[Method]] = {}
    for method in methods:
        if setting(method.config, BUDGET):
            same = {key: value for key, value in flatten(deciding(method.config)).items() if key != BUDGET}
            groups.setdefault((method.runs[0].method, json.dumps(same, sort_keys=True, default=str)), []).append(method)
    curves: dict[str, list[Method]] = {}
    for (name, _), members in groups.items():
        if len(members) > 1:
            number = sum(other == name or other.startswith(f"{name} #") for other in curves)
            key = f"{name} #{number + 1}" if number else name
            curves[key] = sorted(members, key=lambda member: setting(member.config, BUDGET))
    return curves


def by_labels(curves: Mapping[str, Sequence[Method]], estimates: Mapping[str, Mapping[str, Estimate]]) -> Figure:
    """Accuracy and macro F1 with 95% intervals by the number of labels, one line per method; dashed lines are baselines."""
    points = {
        name: [(setting(member.config, BUDGET), estimates[member.name]) for member in members] for name, members in curves.items()
    }
    return figure_of(points, dashed={name for name, members in curves.items() if members[0].kind == BASELINE})


def figure_of(curves: Mapping[str, Sequence[Point]], dashed: Collection[str] = ()) -> Figure:
    """`by_labels` of points from anywhere, such as tables of several sweeps: lines by name, those in `dashed` dashed."""
    budgets = sorted({labels for points in curves.values() for labels, _ in points})
    figure = style.blank(10, 5.2)
    panels, looks = figure.subplots(1, 2), style.looks(list(curves))
    for axes, (key, title) in zip(panels, SCORES, strict=True):
        for place, (name, points) in enumerate(curves.items()):
            look = looks[name] | {"linestyle": "--" if name in dashed else "-"}
            own = [estimates[key] for _, estimates in points]
            # Side by side: bars of one budget would hide each other.
            x = [labels * 1.03 ** (place - (len(curves) - 1) / 2) for labels, _ in points]
            axes.plot(x, [one.mean for one in own], label=style.folded(name, 60), markersize=6, **look)
            for at, one in zip(x, own, strict=True):
                axes.vlines(at, one.low, one.high, color=look["color"], lw=2.5, alpha=0.35)
        axes.set_xscale("log")
        axes.set_xticks(budgets, [f"{budget:,}" for budget in budgets])
        axes.minorticks_off()
        axes.set(title=title, ylabel=f"{title[0].lower()}{title[1:]} with 95% interval", xlabel="human labels")
    style.shared_legend(figure, panels[0], columns=2)
    return figure
