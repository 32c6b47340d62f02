"""A `tokenizer.json` with the part of transformers' tokenizer interface that `tokens`, `windows` and `special_tokens` need.

Tokenizers of transformers import torch: 150 MB and seconds in each process that predicts with an ONNX file.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from tokenizers import AddedToken, Tokenizer

from findistill.models.heads import LONGEST


class PortableTokenizer:
    """A tokenizer of the tokenizers library, called like one of transformers. A special token in a text is always text.

    Padding and truncation settings in the file are ignored: the caller sets the length. `longest` is where the file
    truncates, in tokens.
    """

    is_fast = True

    def __init__(self, tokenizer: Tokenizer) -> None:
        state = tokenizer.to_str()
        alone = Tokenizer.from_str(state)
        alone.encode_special_tokens = True  # not saved in tokenizer.json
        alone.no_padding()
        unknown, padding = unknown_token(json.loads(state)["model"]), (tokenizer.padding or {}).get("pad_token")
        self.backend_tokenizer = alone
        self.longest = int((tokenizer.truncation or {}).get("max_length", LONGEST))
        self.unk_token_id: int | None = alone.token_to_id(unknown) if unknown else None
        self.pad_token_id: int | None = alone.token_to_id(padding) if padding else None
        self.added_tokens_decoder: dict[int, AddedToken] = alone.get_added_tokens_decoder()
        special = {number for number, token in self.added_tokens_decoder.items() if token.special}
        self.all_special_ids = sorted(
            special.union(number for number in (self.unk_token_id, self.pad_token_id) if number is not None)
        )

    def __len__(self) -> int:
        return int(self.backend_tokenizer.get_vocab_size())

    def convert_ids_to_tokens(self, number: int) -> str | None:
        token: str | None = self.backend_tokenizer.id_to_token(number)
        return token

    def __call__(
        self, text: str | Sequence[str], *, truncation: bool = False, max_length: int = 0, add_special_tokens: bool = True,
        return_special_tokens_mask: bool = False, return_offsets_mapping: bool = False, **_: Any,
    ) -> dict[str, list[Any]]:  # fmt: skip
        """`input_ids` of a text, or of each of several, and what else is requested, like a transformers tokenizer."""
        if truncation:
            self.backend_tokenizer.enable_truncation(max_length)
        else:
            self.backend_tokenizer.no_truncation()
        single = isinstance(text, str)
        encode = self.backend_tokenizer.encode_batch if return_offsets_mapping else self.backend_tokenizer.encode_batch_fast
        rows = encode([text] if single else list(text), add_special_tokens=add_special_tokens)
        values: dict[str, list[Any]] = {"input_ids": [row.ids for row in rows]}
        if return_special_tokens_mask:
            values["special_tokens_mask"] = [row.special_tokens_mask for row in rows]
        if return_offsets_mapping:
            values["offset_mapping"] = [row.offsets for row in rows]
        return {name: value[0] for name, value in values.items()} if single else values


def unknown_token(model: Mapping[str, Any]) -> str | None:
    """The unknown token of the `model` in a tokenizer.json; None if it has none, since it knows every byte."""
    number = model.get("unk_id")
    return model.get("unk_token") if number is None else str(model["vocab"][number][0])
