"""The report part of `stage=teacher`: encoders fine-tuned on human labels."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from findistill.report.comparisons import TRAINED_PRESETS, best, setting_families
from findistill.report.methods import Method
from findistill.report.parts import BASELINE, Family, Part

DIFFER_IN = "teachers that differ in "
AGAINST_BASELINES = "best teacher against the baselines"


class TeacherPart(Part):
    """Encoders trained on human labels."""

    def name(self, config: Mapping[str, Any], metrics: Mapping[str, float]) -> str:
        new = metrics.get("data/augmented", 0)
        more = f" + {new:,.0f} new texts" if new else ""
        source = config["teacher"]["pretrain"]["source"]
        pretrained = f", pretrained on {source}" if source else ""
        unfrozen = ", gradual unfreezing" if config["trainer"]["unfreeze"] == "gradual" else ""
        return f"{config['teacher']['name']} on {metrics['data/kept'] - new:,.0f} human labels{more}{pretrained}{unfrozen}"

    def families(self, methods: Sequence[Method]) -> Iterator[Family]:
        own = self.own(methods)
        yield from setting_families(DIFFER_IN, own, TRAINED_PRESETS)
        baselines = [method for method in methods if method.kind == BASELINE]
        if (top := best(own)[0]) and len(own) + len(baselines) == len(methods):  # else the study is about another kind
            yield Family(AGAINST_BASELINES, [(top, method) for method in baselines])


PART = TeacherPart(kind="teacher", noun="classifier", own_baselines=False)
