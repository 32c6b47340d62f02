"""The room on the nodes of a Ray cluster."""

from collections.abc import Mapping
from typing import Any


def places(ray: Any, needs: Mapping[str, float]) -> int:
    """How many tasks or actors fit on the nodes that are in the cluster now; one cannot be divided between two nodes.

    Args:
        ray: the module, connected to a cluster.
        needs: of one task or actor: resource -> amount. Without any, there is room for one.
    """
    needs = {name: need for name, need in needs.items() if need}
    if not needs:
        return 1
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return sum(int(min(node.get(name, 0) / need for name, need in needs.items())) for node in nodes)
