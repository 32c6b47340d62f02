"""How values relate to each other."""

from findistill.training.losses.relations import RelationTerm


class ValueValue(RelationTerm):
    """KL of softmax(V V^T / sqrt d) over relation heads; see `RelationTerm` (MiniLM, Wang et al. 2020, section 3)."""

    kinds = ("value", "value")
