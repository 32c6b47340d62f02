"""The warnings of `stage=annotate` about poor annotations."""

from types import SimpleNamespace
from typing import Any

import pandas as pd
from omegaconf import OmegaConf

from findistill.methods.annotate.stage import doubts


def warnings(labels: list[str], gold: list[str | None], model: str = "m", k: int = 0) -> list[str]:
    config = OmegaConf.create({"llm": {"model": model}, "shots": {"k": k}})
    job: Any = SimpleNamespace(step=SimpleNamespace(whole=config))
    return list(doubts(job, pd.DataFrame({"label": labels, "gold": gold})))


def test_an_annotator_below_the_majority_class() -> None:
    [doubt] = warnings(["up"] * 3 + ["down"] * 7, ["up"] * 8 + ["down"] * 2)
    assert "accuracy on 10 labelled texts is 0.500" in doubt and "answering 'up' is 0.800" in doubt
    assert warnings(["up"] * 8 + ["down"] * 2, ["up"] * 8 + ["down"] * 2) == []


def test_zero_shot_use_of_the_embedded_model_without_labels() -> None:
    unlabelled: list[str | None] = [None, None]
    [doubt] = warnings(["up", "down"], unlabelled, "embedded:smollm2")
    assert "data.labelled=100 shots.k=4" in doubt
    assert warnings(["up", "down"], unlabelled, "embedded:smollm2", k=4) == [] and warnings(["up", "down"], unlabelled) == []


def test_one_label_for_everything() -> None:
    assert "100% of the texts got the label 'up'" in warnings(["up"] * 40, [None] * 40)[0]
