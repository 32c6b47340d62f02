"""Charformer (Tay et al. 2022): gradient-based tokenisation of bytes to soft subwords (GBST), then a small BERT encoder.

Importing this module registers the model with transformers' Auto classes, so that
`AutoModelForSequenceClassification.from_pretrained` loads a saved folder without remote code. Plain transformers cannot.
"""

from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from torch import nn
from torch.nn import functional
from transformers import AutoConfig, AutoModelForSequenceClassification, BertConfig, PreTrainedTokenizerFast
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.models.bert.modeling_bert import BertModel, BertPreTrainedModel

from findistill.models.architecture import NewEncoder
from findistill.models.config import CharformerEncoder

KERNEL = 5  # width, in bytes, of the convolution before the blocks


class CharformerConfig(BertConfig):
    """BERT's configuration, with `max_position_embeddings` counted in bytes, and the three settings of GBST."""

    model_type = "findistill_charformer"
    blocks: int = 4
    downsample: int = 2
    calibrate: bool = False


class SoftSubwords(nn.Module):
    """GBST, section 2.1 of the paper: each position mixes the means of the blocks of 1 to `blocks` bytes that contain it.

    A convolution first mixes every byte with its neighbours, so that a block's mean reflects the order within it. It is
    depthwise, one filter per channel: the paper's own code mixes channels there too, with `width` times the weights. The
    mixture's weights are a softmax over block sizes of one linear score; with `calibrate` they are averaged over positions with
    similar weights (2.1.4). The output is the mean of every `downsample` neighbours.

    Padding never counts: not in the convolution, in a block's mean, in the calibration or in the output means.
    """

    def __init__(self, config: CharformerConfig) -> None:
        super().__init__()
        self.blocks, self.downsample, self.calibrate = config.blocks, config.downsample, config.calibrate
        width = config.hidden_size
        self.convolution = nn.Conv1d(width, width, KERNEL, padding=KERNEL // 2, groups=width)
        self.score = nn.Linear(width, 1)

    def forward(self, embedded: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(batch, bytes, width) and its mask (batch, bytes) to (batch, positions, width) and (batch, positions)."""
        real = mask.unsqueeze(-1).to(embedded.dtype)
        mixed = self.convolution((embedded * real).transpose(1, 2)).transpose(1, 2)
        sizes = [_means(mixed, real, size)[0] for size in range(1, self.blocks + 1)]
        length = embedded.shape[1]
        blocks = [means.repeat_interleave(size, dim=1)[:, :length] for size, means in enumerate(sizes, 1)]
        candidates = torch.stack(blocks, dim=2)  # (batch, bytes, blocks, width)
        weights = self.score(candidates).squeeze(-1).softmax(dim=-1)
        if self.calibrate:
            alike = weights @ weights.transpose(1, 2)
            weights = alike.masked_fill(mask[:, None, :] == 0, torch.finfo(alike.dtype).min).softmax(dim=-1) @ weights
        subwords = (weights.unsqueeze(-1) * candidates).sum(dim=2)
        pooled, counts = _means(subwords, real, self.downsample)
        return pooled, (counts.squeeze(-1) > 0).to(mask.dtype)


def _means(values: torch.Tensor, real: torch.Tensor, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Means over consecutive blocks of `size` positions, without padding, and the number of real positions in each; 0 if none.

    `values` (batch, length, width), `real` (batch, length, 1); both results have ceil(length / size) positions.
    """
    short = -values.shape[1] % size
    blocks = functional.pad(values * real, (0, 0, 0, short)).unflatten(1, (-1, size)).sum(dim=2)
    counts = functional.pad(real, (0, 0, 0, short)).unflatten(1, (-1, size)).sum(dim=2)
    return blocks / counts.clamp(min=1), counts


class CharformerForSequenceClassification(BertPreTrainedModel):
    """Byte embeddings, soft subwords, BERT layers, the mean over positions, a linear head."""

    config_class = CharformerConfig
    base_model_prefix = "bert"

    def __init__(self, config: CharformerConfig) -> None:
        super().__init__(config)
        self.num_labels = config.num_labels
        self.subwords = SoftSubwords(config)
        self.bert = BertModel(config, add_pooling_layer=False)  # its word embeddings are those of bytes
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None, **kwargs: Any
    ) -> SequenceClassifierOutput:
        """Logits (batch, num_labels) of byte ids (batch, bytes); `attention_mask` is 1 for bytes, 0 for padding."""
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        positions, positions_mask = self.subwords(self.bert.get_input_embeddings()(input_ids), mask)
        states = self.bert(inputs_embeds=positions, attention_mask=positions_mask, **kwargs)
        real = positions_mask.unsqueeze(-1).to(states.last_hidden_state.dtype)
        pooled = (states.last_hidden_state * real).sum(dim=1) / real.sum(dim=1)
        return SequenceClassifierOutput(
            logits=self.classifier(self.dropout(pooled)), hidden_states=states.hidden_states, attentions=states.attentions
        )


def byte_tokenizer(max_length: int) -> PreTrainedTokenizerFast:
    """[CLS] and the UTF-8 bytes of a text, one id each: [PAD] 0, [CLS] 1, byte b some id from 2 to 257.

    [CLS] is there so that an empty text has a position to average over.
    """
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())  # a printable stand-in for each of the 256 bytes
    vocabulary = {piece: number for number, piece in enumerate(["[PAD]", "[CLS]", *letters])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A", special_tokens=[("[CLS]", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", cls_token="[CLS]", model_max_length=max_length,
        model_input_names=["input_ids", "attention_mask"], clean_up_tokenization_spaces=False,
        split_special_tokens=True,  # [CLS] in a text is five bytes
    )  # fmt: skip


def new(encoder: CharformerEncoder, labels: dict[str, Any]) -> NewEncoder:
    """A random model of the configured size, and its tokenizer. `labels` are settings of the model's configuration."""
    shape = encoder.shape
    assert shape is not None  # the configuration of a charformer has one
    tokenizer = byte_tokenizer(encoder.max_length)
    config = CharformerConfig(
        vocab_size=len(tokenizer), hidden_size=shape.hidden, num_hidden_layers=shape.layers, num_attention_heads=shape.heads,
        intermediate_size=shape.intermediate, max_position_embeddings=max(512, encoder.max_length), type_vocab_size=1,
        blocks=encoder.blocks, downsample=encoder.downsample, calibrate=encoder.calibrate, **labels,
    )  # fmt: skip
    return NewEncoder(CharformerForSequenceClassification(config), tokenizer)


AutoConfig.register(CharformerConfig.model_type, CharformerConfig, exist_ok=True)
AutoModelForSequenceClassification.register(CharformerConfig, CharformerForSequenceClassification, exist_ok=True)
