"""Settings of `entities.step=sample`: which headlines people review."""

from dataclasses import dataclass

from findistill.config.fields import setting


@dataclass
class Sampling:
    """The defaults are those of Capital Fund Management's study, except that its splits are by date (`split=date`)."""

    # of the headlines of every cluster of names, at least one, and of those without a name
    share: float = setting(0.05, gt=0, le=1, meaning="a share of the headlines")
    similarity: str = setting("ratio", choices=("ratio", "levenshtein"))  # of two names
    threshold: float = setting(85.0, ge=50, le=100)  # similarity from which two names are in one cluster
    # the column `split` of the sample. none: the data set's own; date: by `periods`, other headlines are dropped; cluster: no
    # cluster is in two splits
    split: str = setting("none", choices=("none", "date", "cluster"))
    periods: list[str] = setting(["2010/2016", "2017/2018", "2019/2020"])  # date: of training, validation and test
    test: float = setting(0.2, gt=0, lt=1, meaning="a share of the headlines")  # cluster
    validation: float = setting(0.1, ge=0, lt=1, meaning="a share of the headlines")  # cluster
    seed: int = setting(0, ge=0)
