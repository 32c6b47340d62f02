"""`tune` trains a LoRA adapter on a frozen language model, quantised (QLoRA) or not, to answer prompts: with a label's word
(`WordClassifier`), or with a different text for each prompt (`AnswerWriter`).

LoRA: Hu et al. 2022; NF4 and double quantisation: Dettmers et al. 2023. The loss is on the answer only, so the vocabulary
matrix is multiplied only at the answer's positions: over all positions it would be most of a small model's cost.
"""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import asdict, dataclass, replace
from itertools import chain
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from peft import LoraConfig, TaskType, get_peft_model
from torch.nn.modules.module import _IncompatibleKeys
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel

from findistill.core import hardware
from findistill.errors import UserError
from findistill.models.batches import Rows
from findistill.models.causal_lm import Adapter, compute_dtype, load_base
from findistill.models.tokens import Tokens
from findistill.training import checkpoints
from findistill.training.classifier import EncoderClassifier
from findistill.training.config import QLoRA
from findistill.training.loop import Session, Training, freeing
from findistill.training.measured import MeasuredModule
from findistill.training.objectives import CrossEntropy
from findistill.training.processes import count_of
from findistill.training.recipe import Recipe


class Prompts(Rows):
    """Prompts and their labels, one-hot in `targets`; padded on the left, so that all answers of a batch start in one column."""

    pad_left = True

    @classmethod
    def of(cls, prompts: Sequence[Sequence[int]], hard: np.ndarray, n_labels: int, pad_id: int) -> "Prompts":
        """From the token ids of n prompts and the label (n,) int64 of each."""
        return cls(_tokens(prompts, pad_id), np.eye(n_labels, dtype=np.float32)[hard], hard)

    @classmethod
    def answered(cls, prompts: Sequence[Sequence[int]], answers: np.ndarray, pad_id: int) -> "Prompts":
        """From the token ids of n prompts and the index (n,) int64 of the answer to each; there are no labels."""
        return cls(_tokens(prompts, pad_id), np.empty((len(prompts), 0), np.float32), answers)


def _tokens(prompts: Sequence[Sequence[int]], pad_id: int) -> Tokens:
    flat = np.fromiter(chain.from_iterable(prompts), np.int32)
    return Tokens(flat, np.cumsum([0, *map(len, prompts)], dtype=np.int64), pad_id)


@dataclass(frozen=True)
class Tuned:
    """What `tune` saved in `folder/model`, and its cost."""

    history: list[dict[str, float]]  # one row per epoch, as of `fit`
    best_epoch: int  # counted from 1
    train_s: float  # wall time of the training loop, validation included; of all its parts, if it was resumed
    cpu_s: float
    parameters: int  # of base and adapter
    trainable: int
    megabytes: float  # of the adapter
    examples_per_s: float  # while training
    device_peak_mb: float | None  # CUDA only

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@freeing()
def tune(
    model: str, settings: QLoRA, train: Prompts, validation: Prompts, answering: "Callable[..., AnswerModule]", session: Session,
    *, dtype: str,
) -> Tuned:  # fmt: skip
    """Train an adapter for `model`, and save that of the best validation epoch, without the base, in the session's `model`.

    What `trainer` leaves unset is taken from `settings`. The run is checkpointed every `checkpoint_every` steps, and a killed
    run resumes from there to the same weights; the same seed on the same CPU and number of threads gives the same weights.

    Args:
        answering: `partial(WordClassifier, words=..., end=...)` or `partial(AnswerWriter, answers=...)`, called with `model` and
            `recipe`.
        dtype: what the frozen model computes in, as `llm.dtype`.

    Raises:
        UserError: the model cannot be loaded or has no module named in `qlora.target_modules`, or the loss is not finite.
    """
    pl.seed_everything(session.seed, workers=True, verbose=False)
    trainer = copy(session.trainer)
    trainer.checkpoint_every = trainer.checkpoint_every or settings.checkpoint_every
    recipe = Recipe.of(settings, trainer, max_length=0, precision="32-true", layer_decay=1.0, unfreeze="none")
    recipe, rows = recipe.over(train, trainer.accumulate_grad_batches)
    module, adapted = Tuning(model, dtype, settings, answering, recipe, trainer.devices).begin(
        "cpu" if count_of(trainer) > 1 else None  # the training processes have their own on the GPUs
    )
    base, folder = module.model, session.folder
    hardware.reset_device_peak()
    validation_rows = validation if len(validation) else None
    times = Training(module, rows, validation_rows, recipe, replace(session, trainer=trainer)).run()
    adapted.save_pretrained(str(folder / "model"), save_embedding_layers=False)
    Adapter("", model, settings.quantization, str(compute_dtype(dtype)).removeprefix("torch.")).save(folder / "model")
    checkpoints.remove(folder)
    learning = [value for value in module.parameters() if value.requires_grad]
    training_s = sum(epoch["train_seconds"] for epoch in module.history)
    return Tuned(
        module.history, module.best_epoch, **times, parameters=base.num_parameters(),
        trainable=sum(value.numel() for value in learning),
        megabytes=sum(value.numel() * value.element_size() for value in learning) / 1e6,
        examples_per_s=len(rows) * len(module.history) / training_s,
        device_peak_mb=hardware.device_peak_mb().get("memory/device_peak_mb"),
    )  # fmt: skip


@dataclass(frozen=True)
class Tuning:
    """What a process needs to start tuning: each loads the frozen weights itself, and only adapters are passed between them."""

    model: str
    dtype: str
    settings: QLoRA
    answering: "Callable[..., AnswerModule]"
    recipe: Recipe
    devices: Any  # `trainer.devices`

    def begin(self, device: str | None = None) -> tuple["AnswerModule", Any]:
        """The module to train, and peft's wrapper around its model."""
        base = load_base(self.model, self.dtype, self.settings.quantization, device)
        adapted = add_adapter(base, self.settings)
        if self.settings.gradient_checkpointing:
            base.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        base.train()
        module = self.answering(model=base, recipe=self.recipe)
        module.tuning = self
        return module, adapted

    def begin_in_process(self, adapter: dict[str, torch.Tensor]) -> "AnswerModule":
        """The module, recreated in one of several processes on the device of its rank."""
        if torch.cuda.is_available():
            rank = int(os.environ["LOCAL_RANK"])
            torch.cuda.set_device(rank if isinstance(self.devices, int | str) else list(self.devices)[rank])
        module, _ = self.begin()
        module.load_state_dict(adapter)
        return module


def add_adapter(base: PreTrainedModel, settings: QLoRA) -> Any:
    """Add a new adapter to `base`; return peft's wrapper around it, which saves only the adapter.

    Raises:
        UserError: the model's family has no known query and value projections, or no module has a configured name.
    """
    modules = settings.target_modules
    names = modules if modules is None or isinstance(modules, str) else list(modules)
    task = TaskType.SEQ_2_SEQ_LM if base.config.is_encoder_decoder else TaskType.CAUSAL_LM
    config = LoraConfig(
        r=settings.rank, lora_alpha=settings.alpha, lora_dropout=settings.dropout, target_modules=names, task_type=task
    )
    try:
        return get_peft_model(base, config)
    except ValueError as error:
        raise UserError(
            f"qlora.target_modules={modules}: {str(error).splitlines()[0]}\n"
            "Name the model's linear layers to adapt, such as [q_proj,v_proj], or all-linear."
        ) from error


class AnswerModule(MeasuredModule):
    """Trains the adapter in `model` by the likelihood of answers: `hard` of a prompt is the index of its answer in `answers`."""

    SAFER = "llm.dtype=float32"
    tuning: Tuning | None = None
    strict_loading = False  # a checkpoint holds only the adapter
    answers: tuple[torch.Tensor, torch.Tensor]  # from `padded`

    # -- training ----------------------------------------------------------------------------------------------------

    def training_loss(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Mean negative log-probability of the answers' tokens."""
        ids, mask = self._answers(batch)
        return -(self._scores(batch, ids) * mask).sum() / mask.sum()

    def _answers(self, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids of the answers of a batch, and their mask, (batch, longest of them) each."""
        ids, mask = (value.to(self.device)[batch["hard"]] for value in self.answers)
        longest = int(mask.sum(-1).max())
        return ids[:, :longest], mask[:, :longest]

    def _scores(self, batch: dict[str, torch.Tensor], answers: torch.Tensor) -> torch.Tensor:
        """(batch, longest) log-probability of each token of the answers, after the prompts."""
        return log_likelihood(self._logits(batch, answers), answers)

    def _logits(self, batch: dict[str, torch.Tensor], answers: torch.Tensor) -> torch.Tensor:
        """(batch, longest, vocabulary) float32: the model's predictions of each token of the answers."""
        ids, mask = batch["input_ids"], batch["attention_mask"]
        shifted, config = answers[:, :-1], self.model.config
        if config.is_encoder_decoder:
            start = answers.new_full((len(answers), 1), config.decoder_start_token_id)
            inputs: dict[str, Any] = {"input_ids": ids, "decoder_input_ids": torch.cat([start, shifted], 1)}
        else:
            mask = torch.cat([mask, torch.ones_like(shifted)], 1)  # what follows an answer is invisible to earlier tokens
            inputs = {"input_ids": torch.cat([ids, shifted], 1), "position_ids": (mask.cumsum(1) - 1).clamp(min=0)}
            inputs["logits_to_keep"] = answers.shape[1]
        return self.model(**inputs, attention_mask=mask, use_cache=False).logits.float()

    def __reduce__(self) -> Any:
        """Pickle for another process, which loads the frozen weights itself: quantised ones cannot be copied by value."""
        if self.tuning is None:
            return super().__reduce__()
        return self.tuning.begin_in_process, ({name: value.cpu() for name, value in self.state_dict().items()},)

    # -- checkpointing -----------------------------------------------------------------------------------------------

    def state_dict(self, *_: Any, **__: Any) -> dict[str, torch.Tensor]:
        """Only the adapter."""
        return {name: value.detach() for name, value in self.model.named_parameters() if value.requires_grad}

    def load_state_dict(self, state_dict: Mapping[str, torch.Tensor], *_: Any, **__: Any) -> Any:
        """Load what `state_dict` returned; quantised layers do not accept a partial state."""
        with torch.no_grad():
            for name, value in self.state_dict().items():
                value.copy_(state_dict[name])
        return _IncompatibleKeys([], [])

    def on_validation_epoch_start(self) -> None:
        self._trained = time.perf_counter() - self._started

    def _end_epoch(self, measured: dict[str, float]) -> None:
        trained = self._trained if measured else time.perf_counter() - self._started
        super()._end_epoch({name: float(value) for name, value in measured.items()})
        self.history[-1]["train_seconds"] = trained


class WordClassifier(AnswerModule, EncoderClassifier):
    """Trains to answer with the label's word and its end; validates by the words' probabilities.

    Args:
        words: token ids of each label's word, in label order, as they follow a prompt.
        end: the token that ends an answer.
    """

    def __init__(
        self, model: PreTrainedModel, words: Sequence[Sequence[int]], end: int, recipe: Recipe | Mapping[str, Any]
    ) -> None:
        super().__init__(model, CrossEntropy(), recipe, len(words))
        self.save_hyperparameters({"words": [list(word) for word in words], "end": end}, logger=False)
        self.words, self.answers = padded(words), padded([[*word, end] for word in words])

    def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """(batch, labels) log-probabilities of the labels' words."""
        ids, mask = self.words
        ids = ids.to(self.device)
        if ids.shape[1] == 1:  # one pass gives the probability of every word
            return self._logits(batch, ids[:1].expand(len(batch["hard"]), 1))[:, 0].log_softmax(-1)[:, ids[:, 0]]
        rows = {name: batch[name].repeat_interleave(len(ids), 0) for name in ("input_ids", "attention_mask")}
        scores = self._scores(rows, ids.repeat(len(batch["hard"]), 1))
        return (scores.view(-1, *ids.shape) * mask.to(self.device)).sum(-1)


class AnswerWriter(AnswerModule):
    """Trains to write the answer of each prompt; validates by the likelihood of its tokens.

    `val/accuracy` is the share of answers in which each token is the most likely after those before it: what the model
    would generate at temperature 0.

    Args:
        answers: token ids of the different answers, each with its end.
    """

    def __init__(self, model: PreTrainedModel, answers: Sequence[Sequence[int]], recipe: Recipe | Mapping[str, Any]) -> None:
        super().__init__(model, recipe)
        self.save_hyperparameters({"answers": [list(answer) for answer in answers]}, logger=False)
        self.answers = padded(answers)
        self._validated: list[torch.Tensor] = []

    def validation_step(self, batch: dict[str, torch.Tensor], index: int) -> None:
        ids, mask = self._answers(batch)
        logits = self._logits(batch, ids)
        losses = -(log_likelihood(logits, ids) * mask).sum(-1)
        right = ((logits.argmax(-1) == ids) | (mask == 0)).all(-1)
        self._validated.append(torch.stack([losses, mask.sum(-1), right.float()]))

    def on_validation_epoch_end(self) -> None:
        losses, tokens, right = torch.cat(self._validated, 1)
        self._validated.clear()
        if self.trainer.sanity_checking:
            return
        measured = {"val/loss": float(losses.sum() / tokens.sum()), "val/accuracy": float(right.mean())}
        self.log_dict(measured, batch_size=len(right))
        self._end_epoch(measured)


def log_likelihood(logits: torch.Tensor, answers: torch.Tensor) -> torch.Tensor:
    """(batch, longest) log-probability of each token of the answers, from logits (batch, longest, vocabulary)."""
    return logits.log_softmax(-1).gather(-1, answers[..., None])[..., 0]


def padded(rows: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids (rows, longest) int64, padded on the right with 0, and a float32 mask of those that are not padding."""
    ids = pad_sequence([torch.tensor(row) for row in rows], batch_first=True)
    return ids, pad_sequence([torch.ones(len(row)) for row in rows], batch_first=True)
