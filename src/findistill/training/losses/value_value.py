"""How values relate to each other."""

from findistill.training.losses.relations import RelationTerm


class ValueValue(RelationTerm):
    """KL of softmax(V V^T / sqrt d) over relation heads; see `RelationTerm` (MiniLM v2, Wang et al. 2021, section 3.1)."""

    kinds = ("value", "value")
