"""`stage=entities entities.step=sample`: the sample and what it is drawn from."""

from typing import Any

from findistill.core.step import Step, load
from findistill.methods.datasets import demonstrations, own
from findistill.methods.stage import Stage


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

    def settings(self) -> dict[str, Any]:
        return {"sample": self.config.results()["entities"]["sample"]}


class Sample(Stage):
    """`stage=entities entities.step=sample`: the sample as a file in the run folder, with its counts."""

    implementation = "findistill.methods.sampling.stage:run"

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.reads = ()

    def parents(self) -> dict[str, Step]:
        sample = HeadlineSample(self._config, load("findistill.methods.extract.steps:Extractions")(self._config))
        return {**own(self._config), **demonstrations(self._config), "sample": sample}
