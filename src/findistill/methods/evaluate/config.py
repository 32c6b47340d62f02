"""Settings of evaluation."""

from dataclasses import dataclass
from typing import Any

from findistill.config.fields import setting


@dataclass
class Evaluate:
    model: str | None = None  # stage=evaluate, export: a run folder, a model folder or a hub id; evaluate: an ONNX file too
    # the model's names -> the data's labels, {Bullish: positive, ...}, or the data's labels in the order of the model's outputs,
    # [negative,neutral,positive]; null: no label. Not typed as a dict, as Hydra would then require a `+` prefix
    label_map: Any = None
    also: list[Any] = setting([], names="data")  # further test sets, optionally with settings: 'phrasebank test=1'
    resamples: int = setting(1000, ge=1)
    latency: bool = True
    # price of this machine, for the cost of 1,000 predictions; None: not known
    usd_per_hour: float | None = setting(None, gt=0, runtime_only=True)
