"""The report part of `stage=qlora`: language models fine-tuned on human labels."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from findistill.methods.qlora.card import adapter_name
from findistill.report.comparisons import value_of
from findistill.report.methods import Method
from findistill.report.parts import Family, Part, of_kind

OWN_PROMPTS = "a fine-tuned model against its own prompts"
AGAINST_CLASSIFIERS = "fine-tuned language models against classifiers"


class TunedPart(Part):
    """Language models with a LoRA adapter, compared with prompts for the same model and classifiers on the same labels."""

    def name(self, config: Mapping[str, Any], metrics: Mapping[str, float]) -> str:
        return f"{adapter_name(config['qlora']['quantization'])} {config['llm']['name']}"

    def families(self, methods: Sequence[Method]) -> Iterator[Family]:
        own = self.own(methods)
        prompts = [(a, b) for a in own for b in of_kind("fewshot").own(methods) if value_of(a, "llm") == value_of(b, "llm")]
        yield Family(OWN_PROMPTS, prompts, lambda a, _: f"{a.name} against the same model with a prompt")
        yield Family(AGAINST_CLASSIFIERS, [(a, b) for a in own for b in of_kind("teacher").own(methods)])


PART = TunedPart(kind="qlora", noun="fine-tuned language model", own_baselines=False)
