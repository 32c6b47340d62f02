"""Rates of peers that took turns at the same work."""

import statistics
from collections.abc import Mapping, Sequence


def print_rates(seconds: Mapping[str, Sequence[float]], count: int, unit: str, digits: int = 1) -> float:
    """Print the median of `count` units over the seconds of each, with its range; the first one's median over the last one's."""
    width = max(map(len, seconds))
    rates = {who: [count / value for value in values] for who, values in seconds.items()}
    for who, values in rates.items():
        median, low, high = (f"{value:.{digits}f}" for value in (statistics.median(values), min(values), max(values)))
        print(f"{who:{width}} {median:>7} {unit}/s  ({low} to {high})")
    first, *_, last = map(statistics.median, rates.values())
    return first / last
