"""Compare the rates of peers that alternated on the same workload."""

import statistics
from collections.abc import Mapping, Sequence


def print_rates(seconds: Mapping[str, Sequence[float]], count: int, unit: str, digits: int = 1) -> float:
    """Print each peer's median rate and range for `count` units; return how many times as fast as the last the first one is."""
    width = max(map(len, seconds))
    rates = {who: [count / value for value in values] for who, values in seconds.items()}
    for who, values in rates.items():
        median, low, high = (f"{value:.{digits}f}" for value in (statistics.median(values), min(values), max(values)))
        print(f"{who:{width}} {median:>7} {unit}/s  ({low} to {high})")
    first, *_, last = map(statistics.median, rates.values())
    return first / last
