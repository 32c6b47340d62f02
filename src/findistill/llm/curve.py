"""The cost of an annotation over time, for the loggers of its job."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from findistill.llm.engine import Response

EVERY_S = 10.0  # between two points
COUNTED = ("responses", "requests", "tokens_in", "tokens_out")


@dataclass
class CostCurve:
    """Counts an engine's responses, and logs the totals periodically. Cached ones are not counted: they cost nothing now.

    A point has `annotation/responses` (which is also the logger's step), `requests`, `tokens_in`, `tokens_out`, `valid_share`
    (of the responses, those that name a label), `elapsed_s` and, where prices are known, `usd`.

    Args:
        loggers: Lightning loggers.
        every_s: seconds between two points; the last one is logged in any case.
    """

    loggers: Sequence[Any] = ()
    every_s: float = EVERY_S
    totals: dict[str, float] = field(default_factory=lambda: dict.fromkeys(COUNTED, 0))
    _valid: int = 0
    _started: float = field(default_factory=time.monotonic)
    _logged_at: float = field(default_factory=time.monotonic)
    _logged: float = 0

    def add(self, responses: Sequence[Response]) -> None:
        """Count priced responses that just arrived."""
        totals = self.totals
        totals["responses"] += len(responses)
        totals["requests"] += sum(each.attempts for each in responses)
        totals["tokens_in"] += sum(each.tokens_in for each in responses)
        totals["tokens_out"] += sum(each.tokens_out for each in responses)
        costs = [each.cost for each in responses if each.cost is not None]
        if costs or "usd" in totals:
            totals["usd"] = totals.get("usd", 0.0) + sum(costs)
        self._valid += sum(each.error is None and each.label is not None for each in responses)
        if time.monotonic() - self._logged_at >= self.every_s:
            self.log()

    def log(self) -> None:
        """Log the totals, unless nothing has arrived since they were last logged."""
        if not self.loggers or self.totals["responses"] == self._logged:
            return
        self._logged, self._logged_at = self.totals["responses"], time.monotonic()
        more = {"valid_share": self._valid / self._logged, "elapsed_s": self._logged_at - self._started}
        point = {f"annotation/{name}": float(value) for name, value in {**self.totals, **more}.items()}
        for logger in self.loggers:
            logger.log_metrics(point, step=int(self._logged))
