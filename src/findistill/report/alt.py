"""The alternative text of figures: what they show, in words and numbers."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

ALL = 6  # most points of a series that is listed in full; of a longer one, its ends and its maximum
SERIES = 12  # most series of a panel that are described


def described(figure: Figure) -> str:
    """The panels of a figure: their axes, and the numbers of each series, row of bars or matrix."""
    heading = figure.get_suptitle()
    texts, rows = [f"{heading}."] if heading else [], dict[float, str]()
    for axes in figure.axes:
        if axes.get_visible():
            rows = _row_names(axes) or rows  # panels beside each other share them
            texts.append(_panel(axes, rows))
    return " ".join(texts)


def _panel(axes: Axes, rows: Mapping[float, str]) -> str:
    x, y = (words(label) for label in (axes.get_xlabel(), axes.get_ylabel()))
    title = next((text for text in (axes.get_title(), axes.get_title("left")) if text), "")
    header = ", ".join(filter(None, (words(title), f"{y} by {x}" if x and y else x or y)))
    series = [*(_in_rows(axes, rows) or _labelled(axes) or _unlabelled(axes)), *_matrices(axes)]
    more = [f"and {len(series) - SERIES} more"] if len(series) > SERIES else []
    return f"{header}: {'; '.join([*series[:SERIES], *more]) or 'no values'}."


def _row_names(axes: Axes) -> dict[float, str]:
    """The methods that the vertical axis names, by their height; none if it has numbers."""
    labels = zip(axes.get_yticks(), axes.get_yticklabels(), strict=False)
    names = {round(float(at), 6): words(label.get_text()) for at, label in labels}
    return {} if all(is_number(name) for name in names.values()) else names


def _in_rows(axes: Axes, names: Mapping[float, str]) -> list[str]:
    """The value of each row: the length of its bar, or the position of its mark."""
    bars = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    values = {round(bar.get_y() + bar.get_height() / 2, 6): bar.get_width() for bar in bars}
    for line in axes.lines:
        if len(points := np.asarray(line.get_xydata())) == 1:
            values.setdefault(round(float(points[0][1]), 6), points[0][0])
    return [f"{name} {values[at]:.3g}" for at, name in names.items() if name and at in values]


def _labelled(axes: Axes) -> list[str]:
    """The series that the legend names."""
    named = zip(*axes.get_legend_handles_labels(), strict=True)
    series = [(words(name), points) for handle, name in named if (points := _points(handle)) is not None and len(points)]
    return [f"{name} {_values(points, axes)}" for name, points in series]


def _unlabelled(axes: Axes) -> list[str]:
    lines = [points for line in axes.lines if (points := _points(line)) is not None and len(points) > 1]
    return [_values(points, axes) for points in lines]


def _matrices(axes: Axes) -> Iterator[str]:
    for image in axes.images:
        shares = np.asarray(image.get_array(), dtype=float)
        names = [words(label.get_text()) for label in axes.get_xticklabels()]
        if shares.ndim == 2 and shares.shape[0] == shares.shape[1] == len(names):
            yield ", ".join(f"{name} {shares[at, at]:.0%} right" for at, name in enumerate(names))


def _points(handle: Any) -> "np.ndarray[Any, Any] | None":
    """The points of a line, of the line of error bars, of scattered marks or of bars; None of anything else."""
    if hasattr(handle, "get_xydata"):
        points = np.asarray(handle.get_xydata(), dtype=float)
    elif hasattr(handle, "patches"):
        points = np.array([(bar.get_x() + bar.get_width() / 2, bar.get_height()) for bar in handle.patches])
    elif isinstance(handle, tuple) and handle and hasattr(handle[0], "get_xydata"):
        points = np.asarray(handle[0].get_xydata(), dtype=float)
    elif hasattr(handle, "get_offsets"):
        points = np.asarray(handle.get_offsets(), dtype=float)
    else:
        return None
    return points[np.isfinite(points).all(axis=1)] if points.size else points.reshape(0, 2)


def _values(points: "np.ndarray[Any, Any]", axes: Axes) -> str:
    if len({y for _, y in points}) == 1:  # a level that does not vary
        return f"{points[0][1]:.3g}"
    if len(points) <= ALL:
        return ", ".join(f"{y:.3g} at {_place(x, axes):.4g}" for x, y in points)
    (first, start), (last, end), (at, high) = points[0], points[-1], points[points[:, 1].argmax()]
    return f"from {start:.3g} at {first:.4g} to {end:.3g} at {last:.4g}, highest {high:.3g} at {at:.4g}"


def _place(x: float, axes: Axes) -> float:
    """The tick next to a mark, since marks of several series are moved apart; the mark's own position if none is close."""
    ticks = axes.get_xticks()
    if len(ticks) < 2 or axes.get_xscale() == "log":
        return x
    nearest = ticks[np.abs(ticks - x).argmin()]
    return float(nearest) if abs(nearest - x) < np.diff(ticks).min() / 5 else x


def words(text: str) -> str:
    """A text of a figure on one line."""
    return " ".join(text.split())


def is_number(text: str) -> bool:
    """Whether a tick's text is only its position."""
    return not text.strip("−-+0123456789.,% $e")
