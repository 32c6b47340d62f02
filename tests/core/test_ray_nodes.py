"""The room on a cluster's nodes, counted node by node."""

from types import SimpleNamespace

import pytest

from findistill.core.ray_nodes import places

NODES = [
    {"Alive": True, "Resources": {"CPU": 3.0, "GPU": 1.0}},
    {"Alive": True, "Resources": {"CPU": 1.0}},
    {"Alive": False, "Resources": {"CPU": 64.0}},
]


@pytest.mark.parametrize(
    ("needs", "count"),
    [
        ({"CPU": 1, "GPU": 0}, 4),
        ({"CPU": 2}, 1),
        ({"CPU": 4}, 0),
        ({"CPU": 0.1}, 40),
        ({"CPU": 1, "GPU": 0.5}, 2),
        ({"CPU": 0}, 1),
    ],
)
def test_no_job_is_divided_between_two_nodes(needs: dict[str, float], count: int) -> None:
    assert places(SimpleNamespace(nodes=lambda: NODES), needs) == count
