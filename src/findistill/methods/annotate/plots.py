"""Figures of a study of annotators; `methods` are the annotators of one test set, in the order of the table."""

from collections.abc import Sequence

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from findistill.report import style
from findistill.report.methods import Method
from findistill.report.style import GREY, LEGEND_WIDTH

PANELS = 4  # per row
TOLERATED = 0.005  # loss of accuracy by early stopping


def samples(methods: Sequence[Method]) -> Figure:
    """Accuracy of the majority of m samples by m: one line per method, with a band from its lowest to its highest repeat."""
    names = [method.name for method in methods]
    figure, axes = style.canvas(style.legend_height(names), title=f"Accuracy by number of samples, {methods[0].test_set}")
    axes.set(xlabel="samples in the majority vote", ylabel="accuracy")
    for method, look in zip(methods, style.looks(names).values(), strict=True):
        if curve := method.by_number("annotate/accuracy_samples_{}"):
            rows = [list(row) for row in curve.values()]
            style.line_with_band(axes, list(curve), rows, look, style.folded(method.name, LEGEND_WIDTH))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    style.side_legend(figure, axes, last=lambda line: float(line.get_ydata()[-1]))
    return figure


def coverage(methods: Sequence[Method]) -> Figure:
    """Accuracy of the texts kept at each agreement threshold against their share: one panel per method, the others in grey."""
    curves = {}
    for method in methods:
        accuracy, share = method.by_number("annotate/accuracy_at_{}"), method.by_number("annotate/kept_share_{}")
        at = [threshold for threshold in accuracy if threshold in share]
        curves[method.name] = (at, [share[t].mean() for t in at], [accuracy[t].mean() for t in at])
    columns = min(PANELS, len(methods))
    titles = {name: style.folded(name, 26 if columns == PANELS else LEGEND_WIDTH) for name in curves}
    tallest = max(len(title.splitlines()) for title in titles.values())
    figure = style.blank(10, 0.7 + (2.1 + 0.16 * tallest) * -(-len(methods) // columns) if columns == PANELS else 3.8)
    for axes, (name, look) in zip(style.panels(figure, len(methods), columns), style.looks(list(curves)).items(), strict=True):
        for other, (_, xs, ys) in curves.items():
            if other != name:
                axes.plot(xs, ys, color="#cccccc", lw=0.9, zorder=1)
        thresholds, xs, ys = curves[name]
        axes.plot(xs, ys, markersize=4.5, **look)
        for threshold, x, y, following in zip(thresholds, xs, ys, [*xs[1:], -1.0], strict=True):
            if x - following > 0.12:  # the numbers of thresholds that keep almost the same texts would overlap
                style.write_above(axes, f"≥{threshold}", x, y, offset=(0, 6), fontsize=8)
        axes.set_title(titles[name], fontsize=9)
        axes.set_xlim(1.04, -0.04)
        axes.set_xticks([1.0, 0.75, 0.5, 0.25])
        style.percent(axes.xaxis)
        axes.margins(y=0.12)
    figure.supxlabel("share of texts kept (coverage)", fontsize=10)
    figure.supylabel("accuracy of the texts kept", fontsize=10)
    style.heading(figure, f"Accuracy by agreement threshold, {methods[0].test_set}")
    return figure


def early_stopping(stops: pd.DataFrame, methods: Sequence[Method]) -> Figure:
    """Change of accuracy against the share of samples saved, by `stop_at`; rows as `report.early_stopping` returns them."""
    names = [method.name for method in methods]
    title = f"Early stopping (numbers: stop_at), {methods[0].test_set}"
    figure, axes = style.canvas(style.legend_height(names), title=title, xlabel="share of samples saved")
    axes.set_ylabel("change of accuracy in points")
    for name, look in style.looks(names).items():
        rows = stops[stops["method"] == name]
        if len(rows):
            label = style.folded(name, LEGEND_WIDTH)
            axes.plot(rows["saved"], 100 * rows["change"], markersize=4, lw=0.8, alpha=0.4, label=label, **look)
    for samples, rows in stops.groupby("samples"):
        mean = rows.groupby("stop_at")[["saved", "change"]].mean()
        label = f"mean of the methods, {samples} samples"
        axes.plot(mean["saved"], 100 * mean["change"], "o-", color="black", markersize=6, lw=2, zorder=4, label=label)
        box = {"boxstyle": "round,pad=0.15", "fc": "white", "ec": "none", "alpha": 0.8}
        for stop_at, point in mean.iterrows():
            x, y = point["saved"], 100 * point["change"]
            style.write_above(axes, f"{stop_at}", x, y, offset=(0, 8), fontsize=10, fontweight="bold", zorder=5, bbox=box)
    style.reference_line(axes, 0, None, colour=GREY, linestyle="-", lw=0.8)
    style.reference_line(axes, -100 * TOLERATED, f"{100 * TOLERATED:g} points of accuracy lost", colour=GREY, lw=1)
    style.percent(axes.xaxis)
    style.side_legend(figure, axes)
    return figure
