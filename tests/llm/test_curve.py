"""The cost of an annotation job so far, as logged."""

from typing import Any

import pytest

from findistill.llm.curve import CostCurve
from findistill.llm.engine import Response


class Logger:
    def __init__(self) -> None:
        self.points: list[tuple[int, dict[str, float]]] = []

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        self.points.append((step, metrics))


def answer(**fields: Any) -> Response:
    values = {"label": "positive", "raw": "positive", "attempts": 1, "tokens_in": 10, "tokens_out": 2, "cost": 0.5, **fields}
    return Response("row", 0, **values)


def test_points_are_totals_and_the_last_one_always_comes() -> None:
    logger = Logger()
    curve = CostCurve([logger], every_s=3600)
    for _ in range(3):
        curve.add([answer(), answer(label=None, attempts=0)])
    assert not logger.points
    curve.log()
    curve.log()  # no new responses since
    [(step, point)] = logger.points
    assert step == 6 and point.pop("annotation/elapsed_s") >= 0
    assert point == {
        "annotation/responses": 6, "annotation/requests": 3, "annotation/tokens_in": 60, "annotation/tokens_out": 12,
        "annotation/usd": 3.0, "annotation/valid_share": 0.5,
    }  # fmt: skip


def test_a_point_comes_when_it_is_due() -> None:
    logger = Logger()
    curve = CostCurve([logger], every_s=0)
    for _ in range(2):
        curve.add([answer(cost=None)])
    assert [step for step, _ in logger.points] == [1, 2]
    assert not any("annotation/usd" in point for _, point in logger.points)  # an unknown price is not logged as zero


@pytest.mark.parametrize("loggers", [[], [Logger()]])
def test_nothing_is_logged_where_nothing_was_requested(loggers: list[Logger]) -> None:
    CostCurve(loggers).log()
    assert not any(logger.points for logger in loggers)
