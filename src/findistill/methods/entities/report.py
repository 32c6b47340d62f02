"""The report part of `stage=entities`."""

from collections.abc import Mapping
from typing import Any

from findistill.report.parts import Part


class EntitiesPart(Part):
    """Models that mark entities."""

    def name(self, config: Mapping[str, Any], metrics: Mapping[str, float]) -> str:
        entities = config["entities"]
        return f"{entities['model']} on {entities['source']} spans"


PART = EntitiesPart(kind="entities", noun="model", own_baselines=False)
