"""Figures of a study of annotators; `methods` are the annotators of one test set, in the order of the table."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator, PercentFormatter

from findistill.analysis.intervals import Estimate
from findistill.analysis.methods import Method
from findistill.analysis.plots import GREY, MARKERS, SERIES, blank, folded, styled

PANELS = 4  # in a row
STEPS = (1, 1.5, 2, 3, 4, 5, 6, 8)  # of a logarithmic axis, in each decade


@styled
def samples(methods: Sequence[Method]) -> Figure:
    """Accuracy of the majority of m samples by m: a line a method, a band from its lowest to its highest repeat."""
    drawn = {method.name: method.by_number("annotate/accuracy_samples_{}") for method in methods}
    figure = blank(10, max(4.2, 1.2 + legend_height(methods)))
    axes = figure.subplots()
    for name, look in looks(methods).items():
        if values := drawn[name]:
            x, y = list(values), np.array(list(values.values()))
            axes.plot(x, y.mean(1), markersize=5, label=folded(name, 34), **look)
            if y.shape[1] > 1:
                axes.fill_between(x, y.min(1), y.max(1), color=look["color"], alpha=0.12, lw=0)
    axes.set(title=f"Accuracy by number of samples, {methods[0].test_set}")
    axes.set(xlabel="samples in the majority vote", ylabel="accuracy")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    side_legend(figure, axes, last=lambda line: float(line.get_ydata()[-1]))
    return figure


@styled
def coverage(methods: Sequence[Method]) -> Figure:
    """Accuracy of the texts kept at each agreement threshold against their share: a panel a method, the others in grey."""
    curves = {}
    for method in methods:
        accuracy, share = method.by_number("annotate/accuracy_at_{}"), method.by_number("annotate/kept_share_{}")
        at = [threshold for threshold in accuracy if threshold in share]
        curves[method.name] = (at, [share[t].mean() for t in at], [accuracy[t].mean() for t in at])
    columns = min(PANELS, len(methods))
    rows = -(-len(methods) // columns)
    titles = {name: folded(name, 26 if columns == PANELS else 34) for name in curves}
    tallest = max(len(title.splitlines()) for title in titles.values())
    figure = blank(10, 0.7 + (2.1 + 0.16 * tallest) * rows if columns == PANELS else 3.8)
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for axes, (name, look) in zip(panels, looks(methods).items(), strict=False):
        for other, (_, xs, ys) in curves.items():
            if other != name:
                axes.plot(xs, ys, color="#cccccc", lw=0.9, zorder=1)
        thresholds, xs, ys = curves[name]
        axes.plot(xs, ys, markersize=4.5, **look)
        for threshold, x, y, following in zip(thresholds, xs, ys, [*xs[1:], -1.0], strict=True):
            if x - following > 0.06:  # thresholds that keep almost the same texts would be written over one another
                axes.annotate(f"≥{threshold}", (x, y), xytext=(0, 6), textcoords="offset points", ha="center", fontsize=8)
        axes.set_title(titles[name], fontsize=9)
        axes.set_xlim(1.04, -0.04)
        axes.set_xticks([1.0, 0.75, 0.5, 0.25])
        axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.margins(y=0.12)
    for axes in panels[len(methods) :]:
        axes.set_visible(False)
    for axes in panels[max(0, len(methods) - columns) : len(methods)]:
        axes.tick_params(labelbottom=True)
    figure.supxlabel("share of texts kept (coverage)", fontsize=10)
    figure.supylabel("accuracy of the texts kept", fontsize=10)
    figure.suptitle(
        f"Accuracy by agreement threshold, {methods[0].test_set}", fontsize=10.5, fontweight="bold", x=0.01, ha="left"
    )
    return figure


@styled
def cost(methods: Sequence[Method], estimates: dict[str, dict[str, Estimate]]) -> Figure:
    """Accuracy with its 95% interval against US dollars for 1,000 texts, or tokens a text unless all have a price."""
    dollars = [method.mean_metric("cost/usd_per_1000_texts") for method in methods]
    priced = all(dollars)
    spent = dollars if priced else [method.mean_metric("annotate/tokens_per_text") for method in methods]
    figure = blank(10, max(4.2, 1.2 + legend_height(methods)))
    axes = figure.subplots()
    reached = []
    for (name, look), x in zip(looks(methods).items(), spent, strict=True):
        if x:
            one = estimates[name]["accuracy"]
            axes.vlines(x, one.low, one.high, color=look["color"], alpha=0.35, lw=3)
            axes.plot(x, one.mean, markersize=8, label=folded(name, 34), **{**look, "linestyle": ""})
            reached.append((x, one.mean))
    front = [point for point in sorted(reached) if point[1] >= max(y for x, y in reached if x <= point[0])]
    axes.step(*np.array(front).T, where="post", color=GREY, lw=1, linestyle=":", zorder=1)
    axes.set_xscale("log")
    plain_log_ticks(axes)
    axes.set(title=f"Cost and accuracy, {methods[0].test_set}", ylabel="accuracy with 95% interval over texts")
    axes.set_xlabel("US dollars for 1,000 texts (log scale)" if priced else "tokens read and written for a text (log scale)")
    side_legend(figure, axes, last=lambda line: float(line.get_ydata()[-1]))
    return figure


@styled
def early_stopping(stops: pd.DataFrame, methods: Sequence[Method]) -> Figure:
    """Change of accuracy against the share of samples saved, by `stop_at`; rows of `annotator_study.early_stopping`."""
    look = looks(methods)
    figure = blank(10, max(4.2, 1.2 + legend_height(methods)))
    axes = figure.subplots()
    for name in stops["method"].unique():
        rows = stops[stops["method"] == name]
        axes.plot(rows["saved"], 100 * rows["change"], markersize=4, lw=1, alpha=0.65, label=folded(name, 34), **look[name])
    for samples in sorted(stops["samples"].unique()):
        mean = means(stops[stops["samples"] == samples])
        axes.plot(mean["saved"], 100 * mean["change"], "o-", color="black", markersize=6, lw=2, zorder=4,
                  label=f"mean of the methods, {samples} samples")  # fmt: skip
        for stop_at, x, y in zip(mean["stop_at"], mean["saved"], 100 * mean["change"], strict=True):
            axes.annotate(
                f"{stop_at}", (x, y), xytext=(0, 8), textcoords="offset points", ha="center", fontweight="bold", zorder=5,
                bbox={"boxstyle": "round,pad=0.15", "fc": "white", "ec": "none", "alpha": 0.8},
            )  # fmt: skip
    axes.axhline(0, color=GREY, lw=0.8)
    axes.axhline(-0.5, color=GREY, lw=1, linestyle="--", label="half a point lost")
    axes.set(title=f"Early stopping (numbers: stop_at), {methods[0].test_set}")
    axes.set(xlabel="share of samples saved", ylabel="change of accuracy in points")
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    side_legend(figure, axes)
    return figure


def means(stops: pd.DataFrame) -> pd.DataFrame:
    """`saved` and `change` by `stop_at`, averaged over the methods."""
    return stops.groupby("stop_at")[["saved", "change"]].mean().reset_index()


def looks(methods: Sequence[Method]) -> dict[str, dict[str, Any]]:
    """Colour, marker and line of each method: the same in every figure."""
    return {
        method.name: {
            "color": SERIES[place % len(SERIES)],
            "marker": MARKERS[(place + place // len(SERIES)) % len(MARKERS)],
            "linestyle": ("-", "--", ":", "-.")[place // len(SERIES) % 4],
        }
        for place, method in enumerate(methods)
    }


def legend_height(methods: Sequence[Method]) -> float:
    """Inches that the names take in a legend."""
    return sum(0.06 + 0.15 * len(folded(method.name, 34).splitlines()) for method in methods)


def side_legend(figure: Figure, axes: Axes, last: Any = None) -> None:
    """Beside the axes; with `last`, in the order in which the lines end, best first."""
    handles, names = axes.get_legend_handles_labels()
    if last is not None:
        order = sorted(range(len(handles)), key=lambda at: -last(handles[at]))
        handles, names = [handles[at] for at in order], [names[at] for at in order]
    figure.legend(handles, names, loc="outside right upper")


def plain_log_ticks(axes: Axes) -> None:
    """Round numbers on a logarithmic x axis, at least three whatever its length."""
    low, high = axes.get_xlim()
    decades = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    steps = STEPS if high / low < 12 else (1, 2, 5) if high / low < 200 else (1,)
    ticks = [at for decade in decades for step in steps if low <= (at := step * 10.0**decade) <= high]
    axes.xaxis.set_major_locator(FixedLocator(ticks) if len(ticks) > 2 else MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.10g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlim(low, high)
