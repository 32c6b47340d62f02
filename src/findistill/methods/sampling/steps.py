"""The step of `entities.step=sample`."""

from typing import Any

from findistill.core.step import Step
from findistill.methods.datasets import own


class HeadlineSample(Step):
    """The headlines that people review, drawn from those in which an LLM marked the names.

    Its artifact holds `sample.parquet` (id, text, date, split, cluster, representative, clusters, spans, agreement),
    `clusters.csv` and `sample.json`, with the counts and the leak check.
    """

    name = "sample"
    reads = ("entities.sample",)
    implementation = "findistill.methods.sampling.sample:draw_sample"

    def __init__(self, config: Any, extraction: Step) -> None:
        super().__init__(config)
        self._extraction = extraction

    def parents(self) -> dict[str, Step]:
        return {**own(self._config), "extraction": self._extraction}
