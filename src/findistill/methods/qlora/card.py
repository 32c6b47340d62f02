"""The model card beside a LoRA adapter."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from findistill.report.licences import Provenance
from findistill.report.model_card import write_model_card


def adapter_name(quantization: str) -> str:
    """The name of tuning over weights of this quantization: only over NF4 ones is it QLoRA."""
    return {"nf4": "QLoRA", "int8": "LoRA int8", "none": "LoRA"}[quantization]


def write_adapter_card(
    folder: Path, config: Any, labels: Sequence[str], rows: int, learnt: Provenance, metrics: Mapping[str, float],
    form: str = "prompt", **facts: Any,
) -> Path:  # fmt: skip
    """Write the README.md of an adapter tuned on `rows` human-labelled texts, with the prompts of section `form`."""
    llm = config.llm
    encoder_decoder = "t5" in llm.model.lower()
    return write_model_card(
        folder, "adapter", name=f"{adapter_name(config.qlora.quantization)} of {llm.name}", data=config.data, learnt=learnt,
        library="peft", tags=["lora"], base_model=llm.model, metrics=metrics, labels=labels, rows=rows, settings=config.qlora,
        prompt=f"{form}={config[form].name}", llm=llm.name, embedded=llm.model.startswith("embedded:"), seed=config.seed,
        auto="Seq2SeqLM" if encoder_decoder else "CausalLM",
        task="text2text-generation" if encoder_decoder else "text-generation", **facts,
    )  # fmt: skip
