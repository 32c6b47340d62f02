"""How queries relate to keys."""

from findistill.training.losses.relations import RelationTerm


class QueryKey(RelationTerm):
    """KL of softmax(Q K^T / sqrt d) over relation heads; see `RelationTerm` (MiniLM v2, Wang et al. 2021, section 3.1)."""

    kinds = ("query", "key")
