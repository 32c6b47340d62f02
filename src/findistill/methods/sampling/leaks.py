"""Companies in both training and test headlines: their share, and a split without any."""

from collections.abc import Sequence

import numpy as np

from findistill.data.name_clusters import numbered, union


def overlap(
    clusters: Sequence[Sequence[int]], splits: Sequence[str | None], of: str = "test", others: str = "train"
) -> float | None:
    """The share of the clusters in one split's headlines that also occur in another's; None if it has no clusters.

    Args:
        clusters: of each headline.
        splits: of each headline.
    """
    pairs = [*zip(clusters, splits, strict=True)]
    by_split = {name: {each for own, split in pairs if split == name for each in own} for name in (of, others)}
    return len(by_split[of] & by_split[others]) / len(by_split[of]) if by_split[of] else None


def split_by_cluster(clusters: Sequence[Sequence[int]], test: float, validation: float, seed: int) -> list[str | None]:
    """The split of each headline, so that no cluster is in two.

    Clusters in the same headline form a group, as do all that a chain of headlines connects. The largest group is for training;
    the others, in random order, go to test if its share of the headlines has room, else likewise to validation, else to training.
    If one group has almost all headlines, test and validation get less than their shares.
    """
    n = len(clusters)
    number = {cluster: n + at for at, cluster in enumerate(sorted({each for own in clusters for each in own}))}
    parents = np.arange(n + len(number))
    for headline, own in enumerate(clusters):
        for cluster in own:
            union(parents, headline, number[cluster])
    group_of = numbered(parents)[:n]
    groups = [np.flatnonzero(group_of == group) for group in range(group_of.max(initial=-1) + 1)]
    order = np.random.default_rng(seed).permutation(len(groups))
    largest = max(range(len(groups)), key=lambda group: len(groups[group]), default=None)
    splits: list[str | None] = ["train"] * n
    room = {"test": round(test * n), "validation": round(validation * n)}
    for group in order:
        split = next((name for name, left in room.items() if len(groups[group]) <= left), None)
        if group != largest and split is not None:
            room[split] -= len(groups[group])
            for headline in groups[group]:
                splits[headline] = split
    return splits
