"""The outputs of a torch model for texts, and the device to compute them on."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from transformers import PreTrainedModel

from findistill.core import hardware
from findistill.models.batches import pad
from findistill.models.tokens import Tokens, sorted_batches


@torch.inference_mode()
def logits_of(model: PreTrainedModel, tokens: Tokens, batch_size: int, device: torch.device) -> np.ndarray:
    """(n, outputs) float32 logits of every text, in the texts' order."""
    model.to(device)
    logits = np.zeros((len(tokens), model.config.num_labels), dtype=np.float32)
    for indexes in sorted_batches(tokens.lengths, batch_size):
        inputs = {name: value.to(device) for name, value in pad(tokens, indexes).items()}
        logits[indexes] = model(**inputs).logits.float().cpu().numpy()
    return logits


def device_of(accelerator: str) -> torch.device:
    """The device that `trainer.accelerator` means on this machine."""
    return torch.device("cpu" if accelerator == "cpu" else hardware.device())


@contextmanager
def threads(number: int) -> Iterator[None]:
    """Torch computes with `number` threads, tokenizers with one."""
    before, parallel = torch.get_num_threads(), os.environ.get("TOKENIZERS_PARALLELISM")
    torch.set_num_threads(number)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    try:
        yield
    finally:
        torch.set_num_threads(before)
        if parallel is None:
            del os.environ["TOKENIZERS_PARALLELISM"]
        else:
            os.environ["TOKENIZERS_PARALLELISM"] = parallel
