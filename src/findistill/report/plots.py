"""Figures of one run, and those of every study: all methods, confusion, calibration, the annotator's agreement."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scipy.stats import binomtest

from findistill.report import glyphs, style
from findistill.report.methods import Method
from findistill.report.style import BLUE, GREEN, GREY, SERIES, VERMILION
from findistill.stats.curves import precision_recall, reliability
from findistill.stats.intervals import Estimate
from findistill.stats.metrics import codes, confusion

RECALLS = np.linspace(0.0, 1.0, 201)
FIXED_LOOKS = {"teacher": (GREEN, "D"), "baseline": (GREY, "^")}  # of groups that look the same in every study
GROUP_LOOKS = ((BLUE, "o"), (VERMILION, "s"), *zip(SERIES[3:], ("v", "P", "X"), strict=True))
FEW_LABELS = 8  # most labels for which confusion matrices have room for percentages
LINE = 42  # characters of tick labels that fit beside each other
SCORES = (("accuracy", "Accuracy"), ("macro_f1", "Macro F1"))


# One run


@style.styled
def save_run_figures(
    folder: Path, history: Sequence[dict[str, float]], gold: Sequence[str], probabilities: np.ndarray,
    predicted: Sequence[str | None], labels: Sequence[str],
) -> list[Path]:  # fmt: skip
    """A run's `learning_curve`, `confusion_matrix` and `precision_recall` in `folder`; arguments as for `evaluate`."""
    truth, guess = codes(gold, labels, what="gold label"), codes(predicted, labels, what="prediction")
    draw: dict[str, Callable[[], Figure]] = {
        "confusion_matrix": lambda: confusion_matrices([("", confusion(truth, guess, len(labels)))], labels),
        "precision_recall": lambda: precision_recall_curves(truth, probabilities, labels),
    }
    if history:
        draw["learning_curve"] = lambda: learning_curve(history)
    if missing := glyphs.key(labels):
        glyphs.warn_of(missing)
    paths = []
    for name, figure in draw.items():
        with style.dispensable(name):
            paths += style.save(figure(), folder / name)
    return paths


def learning_curve(history: Sequence[dict[str, float]]) -> Figure:
    """Losses, and validation accuracy and macro F1, by epoch; one row per epoch."""
    frame = pd.DataFrame(history)
    figure = style.blank(10, 3.8)
    left, right = figure.subplots(1, 2)
    for axes, series in (
        (left, (("train/loss", "training", GREY), ("val/loss", "validation", BLUE))),
        (right, (("val/accuracy", "accuracy", BLUE), ("val/macro_f1", "macro F1", VERMILION))),
    ):
        for (key, name, colour), marker in zip(series, style.MARKERS, strict=False):
            if key not in frame:
                continue
            if key == "val/macro_f1" and frame[key].notna().any():
                best = frame.iloc[int(frame[key].argmax())]
                name += f", best {best[key]:.3f} after epoch {best['epoch']:.3g}"
            axes.plot(frame["epoch"], frame[key], color=colour, marker=marker, markersize=5, label=name)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        style.legend_below(axes, columns=2, distance=0.2)
    left.set(title="Loss", ylabel="loss per example")
    right.set(title="Validation scores", ylabel="score")
    return figure


def confusion_matrices(tables: Sequence[tuple[str, np.ndarray]], labels: Sequence[str]) -> Figure:
    """Confusion tables: (title, counts (labels, labels + 1)). Shade and percentage are shares of a row.

    Side by side; with many labels one above the other, without percentages, empty cells blank.
    """
    names, many = glyphs.label_names(labels), len(labels) > FEW_LABELS
    every: Sequence[Axes]
    if many:
        side = 0.36 * len(labels) + 1.8
        figure = style.blank(min(14.0, side + 1.2), side * len(tables))
        every = list(figure.subplots(len(tables), 1, squeeze=False)[:, 0])
    else:
        figure, every = _side_by_side(len(tables), 4.2)
    for axes, (title, table) in zip(every, tables, strict=True):
        answered = not table[:, -1].any()
        counts, columns = (table[:, :-1], names) if answered else (table, [*names, "no answer"])
        share = counts / np.maximum(table.sum(1, keepdims=True), 1)
        axes.imshow(share, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        for (row, column), count in np.ndenumerate(counts):
            text = f"{count:,.0f}" if many else f"{count:,.0f}\n{share[row, column]:.0%}"
            look: dict[str, Any] = {"color": "white" if share[row, column] > 0.55 else "#222222", "fontsize": 7 if many else 10}
            if count or not many:
                axes.text(column, row, text, ha="center", va="center", **look)
        leaning = max(map(len, columns)) * len(columns) > LINE
        turned: dict[str, Any] = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if leaning else {}
        axes.set_xticks(range(len(columns)), columns, **turned)
        axes.set_yticks(range(len(labels)), names)
        axes.tick_params(labelsize=8 if many else 10)
        axes.set(title=_panel_title(title, len(tables)), xlabel="predicted", ylabel="gold")
        axes.grid(False)
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
    return figure


def _side_by_side(count: int, height: float) -> tuple[Figure, Sequence[Axes]]:
    figure = style.blank(max(4.6, min(10.0, 5.0 * count)), height)
    return figure, figure.subplots(1, count, squeeze=False)[0]


def _panel_title(name: str, count: int) -> str:
    return style.folded(name, 44 if count < 3 else 30)


def precision_recall_curves(gold: np.ndarray, probabilities: np.ndarray, labels: Sequence[str]) -> Figure:
    """One run: a curve per class and the micro average; gold (n,) positions, probabilities (n, labels)."""
    title = "Precision and recall, one label against the rest"
    figure, axes = style.canvas(
        max(4.2, 0.9 + 0.2 * len(labels)),
        width=7.6,
        title=title,
        xlabel="recall",
        ylabel="precision",
        xlim=(0, 1),
        ylim=(0, 1.02),
    )
    curves = precision_recall(gold, probabilities)
    names = glyphs.label_names(labels)
    looks: dict[Any, dict[str, Any]] = {
        at: {"color": SERIES[at % len(SERIES)], "linestyle": style.LINES[at // len(SERIES) % 4]} for at in range(len(labels))
    }
    for key, look in {**looks, "micro": {"color": "black", "linestyle": "--"}}.items():
        if key in curves:
            name = "micro" if key == "micro" else names[key]
            axes.plot(RECALLS, curves[key].at(RECALLS), label=f"{name} (AP {curves[key].average_precision:.3f})", **look)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    return figure


# A study, one test set at a time


def comparison(
    methods: Sequence[Method], estimates: Mapping[str, Mapping[str, Estimate]], groups: Mapping[str, str], *, bars: bool = False
) -> Figure:
    """Accuracy and macro F1 of all methods with 95% intervals, best first; small black dots are single seeds.

    Args:
        groups: method name -> its entry in the legend.
        bars: draw bars from zero, one group after the other, in the order of `groups`.
    """
    order = list(dict.fromkeys(groups.values())) if bars else [""]
    place = {method.name: order.index(groups[method.name]) if bars else 0 for method in methods}
    ordered = sorted(methods, key=lambda method: (-place[method.name], estimates[method.name]["accuracy"].mean))
    free = [name for name in sorted(set(groups.values())) if name not in FIXED_LOOKS]
    looks = FIXED_LOOKS | {name: GROUP_LOOKS[at % len(GROUP_LOOKS)] for at, name in enumerate(free)}
    names = [style.folded(method.name) for method in ordered]
    lines = max(len(name.splitlines()) for name in names)
    figure = style.blank(10, 1.5 + (0.33 + 0.15 * (lines - 1)) * len(ordered))
    for axes, (key, title) in zip(figure.subplots(1, 2, sharey=True), SCORES, strict=True):
        for y, method in enumerate(ordered):
            one = estimates[method.name][key]
            colour, marker = looks[groups[method.name]]
            if bars:
                axes.barh(y, one.mean, color=colour, alpha=0.75, height=0.7)
                axes.errorbar(one.mean, y, xerr=[[one.mean - one.low], [one.high - one.mean]], color="black", lw=1, capsize=2.5)
            else:
                axes.hlines(y, one.low, one.high, color=colour, lw=5, alpha=0.35)
                axes.plot(one.mean, y, marker, color=colour, markersize=7)
                if len(one.per_seed) > 1:
                    axes.plot(one.per_seed, [y] * len(one.per_seed), ".", color="black", markersize=3)
            axes.annotate(f"{one.mean:.3f}", (1.01, y), xycoords=("axes fraction", "data"), va="center", fontsize=9)
        axes.set(title=title, xlabel=f"{title[0].lower() + title[1:]} with 95% interval")
        axes.set_ylim(-0.6, len(ordered) - 0.4)
        axes.set_yticks(range(len(ordered)), names)
        if bars:
            axes.set_xlim(0, 1)
            axes.grid(axis="y", visible=False)
    entries = {name: looks[name] for name in dict.fromkeys(groups[method.name] for method in methods)}
    handles = [
        style.handle(name, {"color": colour, "marker": "s" if bars else marker}) for name, (colour, marker) in entries.items()
    ]
    if not bars:
        handles.append(style.handle("one run", {"color": "black", "marker": "."}, markersize=4))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    return figure


def calibration(methods: Sequence[Method]) -> Figure:
    """Reliability diagrams, one panel per method: accuracy by confidence in 15 bins, all seeds pooled; bars are shares."""
    figure, every = _side_by_side(len(methods), 4.0)
    for axes, method in zip(every, methods, strict=True):
        probabilities = method.probabilities.reshape(-1, len(method.labels))
        bins = reliability(np.tile(method.gold, len(method.predicted)), probabilities, method.predicted.ravel())
        axes.plot([0, 1], [0, 1], color=GREY, lw=1, linestyle=":", label="perfect calibration")
        axes.bar(
            bins.edges[:-1], bins.count / max(1, bins.count.sum()), np.diff(bins.edges), align="edge",
            color=style.SKY, alpha=0.45, edgecolor="white", label="share of texts",
        )  # fmt: skip
        filled = bins.count > 0
        axes.plot(bins.confidence[filled], bins.accuracy[filled], color=BLUE, marker="o", markersize=5, label="accuracy")
        axes.set(title=_panel_title(method.name, len(methods)), xlim=(0, 1), ylim=(0, 1.02))
        axes.set(xlabel="confidence of the prediction", ylabel="accuracy, share")
    style.shared_legend(figure, every[0])
    return figure


@style.styled
def agreement(annotations: pd.DataFrame, n_samples: int | None = None) -> Figure:
    """How often the annotator agrees with itself, and its accuracy by agreement.

    `annotations`: columns `agreement`, `label` (the annotator's) and, if known, `gold`; `n_samples` is read from the
    column of that name unless given.
    """
    n_samples = n_samples or int(annotations["n_samples"].max())
    has_gold = "gold" in annotations and bool(annotations["gold"].notna().any())
    frame = annotations[annotations["gold"].notna()] if has_gold else annotations
    levels = np.arange(int(frame["agreement"].min()), n_samples + 1)
    counts = frame["agreement"].value_counts().reindex(levels, fill_value=0).to_numpy()
    shares = counts / max(1, len(frame))
    figure = style.blank(10 if has_gold else 6, 4.2)
    left, *others = figure.subplots(1, 2 if has_gold else 1, squeeze=False)[0]
    if has_gold:
        right = frame[frame["label"] == frame["gold"]]
        hits = right["agreement"].value_counts().reindex(levels, fill_value=0).to_numpy()
        right_shares = hits / max(1, len(frame))
        left.bar(levels, right_shares, color=BLUE, label="right")
        wrong_look = {"color": style.ORANGE, "label": "wrong", "hatch": "//", "edgecolor": "white"}
        left.bar(levels, shares - right_shares, bottom=right_shares, **wrong_look)
        style.legend_below(left, columns=2)
        _accuracy_by_agreement(others[0], levels, hits, counts, n_samples)
    else:
        left.bar(levels, shares, color=BLUE)
    for level, share in zip(levels, shares, strict=True):
        style.write_above(left, f"{share:.0%}", float(level), share)
    left.set(title=f"Agreement of {n_samples} answers, {len(frame):,} texts", ylabel="share of texts")
    left.set(xlabel=f"answers equal to the most frequent label (of {n_samples})", xticks=levels)
    style.percent(left.yaxis)
    left.margins(y=0.1)
    return figure


def _accuracy_by_agreement(axes: Axes, levels: np.ndarray, hits: np.ndarray, counts: np.ndarray, n_samples: int) -> None:
    """Accuracy at each level of agreement and from each threshold on, and the share of texts that a threshold keeps."""
    passing, hits_passing = counts[::-1].cumsum()[::-1], hits[::-1].cumsum()[::-1]  # from each threshold on
    some = counts > 0
    wilson = [binomtest(int(h), int(n)).proportion_ci(method="wilson") for h, n in zip(hits[some], counts[some], strict=True)]
    exact = hits[some] / counts[some]
    bounds = np.array([exact - [one.low for one in wilson], [one.high for one in wilson] - exact])
    label = "accuracy at exactly this agreement (95% Wilson)"
    axes.errorbar(levels[some], exact, yerr=bounds, fmt="o", color=BLUE, capsize=3, label=label)
    label = "accuracy of texts kept at this threshold"
    axes.plot(levels, hits_passing / np.maximum(passing, 1), color=VERMILION, marker="s", label=label)
    axes.plot(levels, passing / max(1, counts.sum()), color=GREY, linestyle="--", marker="^", label="share of texts kept")
    axes.set(title="Accuracy by agreement", xlabel=f"agreement (of {n_samples})", ylabel="accuracy, share", xticks=levels)
    axes.set_ylim(0, 1.03)
    style.legend_below(axes, columns=1)
