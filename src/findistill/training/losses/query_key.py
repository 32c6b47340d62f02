"""How queries relate to keys."""

from findistill.training.losses.relations import RelationTerm


class QueryKey(RelationTerm):
    """KL of softmax(Q K^T / sqrt d) over relation heads; see `RelationTerm` (MiniLM, Wang et al. 2020, section 3)."""

    kinds = ("query", "key")
