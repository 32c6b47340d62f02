"""Token classifiers in torch: opened as `tagging.TokenClassifier`, and exported to ONNX."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch

from findistill.inference import onnx_export
from findistill.inference.tagging import TokenClassifier
from findistill.models.encoders import open_tagger
from findistill.models.forward import device_of
from findistill.models.heads import window_of


def open_model(model: str | Path, accelerator: str) -> TokenClassifier:
    """Open a folder or hub id."""
    loaded, tokenizer = open_tagger(model)
    device = device_of(accelerator)
    loaded.to(device)

    @torch.inference_mode()
    def run(input_ids: np.ndarray, attention_mask: np.ndarray) -> np.ndarray:
        ids, mask = (torch.from_numpy(value).to(device) for value in (input_ids, attention_mask))
        logits: np.ndarray = loaded(input_ids=ids, attention_mask=mask).logits.float().cpu().numpy()
        return logits

    tags = tuple(loaded.config.id2label[at] for at in range(loaded.config.num_labels))
    return TokenClassifier(run, tags, tokenizer, window_of(loaded, tokenizer))


def export(model: str | Path, folder: Path, opset: int, variants: Sequence[str]) -> dict[str, Path]:
    """Write a token classifier as ONNX files into `folder`, with their companion files; returns the files by variant."""
    loaded, tokenizer = open_tagger(model)
    tags = [loaded.config.id2label[at] for at in range(loaded.config.num_labels)]
    portable = onnx_export.exported_tokenizer(tokenizer, window_of(loaded, tokenizer))
    onnx_export.save_companions(folder, portable, tags, str(model))
    write = partial(onnx_export.to_onnx, onnx_export.TokenClassifier(loaded), opset=opset)
    return onnx_export.write_variants(write, folder, variants)
