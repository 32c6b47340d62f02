"""What predictions cost on a machine that has a price."""

from collections.abc import Mapping

USD_PER_1000 = "cost/usd_per_1000_texts"


def machine_cost(metrics: Mapping[str, float], usd_per_hour: float | None) -> dict[str, float]:
    """`cost/usd_per_1000_texts` by the machine's price and the measured `throughput/texts_per_s`.

    Empty where either is not known, and where there is a cost already (of a server, by tokens).
    """
    speed = metrics.get("throughput/texts_per_s")
    if not usd_per_hour or not speed or USD_PER_1000 in metrics:
        return {}
    return {USD_PER_1000: usd_per_hour / 3600 * 1000 / speed}
