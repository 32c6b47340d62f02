"""In-process language models, causal or sequence-to-sequence: with or without quantisation and a LoRA adapter.

Tuning and scoring both load models here, so that a tuned model computes the same numbers wherever it is used: frozen weights
stay in the compute dtype (or NF4 or int8), the adapter's are float32. Nothing is upcast as by peft's
`prepare_model_for_kbit_training`: norms compute in float32 anyhow, and the vocabulary matrix takes half the memory.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, BitsAndBytesConfig, PreTrainedModel
from transformers.utils import cached_file

from findistill.core import hardware
from findistill.core.files import read_json, write_json
from findistill.errors import UserError
from findistill.models.folder import check_folder
from findistill.models.opened import check_code
from findistill.models.weights import loading, locate

NF4: dict[str, Any] = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}
TUNING = "tuning.json"  # next to an adapter: its base model, and how that was loaded


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter's folder or hub id, and how its base model was loaded, to compute the same numbers again."""

    where: str
    base: str | None  # None: not recorded, the adapter was made elsewhere
    quantization: str
    dtype: str  # auto, float32, bfloat16

    def save(self, folder: Path) -> None:
        """Write `tuning.json`; peft writes the rest."""
        write_json(folder / TUNING, {"base": self.base, "quantization": self.quantization, "dtype": self.dtype})


def find_adapter(reference: str) -> Adapter:
    """The adapter in a run folder, in a model folder or behind a hub id.

    Raises:
        UserError: there is none.
    """
    inner = Path(reference) / "model"
    where = str(inner) if (inner / "adapter_config.json").exists() else locate(reference)
    try:
        cached_file(where, "adapter_config.json")
    except OSError as error:
        raise UserError(
            f"llm.adapter={reference} has no LoRA adapter (adapter_config.json).\n"
            "Give a run folder of stage=qlora, an adapter folder or a hub id; llm.adapter=tune trains one first."
        ) from error
    file = cached_file(where, TUNING, _raise_exceptions_for_missing_entries=False)
    tuning = read_json(Path(file)) if file else {}
    return Adapter(where, tuning.get("base"), tuning.get("quantization", "none"), tuning.get("dtype", "auto"))


def load(model: str, dtype: str = "auto", adapter: str = "") -> PreTrainedModel:
    """The model in evaluation mode on the available device; with `adapter`, loaded as it was for tuning.

    Raises:
        UserError: it cannot be loaded, or the adapter belongs to another model.
    """
    if not adapter:
        return load_base(model, dtype)
    lora = find_adapter(adapter)
    if lora.base is not None and Path(lora.base).name != Path(model).name:
        raise UserError(f"llm.adapter={adapter} was tuned on {lora.base}, not on {model}. Set llm.model={lora.base}.")
    base = load_base(model, lora.dtype if dtype == "auto" else dtype, lora.quantization)
    with loading(f"llm.adapter={adapter} cannot be applied to {model}"):
        return PeftModel.from_pretrained(base, lora.where).get_base_model().eval()


def load_base(
    model: str, dtype: str = "auto", quantization: str = "none", device: str | None = None
) -> PreTrainedModel:  # fmt: skip
    """A causal or sequence-to-sequence model, frozen, in evaluation mode, on the available device, or on `device`.

    `nf4`: 4-bit normal floats with double quantisation (Dettmers et al. 2023, section 3), computing in `dtype`; `int8`:
    LLM.int8 (Dettmers et al. 2022). The vocabulary's matrices and T5's `wo` are not quantised.

    Raises:
        UserError: it cannot be loaded.
    """
    compute = compute_dtype(dtype)
    folder, device = locate(model), device or hardware.device()
    quantised: dict[str, Any] = {}
    if quantization != "none":
        how = {"load_in_8bit": True} if quantization == "int8" else NF4 | {"bnb_4bit_compute_dtype": compute}
        quantised = {"quantization_config": BitsAndBytesConfig(**how), "device_map": {"": device}}
    check_folder(model, folder, "language model", tokenizer=False)
    check_code(model, folder)
    with loading(f"llm.model={model} cannot be loaded"):
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        kind = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
        loaded = kind.from_pretrained(folder, config=config, dtype=compute, **quantised)
    loaded.requires_grad_(False)
    for module in loaded.modules():
        # On processors with AVX512-BF16, bitsandbytes permanently repacks a 4-bit layer at its first call in evaluation mode:
        # after one validation, gradients silently stop flowing through it, and its outputs differ from those in training.
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    # The last positions of a batch are not contiguous; torch would copy the vocabulary matrix for each row of the batch.
    loaded.get_output_embeddings().register_forward_pre_hook(lambda _, inputs: (inputs[0].contiguous(), *inputs[1:]))
    return loaded.eval() if quantised else loaded.eval().to(device)


def merged(model: str, adapter: str) -> PreTrainedModel:
    """The full model with the adapter's weights merged in; quantised weights are dequantised first.

    It computes the same as the tuned model, except that the sum is rounded to the compute dtype.
    """
    lora = find_adapter(adapter)
    base = load_base(model, lora.dtype, lora.quantization)
    if lora.quantization != "none":
        base = base.dequantize(dtype=compute_dtype(lora.dtype))
    return PeftModel.from_pretrained(base, lora.where).merge_and_unload().eval()


def compute_dtype(setting: str) -> torch.dtype:
    """What `llm.dtype` means here: `auto` is bfloat16 except on processors that would emulate it."""
    if setting == "auto":
        return torch.bfloat16 if hardware.llm_precision() == "bf16" else torch.float32
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[setting]
