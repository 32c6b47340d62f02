"""Figures, drawn without pyplot: each function returns a matplotlib `Figure`, `save` writes it as PNG and SVG.

Ten inches wide at 100 dpi is the 1,000 pixels they are read at. Colours are Okabe and Ito's, safe for the colour-blind;
marker shapes repeat what colours say.
"""

import io
import textwrap
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter

from findistill.analysis.curves import precision_recall, reliability
from findistill.analysis.intervals import Estimate
from findistill.analysis.methods import Method, differing, setting
from findistill.analysis.metrics import codes, confusion
from findistill.runs.files import write_whole

BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, GREY = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#6b6b6b",
)  # fmt: skip
SERIES = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY)
BESIDE_GREEN = [colour for colour in SERIES if colour != GREEN]  # where green is the teacher, or what was fine-tuned
MARKERS = ("o", "s", "^", "D", "v", "P")
KINDS = {"student": BLUE, "annotator": BLUE, "teacher": GREEN, "baseline": GREY}
RECALLS = np.linspace(0.0, 1.0, 201)
STYLE: Any = {
    "font.size": 10,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e3e3e3",
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "figure.facecolor": "white",
    "figure.constrained_layout.use": True,
    "svg.hashsalt": "findistill",  # the same figure is the same file
    "svg.fonttype": "path",
}
P = ParamSpec("P")


def styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Draw under the project's style, leaving matplotlib's settings as they were."""

    @wraps(draw)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with mpl.rc_context(STYLE):
            return draw(*args, **kwargs)

    return wrapped


def save(figure: Figure, stem: Path) -> list[Path]:
    """Write `stem`.png (150 dpi) and `stem`.svg, whole or not at all; the same figure gives the same bytes."""
    paths = []
    with mpl.rc_context(STYLE):
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # the layout is found once, not for each format
        for suffix, metadata in ((".png", {"Software": None}), (".svg", {"Date": None, "Creator": None})):
            content = io.BytesIO()
            figure.savefig(content, format=suffix[1:], dpi=150, metadata=metadata)
            paths.append(write_whole(stem.with_name(stem.name + suffix), content.getvalue()))
    return paths


# One run


def save_run_figures(
    folder: Path,
    history: Sequence[dict[str, float]],
    gold: Sequence[str],
    probabilities: np.ndarray,
    predicted: Sequence[str | None],
    labels: Sequence[str],
) -> list[Path]:
    """A run's `learning_curve`, `confusion_matrix` and `precision_recall` in `folder`; arguments as for `evaluate`."""
    truth, guess = codes(gold, labels, what="gold label"), codes(predicted, labels, what="prediction")
    figures = {
        "confusion_matrix": confusion_matrices([("", confusion(truth, guess, len(labels)))], labels),
        "precision_recall": precision_recall_curves(truth, probabilities, labels),
    }
    if history:
        figures["learning_curve"] = learning_curve(history)
    return [path for name, figure in figures.items() for path in save(figure, folder / name)]


@styled
def learning_curve(history: Sequence[dict[str, float]]) -> Figure:
    """Losses, and validation accuracy and macro F1, by epoch; rows of `Trained.history`."""
    frame = pd.DataFrame(history)
    figure = blank(10, 3.8)
    left, right = figure.subplots(1, 2)
    for axes, series in (
        (left, (("train/loss", "training", GREY), ("val/loss", "validation", BLUE))),
        (right, (("val/accuracy", "accuracy", BLUE), ("val/macro_f1", "macro F1", VERMILION))),
    ):
        for (key, name, colour), marker in zip(series, MARKERS, strict=False):
            if key not in frame:
                continue
            if key == "val/macro_f1" and frame[key].notna().any():
                best = frame.iloc[int(frame[key].argmax())]
                name += f", best {best[key]:.3f} after epoch {best['epoch']:.3g}"
            axes.plot(frame["epoch"], frame[key], color=colour, marker=marker, markersize=5, label=name)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)
    left.set(title="Loss", ylabel="loss per example")
    right.set(title="Validation scores", ylabel="score")
    return figure


@styled
def confusion_matrices(tables: Sequence[tuple[str, np.ndarray]], labels: Sequence[str]) -> Figure:
    """Confusion tables side by side: (title, counts (labels, labels + 1)). Shade and percentage are shares of a row."""
    figure = blank(max(4.6, 5.0 * len(tables)), 4.2)
    for axes, (title, table) in zip(figure.subplots(1, len(tables), squeeze=False)[0], tables, strict=True):
        answered = not table[:, -1].any()
        shown, columns = (table[:, :-1], list(labels)) if answered else (table, [*labels, "no answer"])
        share = shown / np.maximum(table.sum(1, keepdims=True), 1)
        axes.imshow(share, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        for (row, column), count in np.ndenumerate(shown):
            dark = share[row, column] > 0.55
            text = f"{count:,.0f}\n{share[row, column]:.0%}"
            axes.text(column, row, text, ha="center", va="center", color="white" if dark else "#222222")
        axes.set_xticks(range(len(columns)), columns)
        axes.set_yticks(range(len(labels)), labels)
        axes.set(title=folded(title), xlabel="predicted", ylabel="gold")
        axes.grid(False)
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
    return figure


@styled
def precision_recall_curves(gold: np.ndarray, probabilities: np.ndarray, labels: Sequence[str]) -> Figure:
    """One run: a curve per class and the micro average; gold (n,) positions, probabilities (n, labels)."""
    figure = blank(7.6, 4.2)
    axes = figure.subplots()
    curves = precision_recall(gold, probabilities)
    for index, label in enumerate(labels):
        if index in curves:
            text = f"{label} (AP {curves[index].average_precision:.3f})"
            axes.plot(RECALLS, curves[index].at(RECALLS), color=SERIES[index % len(SERIES)], label=text)
    micro = curves["micro"]
    text = f"micro (AP {micro.average_precision:.3f})"
    axes.plot(RECALLS, micro.at(RECALLS), color="black", linestyle="--", label=text)
    axes.set(title="Precision and recall, one label against the rest", xlabel="recall", ylabel="precision")
    axes.set(xlim=(0, 1), ylim=(0, 1.02))
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    return figure


# A study, one test set at a time: `methods` are all of one test set


def series_name(method: Method, students: Sequence[Method]) -> str:
    """What a student is called apart from its threshold: `CLS`, `REG`, `REG, target=scalar` ..."""
    alike = [student.config for student in students if student.objective == method.objective]
    keys = [key for key in differing(alike) if key not in _OWN_AXIS]
    return ", ".join([method.objective or method.name, *(f"{key.split('.')[-1]}={setting(method.config, key)}" for key in keys)])


_OWN_AXIS = {"distill.objective", "distill.min_agreement", "distill._target_", "distill.name"}


@styled
def thresholds(methods: Sequence[Method], estimates: dict[str, dict[str, Estimate]]) -> Figure:
    """Accuracy and macro F1 of the students by agreement threshold, and the share of texts that each threshold keeps.

    Bars are 95% intervals over test rows, small marks single seeds, horizontal lines the teachers and baselines, with
    their accuracy and macro F1 in the legend; a line far from the students is off the scale.
    """
    series = _threshold_series(methods)
    figure = blank(10, 4.9)
    panels = figure.subplots(1, 3, width_ratios=(1, 1, 0.72))
    ticks = sorted({method.threshold for members in series.values() for method in members if method.threshold is not None})
    samples = setting(methods[0].config, "annotate.samples")
    across = "agreement threshold" + (f" (answers of {samples})" if samples else "")
    width = 0.16
    for axes, key, title in zip(panels, ("accuracy", "macro_f1"), ("Accuracy", "Macro F1"), strict=False):
        for place, (name, members) in enumerate(series.items()):
            colour, marker = SERIES[place % len(SERIES)], MARKERS[place % len(MARKERS)]
            found = [estimates[method.name][key] for method in members]
            x = np.array([method.threshold for method in members]) + width * (place - (len(series) - 1) / 2)
            axes.vlines(x, [one.low for one in found], [one.high for one in found], color=colour, alpha=0.35, lw=4)
            axes.plot(x, [one.mean for one in found], color=colour, marker=marker, markersize=7, label=name)
            for at, one in zip(x, found, strict=True):
                if len(one.per_seed) > 1:
                    axes.plot([at] * len(one.per_seed), one.per_seed, ".", color="black", markersize=3, zorder=4)
        low, high = axes.get_ylim()
        reach = 2.0 * max(high - low, 0.05)  # a line farther off would flatten the students: its value is in the legend
        for place, method in enumerate(_references(methods)):
            level = estimates[method.name][key].mean
            values = " / ".join(f"{estimates[method.name][each].mean:.3f}" for each in ("accuracy", "macro_f1"))
            axes.axhline(level, label=f"{method.name}: {values}", **_reference_line(place, method))
            if low - reach <= level <= high + reach:
                low, high = min(low, level - 0.01), max(high, level + 0.01)
        axes.set(title=title, xlabel=across, ylabel=_name(key), ylim=(low, high))
        axes.set_xticks(ticks, [f"≥{tick}" for tick in ticks])
    for members, marker in zip(series.values(), MARKERS, strict=False):
        shares = [method.mean_metric("data/kept_share") for method in members]
        at_least = [method.threshold for method, share in zip(members, shares, strict=True) if share is not None]
        kept = [share for share in shares if share is not None]
        panels[2].plot(at_least, kept, color=GREY, marker=marker, markersize=6)
        for at, share in zip(at_least, kept, strict=True):
            panels[2].annotate(f"{share:.0%}", (at, share), xytext=(5, 5), textcoords="offset points", fontsize=9)
        if kept:
            break  # every series trains on the same annotated texts
    panels[2].set(title="Texts kept for training", xlabel="agreement threshold", ylabel="share of annotated texts")
    panels[2].set_xticks(ticks, [f"≥{tick}" for tick in ticks])
    panels[2].set_ylim(0, 1.1)
    panels[2].yaxis.set_major_formatter(PercentFormatter(1.0))
    panels[2].margins(x=0.16)
    _shared_legend(figure, panels[0], columns=3)
    return figure


@styled
def objective_curves(methods: Sequence[Method]) -> Figure:
    """Precision-recall curves of CLS against REG: a panel a class and micro, mean over seeds, darker is stricter."""
    series = _threshold_series(methods)
    labels = next(iter(methods)).labels
    keys = [*range(len(labels)), "micro"]
    columns = 2 if len(keys) <= 4 else 3
    rows = -(-len(keys) // columns)
    figure = blank(10, 3.3 * rows + 0.9)
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    stricter = sorted({method.threshold for members in series.values() for method in members if method.threshold is not None})
    lowest = 1.0
    for place, members in enumerate(series.values()):
        for method in members:
            curves = [precision_recall(method.gold, one) for one in method.probabilities]
            depth = stricter.index(method.threshold) / max(1, len(stricter) - 1) if method.threshold in stricter else 1.0
            colour, style = _shade(SERIES[place % len(SERIES)], depth), ("-", "--", ":", "-.")[place % 4]
            for axes, key in zip(panels, keys, strict=False):
                if key in curves[0]:
                    mean = np.mean([curve[key].at(RECALLS) for curve in curves], axis=0)
                    average = np.mean([curve[key].average_precision for curve in curves])
                    axes.plot(RECALLS, mean, color=colour, linestyle=style, lw=1.6, label=method.name)
                    lowest = min(lowest, float(mean.min()))
                    if key == "micro":
                        axes.lines[-1].set_label(f"{method.name}, micro AP {average:.3f}")
    for axes, key in zip(panels, keys, strict=False):
        axes.set(title="All labels pooled (micro)" if key == "micro" else str(labels[key]), xlim=(0, 1))
        axes.set_ylim(max(0.0, lowest - 0.03), 1.01)
    for axes in panels[len(keys) :]:
        axes.set_visible(False)
    for axes in panels[-columns:]:
        axes.set_xlabel("recall")
    for axes in panels[::columns]:
        axes.set_ylabel("precision")
    _shared_legend(figure, panels[len(keys) - 1], columns=max(1, len(series)) if len(series) <= 3 else 3)
    return figure


@styled
def calibration(methods: Sequence[Method]) -> Figure:
    """Reliability diagrams, a panel a method: accuracy by confidence in 15 bins, all seeds pooled; bars are shares."""
    figure = blank(max(4.6, 5.0 * len(methods)), 4.0)
    for axes, method in zip(figure.subplots(1, len(methods), squeeze=False)[0], methods, strict=True):
        seeds = len(method.predicted)
        probabilities = method.probabilities.reshape(-1, len(method.labels))
        bins = reliability(np.tile(method.gold, seeds), probabilities, method.predicted.ravel())
        axes.plot([0, 1], [0, 1], color=GREY, lw=1, linestyle=":", label="as confident as right")
        axes.bar(
            bins.edges[:-1], bins.count / max(1, bins.count.sum()), np.diff(bins.edges), align="edge",
            color=SKY, alpha=0.45, edgecolor="white", label="share of texts",
        )  # fmt: skip
        filled = bins.count > 0
        axes.plot(bins.confidence[filled], bins.accuracy[filled], color=BLUE, marker="o", markersize=5, label="accuracy")
        axes.set(title=folded(method.name), xlabel="confidence of the prediction", ylabel="accuracy, share", xlim=(0, 1))
        axes.set_ylim(0, 1.02)
    _shared_legend(figure, figure.axes[0])
    return figure


@styled
def agreement(annotations: pd.DataFrame, n_samples: int | None = None) -> Figure:
    """How often the annotator agrees with itself, and how right it is when it does.

    `annotations`: columns `agreement`, `label` (the annotator's) and, where known, `gold`; `n_samples` is read from the
    column of that name unless given.
    """
    n_samples = n_samples or int(annotations["n_samples"].max())
    levels = np.arange(0, n_samples + 1)
    gold = annotations["gold"] if "gold" in annotations else pd.Series([None] * len(annotations))
    known = bool(gold.notna().any())
    frame = annotations[gold.notna().to_numpy()] if known else annotations
    levels = levels[levels >= frame["agreement"].min()]
    counts = np.array([(frame["agreement"] == level).sum() for level in levels])
    figure = blank(10 if known else 6, 4.2)
    left, *others = figure.subplots(1, 2 if known else 1, squeeze=False)[0]
    shares = counts / max(1, len(frame))
    if known:
        right_rows = (frame["label"] == frame["gold"]).to_numpy()
        right = np.array([(right_rows & (frame["agreement"] == level).to_numpy()).sum() for level in levels])
        hit = right / max(1, len(frame))
        left.bar(levels, hit, color=BLUE, label="right")
        left.bar(levels, shares - hit, bottom=hit, color=ORANGE, label="wrong", hatch="//", edgecolor="white")
        left.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=2)
    else:
        left.bar(levels, shares, color=BLUE)
    for level, share in zip(levels, shares, strict=True):
        left.annotate(f"{share:.0%}", (level, share), xytext=(0, 3), textcoords="offset points", ha="center", fontsize=9)
    left.set(title=f"Agreement of {n_samples} answers, {len(frame):,} texts", ylabel="share of texts")
    left.set(xlabel=f"answers equal to the most frequent label (of {n_samples})")
    left.set_xticks(levels)
    left.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    left.margins(y=0.1)
    for axes in others:
        kept = counts[::-1].cumsum()[::-1]
        right_kept = right[::-1].cumsum()[::-1]
        some = counts > 0
        low, high = _wilson(right[some], counts[some])
        exact = right[some] / counts[some]
        axes.errorbar(levels[some], exact, yerr=[exact - low, high - exact], fmt="o", color=BLUE, capsize=3,
                      label="accuracy at exactly this agreement (95% Wilson)")  # fmt: skip
        axes.plot(
            levels,
            right_kept / np.maximum(kept, 1),
            color=VERMILION,
            marker="s",
            label="accuracy of texts kept at this threshold",
        )
        axes.plot(levels, kept / max(1, len(frame)), color=GREY, linestyle="--", marker="^", label="share of texts kept")
        axes.set(title="Accuracy by agreement", xlabel=f"agreement (of {n_samples})", ylabel="accuracy, share")
        axes.set_xticks(levels)
        axes.set_ylim(0, 1.03)
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=1)
    return figure


@styled
def comparison(methods: Sequence[Method], estimates: dict[str, dict[str, Estimate]]) -> Figure:
    """All methods as dots with 95% intervals, sorted by accuracy; small black dots are single seeds, or repeats."""
    ordered = sorted(methods, key=lambda method: estimates[method.name]["accuracy"].mean)
    names = [folded(method.name) for method in ordered]
    lines = max(len(name.splitlines()) for name in names)
    figure = blank(10, 1.5 + (0.33 + 0.15 * (lines - 1)) * len(ordered))
    panels = figure.subplots(1, 2, sharey=True)
    kinds = list(dict.fromkeys(method.kind for method in methods))
    for axes, key, title in zip(panels, ("accuracy", "macro_f1"), ("Accuracy", "Macro F1"), strict=True):
        for y, method in enumerate(ordered):
            one = estimates[method.name][key]
            colour, marker = _kind_style(method, kinds)
            axes.hlines(y, one.low, one.high, color=colour, lw=5, alpha=0.35)
            axes.plot(one.mean, y, marker, color=colour, markersize=7)
            if len(one.per_seed) > 1:
                axes.plot(one.per_seed, [y] * len(one.per_seed), ".", color="black", markersize=3)
            axes.annotate(f"{one.mean:.3f}", (1.01, y), xycoords=("axes fraction", "data"), va="center", fontsize=9)
        axes.set(title=title, xlabel=f"{_name(key)} with 95% interval over test rows")
        axes.set_yticks(range(len(ordered)), names)
        axes.set_ylim(-0.6, len(ordered) - 0.4)
    entries = dict.fromkeys((*_kind_style(method, kinds), _kind_name(method)) for method in methods)
    handles = [Line2D([], [], color=c, marker=m, linestyle="", markersize=7, label=n) for c, m, n in entries]
    single = "one run" if "annotator" in kinds else "one seed"
    handles.append(Line2D([], [], color="black", marker=".", linestyle="", markersize=4, label=single))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    return figure


def folded(name: str, width: int = 44) -> str:
    """A long name on several lines."""
    return textwrap.fill(name, width, break_long_words=False, break_on_hyphens=False)


def blank(width: float, height: float) -> Figure:
    """An empty figure, in inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _threshold_series(methods: Sequence[Method]) -> dict[str, list[Method]]:
    students = [method for method in methods if method.objective and method.threshold is not None]
    series: dict[str, list[Method]] = {}
    for student in sorted(students, key=lambda method: (method.objective or "", method.threshold or 0)):
        series.setdefault(series_name(student, students), []).append(student)
    return series


def _references(methods: Sequence[Method]) -> list[Method]:
    return [method for method in methods if method.kind != "student"]


def _reference_line(place: int, method: Method) -> dict[str, Any]:
    styles = ("--", ":", "-.", (0, (5, 1)), (0, (1, 1)), (0, (3, 1, 1, 1)))
    colours = (GREY, PURPLE, ORANGE, "black", SKY)
    colour = KINDS["teacher"] if method.kind == "teacher" else colours[place % len(colours)]
    return {"color": colour, "linestyle": styles[place % len(styles)], "lw": 1.4, "zorder": 1}


def _kind_style(method: Method, kinds: Sequence[str]) -> tuple[str, str]:
    if method.objective == "REG":
        return VERMILION, "s"
    colour = KINDS.get(method.kind) or SERIES[2 + kinds.index(method.kind) % 4]
    return colour, {"student": "o", "annotator": "o", "teacher": "D", "baseline": "^"}.get(method.kind, "v")


def _kind_name(method: Method) -> str:
    return f"{method.kind}, {method.objective}" if method.objective else method.kind


def _name(metric: str) -> str:
    return {"accuracy": "accuracy", "macro_f1": "macro F1"}[metric]


def _shade(colour: str, depth: float) -> tuple[float, ...]:
    """`colour` mixed with white: depth 0 is pale, 1 the full colour."""
    strength = 0.35 + 0.65 * depth
    return tuple(1 - strength * (1 - part) for part in to_rgb(colour))


def _wilson(hits: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    from scipy.stats import binomtest

    found = [binomtest(int(h), int(n)).proportion_ci(method="wilson") for h, n in zip(hits, counts, strict=True)]
    return np.array([one.low for one in found]), np.array([one.high for one in found])


def _shared_legend(figure: Figure, axes: Axes, columns: int | None = None) -> None:
    handles, names = axes.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=columns or min(4, max(1, len(names))))
