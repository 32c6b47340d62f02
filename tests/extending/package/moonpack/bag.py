"""The smallest student there is: the mean of a text's word embeddings, and a linear head."""

from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

from findistill.models.architecture import NewEncoder
from findistill.models.config import Encoder
from findistill.models.weights import locate


class BagConfig(PreTrainedConfig):
    model_type = "moonpack_bag"
    vocab_size: int = 0
    hidden_size: int = 32


class BagForSequenceClassification(PreTrainedModel):
    config_class = BagConfig

    def __init__(self, config: BagConfig) -> None:
        super().__init__(config)
        self.embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None, **_: Any) -> SequenceClassifierOutput:
        """Logits (batch, num_labels) of token ids (batch, length); `attention_mask` is 0 for padding."""
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        real = mask.unsqueeze(-1).to(self.embeddings.weight.dtype)
        mean = (self.embeddings(input_ids) * real).sum(dim=1) / real.sum(dim=1).clamp(min=1)
        return SequenceClassifierOutput(logits=self.classifier(mean))


def bag(encoder: Encoder, labels: dict[str, Any]) -> NewEncoder:
    """Random weights, `student.shape.hidden` wide; the tokenizer is that of `student.model`."""
    tokenizer = AutoTokenizer.from_pretrained(locate(encoder.model))
    width = encoder.shape.hidden if encoder.shape else 32
    return NewEncoder(BagForSequenceClassification(BagConfig(vocab_size=len(tokenizer), hidden_size=width, **labels)), tokenizer)


# So that a saved folder is opened by AutoModelForSequenceClassification; findistill imports this module before it does.
AutoConfig.register(BagConfig.model_type, BagConfig, exist_ok=True)
AutoModelForSequenceClassification.register(BagConfig, BagForSequenceClassification, exist_ok=True)
