"""The model card beside a LoRA adapter."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from findistill.report.model_card import write_model_card


def adapter_name(quantization: str) -> str:
    """What tuning over weights of this quantization is called: only over quantised ones is it QLoRA."""
    return {"nf4": "QLoRA", "int8": "LoRA int8", "none": "LoRA"}[quantization]


def write_adapter_card(
    folder: Path, config: Any, labels: Sequence[str], rows: int, licence: str, metrics: Mapping[str, float]
) -> Path:
    """The README.md of an adapter's folder; `rows` texts with human labels were learnt from."""
    llm = config.llm
    return write_model_card(
        folder, "adapter", name=f"{adapter_name(config.qlora.quantization)} of {llm.name}", data=config.data, licence=licence,
        library="peft", tags=["lora"], base_model=llm.model, metrics=metrics, labels=labels, rows=rows, settings=config.qlora,
        prompt=config.prompt.name, llm=llm.name, task="Seq2SeqLM" if "t5" in llm.model.lower() else "CausalLM",
    )  # fmt: skip
