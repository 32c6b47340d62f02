"""The look of all figures, and the elements that they share: marks with intervals, bands, reference lines, cost fronts.

Figures are drawn without pyplot: each function returns a matplotlib `Figure`, `save` writes it as PNG and SVG. Ten inches
at 100 dpi are the 1,000 pixels at which they are read. Colours are those of Okabe and Ito, safe for the colour-blind;
marker shapes repeat what colours say.
"""

import io
import logging
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator, PercentFormatter

from findistill.core import termination
from findistill.core.files import write_whole
from findistill.report.glyphs import drawable, families
from findistill.stats.intervals import Estimate

log = logging.getLogger(__name__)

BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"
GREY = "#6b6b6b"
SERIES = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY)
BESIDE_GREEN = [colour for colour in SERIES if colour != GREEN]  # where green is the teacher, or what was fine-tuned
MARKERS = ("o", "s", "^", "D", "v", "P")
LINES = ("-", "--", ":", "-.")
REFERENCE_LINES = ("--", ":", "-.", (0, (5, 1)), (0, (1, 1)), (0, (3, 1, 1, 1)))
REFERENCE_COLOURS = (GREY, PURPLE, ORANGE, "black", SKY)
FRONT = "no method is cheaper and better"
SCORES = ("accuracy", "macro f1", "precision", "recall", "score", "f1")  # how the labels of score axes begin
STEPS = (1, 1.5, 2, 3, 4, 5, 6, 8)  # of a logarithmic axis, in each decade
LEGEND_WIDTH = 34  # characters
STYLE = mpl.rc_params_from_file(Path(__file__).with_name("findistill.mplstyle"), use_default_template=False)
STYLE["font.family"] = families()
P = ParamSpec("P")
R = TypeVar("R")


def styled(draw: Callable[P, R]) -> Callable[P, R]:
    """Decorate a function to draw in the project's style; matplotlib's settings are restored afterwards."""

    @wraps(draw)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        with mpl.rc_context(STYLE):
            return draw(*args, **kwargs)

    return wrapped


def save(figure: Figure, stem: Path, *, vector: bool = False) -> list[Path]:
    """Write `stem`.png (150 dpi) and, with `vector`, `stem`.svg; the same figure gives the same bytes."""
    paths = []
    with mpl.rc_context(STYLE):
        for axes in figure.axes:
            for axis, (low, _) in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
                _say_cut(axis, low)
        for text in figure.findobj(Text):  # names of data and models; tick labels are made drawable where they are set
            text.set_text(drawable(text.get_text()))
        figure.draw_without_rendering()
        with mpl.rc_context({"figure.constrained_layout.use": False}):
            figure.set_layout_engine(None)  # the layout is computed once, not for each format
        formats = {".png": {"Software": None}, **({".svg": {"Date": None, "Creator": None}} if vector else {})}
        for suffix, metadata in formats.items():
            content = io.BytesIO()
            figure.savefig(content, format=suffix[1:], dpi=150, metadata=metadata)
            paths.append(write_whole(stem.with_name(stem.name + suffix), content.getvalue()))
    return paths


def _say_cut(axis: Axis, low: float) -> None:
    """Say in the label of a score axis that it does not start at zero, so that nobody compares lengths on it."""
    label = axis.get_label_text()
    if label.lower().startswith(SCORES) and low > 0 and axis.get_scale() == "linear" and "axis from" not in label:
        axis.set_label_text(f"{label} (axis from {low:.2f})")


@contextmanager
def dispensable(name: str) -> Iterator[None]:
    """Warn about a figure that cannot be drawn, without failing the job or the report. An OSError (a full disk) is raised."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        termination.check(error)
        reason = (str(error).strip().splitlines() or [""])[0]
        log.warning("skipping the figure %s: %s: %s", name, type(error).__name__, reason)


def blank(width: float, height: float) -> Figure:
    """An empty figure, in inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def folded(name: str, width: int = 44) -> str:
    """A long name on several lines, as far as it can be drawn."""
    return drawable(textwrap.fill(name, width, break_on_hyphens=False))


def canvas(height: float, *, width: float = 10, **labels: Any) -> tuple[Figure, Axes]:
    """A figure of one panel, in inches, with its title and axis labels."""
    figure = blank(width, height)
    axes = figure.subplots()
    axes.set(**labels)
    return figure, axes


def panels(figure: Figure, count: int, columns: int, **options: Any) -> list[Axes]:
    """`count` axes in rows of at most `columns`, sharing their scales; the lowest of each column has tick labels."""
    columns = min(columns, count)
    grid = figure.subplots(-(-count // columns), columns, sharex=True, sharey=True, squeeze=False, **options).ravel()
    for axes in grid[count:]:
        axes.set_visible(False)
    for axes in grid[max(0, count - columns) : count]:
        axes.tick_params(labelbottom=True)
    return list(grid[:count])


def heading(figure: Figure, title: str) -> None:
    """A title over several panels, at the left as those of single axes."""
    figure.suptitle(title, fontsize=10.5, fontweight="bold", x=0.01, ha="left")


def percent(axis: Axis, decimals: int | None = 0) -> None:
    """Tick labels of shares."""
    axis.set_major_formatter(PercentFormatter(1.0, decimals=decimals))


def write_above(axes: Axes, text: str, x: float, y: float, offset: tuple[float, float] = (0, 3), **more: Any) -> None:
    """A short text above a point; `offset` in points."""
    axes.annotate(text, (x, y), xytext=offset, textcoords="offset points", **{"ha": "center", "fontsize": 9, **more})


# Series


def look_of(place: int, colours: Sequence[str] = SERIES) -> dict[str, Any]:
    """Colour and marker of the `place`-th of a few series."""
    return {"color": colours[place % len(colours)], "marker": MARKERS[place % len(MARKERS)]}


def looks(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Colour, marker and line of each name, the same in every figure; up to thirty differ in colour or marker."""
    return {
        name: {
            "color": SERIES[place % len(SERIES)],
            "marker": MARKERS[(place + place // len(SERIES)) % len(MARKERS)],
            "linestyle": LINES[place // len(SERIES) % len(LINES)],
        }
        for place, name in enumerate(names)
    }


def mark(
    axes: Axes,
    x: float,
    one: Estimate,
    look: Mapping[str, Any],
    *,
    size: float = 8,
    width: float = 4,
    seeds: bool = True,
    **more: Any,
) -> None:
    """A mean with its 95% interval as a pale bar; with `seeds`, single seeds as black dots."""
    axes.vlines(x, one.low, one.high, color=look["color"], lw=width, alpha=0.35)
    axes.plot(x, one.mean, markersize=size, **{**look, "linestyle": "", **more})
    if seeds and len(one.per_seed) > 1:
        axes.plot([x] * len(one.per_seed), one.per_seed, ".", color="black", markersize=3, zorder=4)


def line_with_band(axes: Axes, x: Sequence[float], rows: Sequence[Sequence[float]], look: Mapping[str, Any], label: str) -> None:
    """Means over repeats as a line, with a band from the lowest repeat to the highest; `rows` are the repeats at each x."""
    axes.plot(x, [float(np.mean(row)) for row in rows], label=label, **{"markersize": 5, **look})
    if any(len(row) > 1 for row in rows):
        low, high = [min(row) for row in rows], [max(row) for row in rows]
        axes.fill_between(x, low, high, color=look["color"], alpha=0.13, lw=0)


def reference_line(
    axes: Axes, level: float, label: str | None, *, place: int = 0, colour: str | None = None, **more: Any
) -> None:
    """A horizontal line for a method that does not vary along x; the look depends on its `place` among several."""
    look = {"color": colour or REFERENCE_COLOURS[place % len(REFERENCE_COLOURS)], "linestyle": REFERENCE_LINES[place % 6]}
    axes.axhline(level, label=label, **{**look, "lw": 1.4, "zorder": 1, **more})


# Cost


def pareto_front(spent: Mapping[str, float], scores: Mapping[str, Estimate]) -> list[str]:
    """The methods for which no other is both cheaper and better, cheapest first."""
    front: list[str] = []
    for name in sorted(spent, key=lambda name: (spent[name], -scores[name].mean)):
        if not front or scores[name].mean > scores[front[-1]].mean:
            front.append(name)
    return front


def cost_and_score(
    spent: Mapping[str, float], scores: Mapping[str, Estimate], unit: str, test_set: str, score: str = "accuracy"
) -> Figure:
    """A score with its 95% interval against cost on a logarithmic scale, with the Pareto front.

    Args:
        spent: cost by method name, without methods of cost 0 or of unknown cost.
        unit: of the cost, the label of the axis.
        score: what is scored, in words.
    """
    figure, axes = canvas(legend_height(spent), title=f"Cost and {score}, {test_set}", xlabel=f"{unit} (log scale)")
    axes.set_ylabel(f"{score} with 95% interval")
    for name, look in looks(list(spent)).items():
        label = folded(name, LEGEND_WIDTH)
        mark(axes, spent[name], scores[name], look, width=3, seeds=False, label=label)
    front = np.array([(spent[name], scores[name].mean) for name in pareto_front(spent, scores)])
    axes.step(*front.T, where="post", color=GREY, lw=1, linestyle=":", zorder=1)
    axes.plot(*front.T, "o", markersize=15, markerfacecolor="none", color="black", lw=0, label=FRONT)
    axes.set_xscale("log")
    axes.margins(x=0.1)
    plain_log_ticks(axes)
    side_legend(figure, axes, last=lambda line: -1.0 if line.get_label() == FRONT else float(line.get_ydata()[-1]))
    return figure


def plain_log_ticks(axes: Axes) -> None:
    """Round numbers on a logarithmic x axis, at least three whatever its length."""
    low, high = axes.get_xlim()
    decades = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    for steps in ((1,), (1, 3), (1, 2, 5), STEPS):  # the fewest that suffice
        ticks = [at for decade in decades for step in steps if low <= (at := step * 10.0**decade) <= high]
        if len(ticks) > 2:
            break
    axes.xaxis.set_major_locator(FixedLocator(ticks) if len(ticks) > 2 else MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.10g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlim(low, high)


# Legends


def legend_height(names: Iterable[str]) -> float:
    """The height in inches of a figure with the names in a legend beside the axes."""
    return max(4.2, 1.2 + sum(0.06 + 0.15 * len(folded(name, LEGEND_WIDTH).splitlines()) for name in names))


def legend_below(axes: Axes, columns: int, distance: float = 0.18) -> None:
    """The legend of one of several panels, below it; `distance` in heights of the panel."""
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -distance), ncols=columns)


def handle(label: str, look: Mapping[str, Any], **more: Any) -> Line2D:
    """A legend's entry for single marks."""
    return Line2D([], [], label=label, **{"linestyle": "", "markersize": 7, **look, **more})


def side_legend(figure: Figure, axes: Axes, last: Callable[[Any], float] | None = None) -> None:
    """A legend beside the axes; with `last`, in the order in which the lines end, highest first."""
    handles, names = axes.get_legend_handles_labels()
    if last is not None:
        order = sorted(range(len(handles)), key=lambda at: -last(handles[at]))
        handles, names = [handles[at] for at in order], [names[at] for at in order]
    figure.legend(handles, names, loc="outside right upper")


def shared_legend(figure: Figure, axes: Axes | Sequence[Axes], columns: int | None = None, **more: Any) -> None:
    """One legend below all panels: each label of `axes` once, and further handles by label."""
    every = [axes] if isinstance(axes, Axes) else axes
    entries = {label: handle for each in every for handle, label in zip(*each.get_legend_handles_labels(), strict=True)} | more
    figure.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=columns or min(4, max(1, len(entries))))
