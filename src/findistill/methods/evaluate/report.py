"""The report part of `stage=evaluate`: models that are scored as they are."""

from collections.abc import Mapping
from typing import Any

from findistill.report.parts import Part


class EvaluatedPart(Part):
    def name(self, config: Mapping[str, Any], metrics: Mapping[str, float]) -> str:
        return str(config["evaluate"]["model"])


PART = EvaluatedPart(kind="evaluate", noun="model", own_baselines=False)
