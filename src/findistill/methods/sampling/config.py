"""Settings of `entities.step=sample`: which headlines people review."""

from dataclasses import dataclass

from findistill.config.fields import setting
from findistill.data.name_clusters import SCORERS, THRESHOLD


@dataclass
class Sampling:
    """The defaults are those of Capital Fund Management's study."""

    # of the headlines of every cluster of names, one at least, and of those without a name
    share: float = setting(0.05, gt=0, le=1, meaning="a share of the headlines")
    similarity: str = setting("ratio", choices=tuple(SCORERS))  # of two names
    threshold: float = setting(THRESHOLD, ge=50, le=100)  # of the similarity, from which on they are in one cluster
    # data: as the data set says, by date above all (data.split_by_date); cluster: no cluster is in two splits
    split: str = setting("data", choices=("data", "cluster"))
    test: float = setting(0.2, gt=0, lt=1, meaning="a share of the headlines")  # cluster only
    validation: float = setting(0.1, ge=0, lt=1, meaning="a share of the headlines")  # cluster only
    seed: int = setting(0, ge=0)
