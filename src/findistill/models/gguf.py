"""Quantised weights of llama.cpp as a plain Hugging Face folder."""

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


def convert(gguf: Path, folder: Path) -> None:
    """De-quantise a GGUF file into bfloat16 safetensors, with the tokenizer of its folder."""
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.bfloat16)
    config = model.config
    # A model that came from GGUF refuses save_pretrained; a fresh one with the same weights does not.
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    fresh = type(model)(config).to(torch.bfloat16)
    fresh.load_state_dict(model.state_dict())
    fresh.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
