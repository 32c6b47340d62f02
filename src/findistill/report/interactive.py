"""Interactive versions of figures: the options of an ECharts chart, read from the matplotlib figure that was drawn.

A figure has one source, the function that draws it: its panels, series, intervals and ticks become a chart in which the reader
sees the value of each point, hides or emphasises series and enlarges a region. Options are plain JSON; `assets/report.js`
hands them to ECharts.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.lines import Line2D

from findistill.report.alt import is_number, words

DASHES: dict[str, Any] = {"--": "dashed", ":": [2, 3], "-.": [6, 3, 1, 3]}
PLUS = "path://M3 0h4v3h3v4h-3v3h-4v-3h-3v-4h3z"
SYMBOLS = {
    "o": "circle",
    ".": "circle",
    "s": "rect",
    "^": "triangle",
    "v": "triangle",
    "D": "diamond",
    **dict.fromkeys("PXx", PLUS),
}
TURNED = {"v": 180, "X": 45, "x": 45}  # degrees
NOTHING = ("None", "", " ")  # matplotlib's names of no marker and no line
DENSE = 50  # most points of a line that have texts; those of longer ones show their coordinates
DIGITS = 5  # significant
LOG_SHIFT = 0.15  # on a logarithmic axis, how far a mark may be moved from its tick, as a share of its position
ASIDE = re.compile(r" with 95% interval| \([^)]*\)$")  # in the label of an axis
PLAIN_LEGEND = 8  # most entries of a legend that is shown as a whole; a longer one is paged
GAP = {"value": ["-", "-"]}  # interrupts a line

Look = tuple[str, Any]  # colour and marker, as a legend shows them


@dataclass
class Series:
    """Lines, marks, intervals or the outline of a band: `places` (n, 2) and the same as ECharts' `points`."""

    name: str  # as in the legend; empty: not in it
    options: dict[str, Any]
    places: "np.ndarray[Any, Any]"
    points: list[dict[str, Any]] = field(default_factory=list)

    @property
    def colour(self) -> str:
        return str(self.options["color"])


def chart(figure: Figure) -> dict[str, Any] | None:
    """The options of a chart with the panels of a drawn figure, whose layout is final.

    Returns:
        None if the figure has bars or a matrix: these state their numbers already.
    """
    panels = [axes for axes in figure.axes if axes.get_visible()]
    if any(axes.patches or axes.images for axes in panels):
        return None
    entries = {look: name for legend in figure.legends for look, name in _entries(legend)}
    height = figure.get_figheight()
    titles, grids, across, upright, series = [], [], [], [], []
    for at, axes in enumerate(panels):
        panel, box = Panel(axes, entries), axes.get_position()
        left, top = _percent(box.x0), _percent(1 - box.y1)
        size = {"width": _percent(box.width), "height": _percent(box.height)}
        grids.append({"left": left, "top": top, **size, "outerBoundsMode": "none"})
        name = " ".join(axes.get_title(side) for side in ("left", "center"))
        titles.append(_title(name, left, _percent(1 - box.y1 - 0.2 / height)))
        across.append({**_axis(axes.xaxis, panel.columns), "quantity": panel.across, "gridIndex": at, "nameGap": 26})
        upright.append({**_axis(axes.yaxis, panel.rows), "quantity": panel.upright, "gridIndex": at, "nameGap": 44})
        where = {"xAxisIndex": at, "yAxisIndex": at}
        series += [{**one.options, "name": one.name, "data": one.points, **where} for one in panel.series()]
    if heading := figure.get_suptitle():
        labels = " by ".join(filter(None, (figure.get_supylabel(), figure.get_supxlabel())))
        titles.append(_title(": ".join(filter(None, (heading, labels))), "1%", "0.5%"))
    names = list(dict.fromkeys(one["name"] for one in series if one["name"]))
    return {
        "animation": False, "backgroundColor": "#fff", "title": titles, "grid": grids, "xAxis": across, "yAxis": upright,
        "series": series, "legend": _legend(figure, panels, names),
    }  # fmt: skip


def _title(text: str, left: str, top: str) -> dict[str, Any]:
    return {"text": words(text), "left": left, "top": top, "padding": 0, "textStyle": {"fontSize": 13, "color": "#222"}}


def _entries(legend: Legend) -> Iterator[tuple[Look, str]]:
    for handle, text in zip(legend.legend_handles, legend.get_texts(), strict=True):
        if isinstance(handle, Line2D):
            yield _look(handle), words(text.get_text())


def _look(line: Line2D) -> Look:
    return to_hex(line.get_color()), line.get_marker()


def _legend(figure: Figure, panels: Sequence[Axes], names: Sequence[str]) -> dict[str, Any]:
    """The names in the order of the figure's legend, beside the panels or below them, as there."""
    legend = next(iter(figure.legends), None)
    if legend is None:
        return {"show": False}
    order = [words(text.get_text()) for text in legend.get_texts()]
    in_order = sorted(names, key=lambda name: order.index(name) if name in order else len(order))
    box = legend.get_window_extent().transformed(figure.transFigure.inverted())
    options = {"data": in_order, "type": "scroll" if len(names) > PLAIN_LEGEND else "plain"}
    if (box.x0 + box.x1) / 2 > max(axes.get_position().x1 for axes in panels):
        below_buttons = max(1 - box.y1, 0.25 / figure.get_figheight())
        return options | {"orient": "vertical", "left": _percent(box.x0), "top": _percent(below_buttons), "bottom": 0}
    return options | {"left": "center", "top": _percent(1 - box.y1)}


def _axis(axis: Axis, ticks: "Ticks") -> dict[str, Any]:
    """Scale, limits, and the ticks with their texts (`texts`, in the order of `customValues`)."""
    bounds = axis.get_view_interval()
    low, high = sorted(map(float, bounds))
    inside = [(float(at), text) for at, text in zip(ticks.places, ticks.texts, strict=True) if low <= at <= high]
    values, visible = [at for at, _ in inside], bool(axis.get_majorticklabels())  # matplotlib lists those that are visible
    return {
        "type": "log" if ticks.log else "value", "min": low, "max": high, "inverse": bool(bounds[0] > bounds[1]),
        "name": words(axis.get_label_text()), "nameLocation": "middle", "nameTextStyle": {"color": "#222"},
        "axisTick": {"customValues": values}, "axisLabel": {"customValues": values, "color": "#444", "lineHeight": 14},
        "splitLine": {"show": False}, "axisLine": {"show": True, "onZero": False},
        "texts": [text if visible else "" for _, text in inside],
    }  # fmt: skip


class Ticks:
    """The positions of an axis's ticks and their texts, also where a panel leaves them to the one that shares its axis."""

    def __init__(self, axis: Axis) -> None:
        ticks = axis.get_major_ticks()
        self.places = np.array([float(tick.get_loc()) for tick in ticks])
        self.texts = [tick.label1.get_text() for tick in ticks]
        self.log = axis.get_scale() == "log"
        self.gap = float(np.diff(np.sort(self.places)).min()) if len(ticks) > 1 else 1.0

    def next_to(self, at: float) -> str:
        """The text of the tick next to a mark if it is not just its position: marks of several series are moved apart."""
        if not len(self.places):
            return ""
        nearest = int(np.abs(self.places - at).argmin())
        place, text = self.places[nearest], words(self.texts[nearest])
        if self.log:
            return text if abs(at / place - 1) < LOG_SHIFT else ""
        return text if not is_number(text) and abs(at - place) < self.gap / 2 else ""


@dataclass(frozen=True)
class Panel:
    """One panel of a figure; `entries` are the names in the figure's legend by look, for marks without a label."""

    axes: Axes
    entries: Mapping[Look, str]

    @cached_property
    def across(self) -> str:
        return self._quantity("x")

    @cached_property
    def upright(self) -> str:
        return self._quantity("y")

    @cached_property
    def columns(self) -> Ticks:
        return Ticks(self.axes.xaxis)

    @cached_property
    def rows(self) -> Ticks:
        return Ticks(self.axes.yaxis)

    def _quantity(self, which: str) -> str:
        """What an axis measures, in short: its label, that of a panel that shares it, or that of the whole figure."""
        shared = self.axes.get_shared_x_axes() if which == "x" else self.axes.get_shared_y_axes()
        labels = [getattr(one, f"get_{which}label")() for one in (self.axes, *shared.get_siblings(self.axes))]
        label = next(filter(None, labels), getattr(self.axes.get_figure(root=True), f"get_sup{which}label")())
        return ASIDE.sub("", words(label))

    def series(self) -> list[Series]:
        """The lines, then bands and intervals, named like their lines; single marks that look alike are one series."""
        lines = [self._line(line) for line in self.axes.lines if line.get_visible()]
        below: list[Series] = []
        for collection in self.axes.collections:
            if isinstance(collection, LineCollection):
                below += self._intervals(collection, lines)
            elif isinstance(collection, PolyCollection):
                below.append(_band(collection, lines))
        by_look: dict[str, Series] = {}
        for at, one in enumerate((*lines, *below)):
            apart = at if one.options["type"] == "line" and not one.options.get("silent") else ""
            first = by_look.setdefault(f"{apart} {one.name} {one.options}", one)
            if first is not one:
                first.points += one.points
        return list(by_look.values())

    def _line(self, line: Line2D) -> Series:
        label = str(line.get_label())
        name = self.entries.get(_look(line), "") if label.startswith("_") else words(label)
        places = np.array(line.get_xydata(), dtype=float, ndmin=2)
        places = places[np.isfinite(places).all(axis=1)]
        level = line.get_transform() == self.axes.get_yaxis_transform(which="grid")  # a line over the whole panel
        if level:
            places[:, 0] = self.axes.get_xlim()
        one = Series(name, _drawing(line, joined=len(places) > 1), places, [{"value": _rounded(place)} for place in places])
        if len(places) <= DENSE:
            for point, (x, y) in zip(one.points, places, strict=True):
                point["text"] = f"{self.upright} {_number(y)}" if level else self._text(x, y)
        return one

    def _text(self, x: float, y: float, interval: str = "") -> str:
        """`agreement threshold ≥5: accuracy 0.734`; where the rows of the panel are named, `CLS ≥5: accuracy 0.734`."""
        if row := self.rows.next_to(y):
            return f"{row}: {self.across} {_number(x)}{interval}"
        place = f"{self.across} {self.columns.next_to(x) or _number(x)}".strip()
        return f"{place}: {self.upright} {_number(y)}{interval}"

    def _intervals(self, collection: LineCollection, lines: Sequence[Series]) -> Iterator[Series]:
        """Segments, by the series whose points they go through; the texts of these points get the bounds."""
        colour = to_hex(np.atleast_2d(collection.get_color())[0].tolist())
        alike = [one for one in lines if one.colour == colour]
        own: dict[str, list[Any]] = {}
        for segment in collection.get_segments():
            ends = np.asarray(segment, dtype=float)[[0, -1]]
            low, high = ends.min(axis=0), ends.max(axis=0)
            name = alike[0].name if alike else ""
            for one in alike:
                for at in np.flatnonzero(((one.places >= low - 1e-9) & (one.places <= high + 1e-9)).all(axis=1)):
                    along = 0 if low[1] == high[1] else 1
                    one.points[at]["text"] = self._text(
                        one.places[at][0], one.places[at][1], f" [{low[along]:.3f}, {high[along]:.3f}]"
                    )
                    name = one.name
            own.setdefault(name, []).extend([*({"value": _rounded(end)} for end in ends), GAP])
        for name, points in own.items():
            width, opacity = float(np.atleast_1d(collection.get_linewidth())[0]), collection.get_alpha() or 1
            yield _unmarked(name, points, colour, width=width, opacity=opacity)


def _drawing(line: Line2D, *, joined: bool) -> dict[str, Any]:
    """How a line is drawn; `joined`: it has points to join."""
    marker, style, colour = str(line.get_marker()), str(line.get_linestyle()), to_hex(line.get_color())
    options: dict[str, Any] = {
        "type": "line" if joined and style not in NOTHING else "scatter", "color": colour, "z": round(line.get_zorder()),
        "symbol": SYMBOLS.get(marker, "circle"), "symbolRotate": TURNED.get(marker, 0),
        "symbolSize": round(line.get_markersize() * (0.8 if marker == "." else 1.3)), "emphasis": {"focus": "series"},
    }  # fmt: skip
    if marker == ".":  # a single run: under the mean, which the pointer is to reach
        options["z"] = 1
    if to_hex(line.get_markerfacecolor(), keep_alpha=True).endswith("00"):  # a ring: the mark inside stays visible
        options |= {"itemStyle": {"color": "transparent", "borderColor": colour, "borderWidth": 1.5}, "z": 1}
    if options["type"] == "line":
        look = {"type": DASHES.get(style, "solid"), "width": line.get_linewidth(), "opacity": line.get_alpha() or 1}
        step = "end" if line.get_drawstyle() == "steps-post" else False
        options |= {"lineStyle": look, "showSymbol": marker not in NOTHING, "step": step}
    return options


def _band(collection: PolyCollection, lines: Sequence[Series]) -> Series:
    """The outline of a band, named like the first line of its colour."""
    colour = to_hex(np.atleast_2d(collection.get_facecolor())[0].tolist())
    outline = [np.asarray(path.vertices, dtype=float) for path in collection.get_paths()]
    name = next((one.name for one in lines if one.colour == colour), "")
    return _unmarked(name, [{"value": _rounded(place)} for path in outline for place in path], colour, width=1, opacity=0.35)


def _unmarked(name: str, points: list[dict[str, Any]], colour: str, *, width: float, opacity: float) -> Series:
    look = {"width": width, "opacity": opacity, "cap": "butt"}
    options = {"type": "line", "color": colour, "showSymbol": False, "silent": True, "lineStyle": look, "z": 1}
    return Series(name, options, np.empty((0, 2)), points)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == round(value) else f"{value:,.3f}" if abs(value) < 10 else f"{value:,.4g}"


def _rounded(place: "Sequence[float] | np.ndarray[Any, Any]") -> list[float]:
    return [float(f"{value:.{DIGITS}g}") for value in place]


def _percent(share: float) -> str:
    return f"{100 * share:.2f}%"
