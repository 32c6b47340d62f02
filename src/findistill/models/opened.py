"""Checks of a loaded model: no random numbers in place of weights, no tokenizer of another model."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import CONFIG_MAPPING, PreTrainedModel, PreTrainedTokenizerBase

from findistill.core.files import read_json
from findistill.errors import UserError
from findistill.models.folder import tokenizer_remedy

COVERED = 0.6  # least share of a model's embeddings that its tokenizer uses; vocabularies are padded, not doubled


def check_code(model: str, where: str) -> None:
    """Raise UserError for a local folder whose architecture is custom code (`auto_map`), which is not run."""
    file = Path(where) / "config.json"
    settings = read_json(file) if file.is_file() else {}
    if settings.get("auto_map") and settings.get("model_type") not in CONFIG_MAPPING:
        raise UserError(
            f"the model {model} needs its own code (auto_map in its config.json), which findistill does not run.\n"
            "Use a model whose architecture transformers supports"
        )


def check_opened(model: str, opened: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, info: Mapping[str, Any] | None) -> None:
    """Check a loaded model and its tokenizer.

    Args:
        info: what `from_pretrained(..., output_loading_info=True)` returns with the model; None: nothing was loaded.

    Raises:
        UserError: weights are missing, have other sizes than in the configuration or are not finite, or the tokenizer is
            another model's. Weights of a head may be missing if `info` is that of a model to train, see `begun`.
    """
    if info is not None:
        if mismatched := sorted(str(each[0]) if isinstance(each, tuple) else str(each) for each in info["mismatched_keys"]):
            raise UserError(f"the model {model}: config.json and weights do not match: different sizes of {_first(mismatched)}")
        if missing := sorted(info["missing_keys"]):
            raise UserError(
                f"the model {model} is not a trained classifier, or is incomplete: its weights lack {_first(missing)}.\n"
                "They would be initialised randomly. Give a folder that was saved after training; stage=teacher trains one"
            )
    _check_finite(model, opened)
    rows = _embedding_rows(opened)
    if rows and len(tokenizer) > rows:
        raise UserError(
            f"the model {model}: its tokenizer has {len(tokenizer):,} tokens, but the model {rows:,} embeddings; it belongs to "
            f"another model.\n{tokenizer_remedy(opened.config.to_dict(), model)}"
        )
    if rows and len(tokenizer) < COVERED * rows:
        raise UserError(
            f"the model {model}: its tokenizer has only {len(tokenizer):,} tokens for {rows:,} embeddings; files of the "
            f"tokenizer are missing, or it belongs to another model.\n{tokenizer_remedy(opened.config.to_dict(), model)}"
        )


def begun(info: Mapping[str, Any], opened: PreTrainedModel) -> dict[str, list[Any]]:
    """`info` of a model to train, without what may be initialised at random: its head, and a pooler."""
    prefix = f"{opened.base_model_prefix}."

    def below(key: Any) -> bool:
        name = str(key[0] if isinstance(key, tuple) else key)
        return name.startswith(prefix) and "pooler" not in name

    return {kind: [key for key in info[kind] if below(key)] for kind in ("missing_keys", "mismatched_keys")}


def _check_finite(model: str, opened: PreTrainedModel) -> None:
    for name, value in opened.named_parameters():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise UserError(
                f"the model {model}: its weights are damaged, {name} has {int((~torch.isfinite(value)).sum()):,} infinite or "
                "NaN values.\nGive an earlier checkpoint, or train it again with trainer.precision=32"
            )


def _embedding_rows(opened: PreTrainedModel) -> int:
    """The number of the model's token embeddings; 0 if it has no table of them."""
    try:
        table = getattr(opened.get_input_embeddings(), "weight", None)
    except (NotImplementedError, AttributeError):
        return 0
    return 0 if table is None or table.dim() != 2 else len(table)


def _first(names: list[str]) -> str:
    return names[0] + (f" and {len(names) - 1} more" if len(names) > 1 else "")
