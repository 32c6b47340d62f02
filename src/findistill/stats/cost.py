"""Cost of predictions on a machine with an hourly price."""

from collections.abc import Mapping

USD_PER_1000 = "cost/usd_per_1000_texts"


def machine_cost(metrics: Mapping[str, float], usd_per_hour: float | None) -> dict[str, float]:
    """`cost/usd_per_1000_texts` from the machine's price and the measured `throughput/texts_per_s`.

    Empty if either is unknown, or if there is a cost already (of a server, by tokens).
    """
    speed = metrics.get("throughput/texts_per_s")
    if not usd_per_hour or not speed or USD_PER_1000 in metrics:
        return {}
    return {USD_PER_1000: usd_per_hour / 3600 * 1000 / speed}
