"""`tune` trains a LoRA adapter on a frozen language model, quantised (QLoRA) or not, to answer prompts with label words.

LoRA: Hu et al. 2022; NF4 and double quantisation: Dettmers et al. 2023. The loss is that of the answer alone, so the
vocabulary's matrix is multiplied at the answer's positions only: over all positions it would be most of a small model's cost.
"""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytorch_lightning as pl
import torch
from safetensors.torch import load_file, save_file
from torch.utils.data import Dataset

from findistill.errors import UserError
from findistill.learning.batches import Tokens
from findistill.learning.classify import EncoderClassifier
from findistill.learning.fit import freeing, train_loop
from findistill.learning.objectives import Objective, cross_entropy
from findistill.learning.recipe import Recipe
from findistill.runs.files import replacing
from findistill.runs.language_model import Adapter, compute_dtype, load_base

if TYPE_CHECKING:
    from pytorch_lightning.loggers import Logger
    from transformers import PreTrainedModel

    from findistill.settings.schema import QLoRA, Trainer

CHECKPOINT = "resume.ckpt"


@dataclass(frozen=True)
class Prompts(Dataset[dict[str, torch.Tensor]]):
    """Token ids of n prompts and the label (n,) int64 of each; asked for whole batches, padded on the left.

    So the answers of a batch begin in one column. A batch holds input_ids and attention_mask, (rows, longest) int64, hard
    (rows,) int64 and targets (rows, n_labels) float32, one-hot.
    """

    tokens: Tokens
    hard: np.ndarray
    n_labels: int

    @classmethod
    def of(cls, prompts: Sequence[Sequence[int]], hard: np.ndarray, n_labels: int, pad_id: int) -> "Prompts":
        flat = np.concatenate([np.asarray(ids, dtype=np.int32) for ids in prompts]) if prompts else np.zeros(0, np.int32)
        offsets = np.cumsum([0, *map(len, prompts)], dtype=np.int64)
        return cls(Tokens(flat, offsets, pad_id), hard, n_labels)

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, indexes: list[int]) -> dict[str, torch.Tensor]:
        lengths = self.tokens.lengths[indexes]
        mask = np.arange(lengths.max()) >= lengths.max() - lengths[:, None]
        ids = np.full(mask.shape, self.tokens.pad_id, dtype=np.int64)
        ids[mask] = np.concatenate([self.tokens[row] for row in indexes])
        return {
            "input_ids": torch.from_numpy(ids),
            "attention_mask": torch.from_numpy(mask.astype(np.int64)),
            "hard": torch.from_numpy(self.hard[indexes]),
            "targets": torch.from_numpy(np.eye(self.n_labels, dtype=np.float32)[self.hard[indexes]]),
        }


@dataclass(frozen=True)
class Tuned:
    """What `tune` left in `folder/model` and what it took."""

    history: list[dict[str, float]]  # an epoch a row, as of `fit`
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


@freeing
def tune(
    model: str,
    settings: "QLoRA",
    trainer: "Trainer",
    train: Prompts,
    validation: Prompts,
    words: Sequence[Sequence[int]],
    end: int,
    *,
    dtype: str,
    seed: int,
    folder: Path,
    loggers: "list[Logger]",
) -> Tuned:
    """Train an adapter for `model` and leave `folder/model`: the adapter of the best validation epoch, never the base.

    What `trainer` leaves unset is as `settings` says. Epochs are measured by the labels' words: the one that the model
    finds most probable. The run is checkpointed every `settings.checkpoint_every` steps, and one that was killed goes on from
    there to the same weights; the same seed on the same CPU and number of threads gives the same weights.

    Args:
        words: token ids of each label's word, in label order, as they follow a prompt.
        end: the token that ends an answer.
        dtype: what the frozen model computes in, as `llm.dtype`.

    Raises:
        UserError: the model cannot be loaded, has no module of the names in `qlora.target_modules`, or the loss is not finite.
    """
    pl.seed_everything(seed, workers=True, verbose=False)
    trainer = replace(trainer, devices=1)  # the frozen model lies on one
    recipe = recipe_of(settings, trainer)
    base = load_base(model, dtype, settings.quantization)
    adapted = add_adapter(base, settings)
    if settings.gradient_checkpointing:
        base.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    base.train()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()

    module = WordClassifier(base, words, end, recipe)
    checkpoints = Checkpoints(folder / CHECKPOINT, settings.checkpoint_every)
    ran = train_loop(
        module, train, validation if len(validation) else None, recipe, trainer, seed=seed, folder=folder, loggers=loggers,
        callbacks=[checkpoints], resume=checkpoints.path if checkpoints.path.exists() else None,
    )  # fmt: skip

    module.restore(module.best_state)
    if ran.writes:
        adapted.save_pretrained(str(folder / "model"), save_embedding_layers=False)
        Adapter("", model, settings.quantization, str(compute_dtype(dtype)).removeprefix("torch.")).save(folder / "model")
        checkpoints.remove()
    learning = [value for value in module.parameters() if value.requires_grad]
    return Tuned(
        history=module.history,
        best_epoch=module.best_epoch,
        train_s=module.before["train_s"] + ran.train_s,
        cpu_s=module.before["cpu_s"] + ran.cpu_s,
        parameters=base.num_parameters(),
        trainable=sum(value.numel() for value in learning),
        megabytes=sum(value.numel() * value.element_size() for value in learning) / 1e6,
        examples_per_s=len(train) * len(module.history) / sum(epoch["train_seconds"] for epoch in module.history),
        device_peak_mb=torch.cuda.max_memory_allocated() / 1024**2 if torch.cuda.is_available() else None,
    )


def recipe_of(settings: "QLoRA", trainer: "Trainer") -> Recipe:
    """The numbers of a run: what `trainer` leaves unset is the `qlora` section's. The model's dtype is its precision."""
    return Recipe(
        epochs=trainer.max_epochs or settings.epochs,
        batch_size=trainer.batch_size or settings.batch_size,
        learning_rate=trainer.learning_rate or settings.learning_rate,
        max_length=0,  # prompts come cut
        weight_decay=trainer.weight_decay,
        warmup=trainer.warmup,
        monitor=trainer.monitor,
        precision="32-true",
        schedule=trainer.schedule,
    )


def add_adapter(base: "PreTrainedModel", settings: "QLoRA") -> Any:
    """Put a new adapter into `base`; gives peft's wrapper around it, which saves the adapter alone.

    Raises:
        UserError: the model's family has no known query and value projections, or no module is called as configured.
    """
    from peft import LoraConfig, TaskType, get_peft_model

    modules = settings.target_modules
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=modules if modules is None or isinstance(modules, str) else list(modules),
        task_type=TaskType.SEQ_2_SEQ_LM if base.config.is_encoder_decoder else TaskType.CAUSAL_LM,
    )
    try:
        return get_peft_model(base, config)
    except ValueError as error:
        raise UserError(
            f"qlora.target_modules={modules}: {str(error).splitlines()[0]}\n"
            "Name the model's linear layers to adapt, such as [q_proj,v_proj], or all-linear."
        ) from error


class WordClassifier(EncoderClassifier):
    """Trains the adapter in `model` to answer with the label's word and its end; validates by the words' probabilities."""

    SAFER = "llm.dtype=float32"

    def __init__(self, model: "PreTrainedModel", words: Sequence[Sequence[int]], end: int, recipe: Recipe) -> None:
        super().__init__(model, Objective(cross_entropy), recipe, len(words))
        self.strict_loading = False  # a checkpoint holds the adapter alone
        self.words, self.answers = padded(words), padded([[*word, end] for word in words])
        self.before = {"train_s": 0.0, "cpu_s": 0.0}  # what the parts of the run before this one took
        self._clocks = time.perf_counter(), time.process_time()
        self._rng: dict[str, torch.Tensor] = {}

    # -- learning ----------------------------------------------------------------------------------------------------

    def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """(batch, labels) log-probabilities of the labels' words."""
        ids, known = self.words
        ids = ids.to(self.device)
        if ids.shape[1] == 1:  # one pass tells the probability of every word
            return self._logits(batch, ids[:1].expand(len(batch["hard"]), 1))[:, 0].log_softmax(-1)[:, ids[:, 0]]
        rows = {name: batch[name].repeat_interleave(len(ids), 0) for name in ("input_ids", "attention_mask")}
        scores = self._scores(rows, ids.repeat(len(batch["hard"]), 1))
        return (scores.view(-1, *ids.shape) * known.to(self.device)).sum(-1)

    def training_loss(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Mean negative log-probability of the answers' tokens."""
        ids, known = (value.to(self.device)[batch["hard"]] for value in self.answers)
        return -(self._scores(batch, ids) * known).sum() / known.sum()

    def _scores(self, batch: dict[str, torch.Tensor], answers: torch.Tensor) -> torch.Tensor:
        """(batch, longest) log-probability of each token of the answers, behind the prompts."""
        return self._logits(batch, answers).log_softmax(-1).gather(-1, answers[..., None])[..., 0]

    def _logits(self, batch: dict[str, torch.Tensor], answers: torch.Tensor) -> torch.Tensor:
        """(batch, longest, vocabulary) float32: what the model says where each token of the answers should come."""
        ids, mask = batch["input_ids"], batch["attention_mask"]
        config = self.model.config
        if config.is_encoder_decoder:
            start = answers.new_full((len(answers), 1), config.decoder_start_token_id)
            said = torch.cat([start, answers[:, :-1]], 1)
            return self.model(input_ids=ids, attention_mask=mask, decoder_input_ids=said, use_cache=False).logits.float()
        said = answers[:, :-1]
        mask = torch.cat([mask, torch.ones_like(said)], 1)  # what stands behind an answer is seen by no earlier token
        out = self.model(
            input_ids=torch.cat([ids, said], 1),
            attention_mask=mask,
            position_ids=(mask.cumsum(1) - 1).clamp(min=0),
            use_cache=False,
            logits_to_keep=answers.shape[1],
        )
        return out.logits.float()

    # -- keeping -----------------------------------------------------------------------------------------------------

    def kept(self) -> dict[str, torch.Tensor]:
        """The adapter."""
        return {name: value.detach() for name, value in self.model.named_parameters() if value.requires_grad}

    def restore(self, adapter: dict[str, torch.Tensor]) -> None:
        with torch.no_grad():
            for name, value in self.kept().items():
                value.copy_(adapter[name])

    def on_train_batch_start(self, batch: Any, index: int) -> None:
        if self._rng:  # making the loaders drew from it since the checkpoint was read
            torch.set_rng_state(self._rng["cpu"].cpu())
            if "cuda" in self._rng:
                torch.cuda.set_rng_state(self._rng["cuda"].cpu())
            self._rng = {}

    def on_validation_epoch_start(self) -> None:
        self._trained = time.perf_counter() - self._started

    def _end_epoch(self, measured: dict[str, float]) -> None:
        trained = self._trained if measured else time.perf_counter() - self._started
        super()._end_epoch({name: float(value) for name, value in measured.items()})
        self.history[-1]["train_seconds"] = trained

    def state_dict(self, *_: Any, **__: Any) -> dict[str, torch.Tensor]:
        return self.kept()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds what Lightning does not know: the epochs so far, the generators' states, the clocks."""
        rng = {"cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            rng["cuda"] = torch.cuda.get_rng_state(self.device)
        wall, cpu = self._clocks
        checkpoint["run"] = {
            "history": self.history,
            "best": (float(self._best), self.best_epoch),  # its adapter lies beside the checkpoint
            "losses": self._losses,
            "epoch_s": time.perf_counter() - self._started,
            "took": {
                "train_s": self.before["train_s"] + time.perf_counter() - wall,
                "cpu_s": self.before["cpu_s"] + time.process_time() - cpu,
            },
            "rng": rng,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        run = checkpoint["run"]
        self.restore(checkpoint["state_dict"])
        checkpoint["state_dict"] = {}  # Lightning has nothing left to load: quantised layers take no part of a state
        self.history, self._losses = run["history"], run["losses"]
        self._best, self.best_epoch = run["best"]
        self._started = time.perf_counter() - run["epoch_s"]
        self.before, self._rng = run["took"], run["rng"]


def padded(rows: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids (rows, longest) int64, padded on the right by 0, and a mask of those that are none of it, float32."""
    longest = max(map(len, rows))
    ids = torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows])
    return ids, torch.tensor([[1.0] * len(row) + [0.0] * (longest - len(row)) for row in rows])


class Checkpoints(pl.Callback):
    """Writes `path` every so many optimizer steps within an epoch, whole or not at all; a resumed run skips what it had.

    The adapter of the best epoch so far lies beside it. Lightning counts on from the checkpoint but asks the sampler for the
    epoch's batches from the first.
    """

    def __init__(self, path: Path, every: int) -> None:
        self.path, self.every = path, every

    def best(self, module: EncoderClassifier) -> Path:
        return self.path.with_name(f"best-{module.best_epoch}.safetensors")

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        assert isinstance(module, EncoderClassifier)
        trainer.train_dataloader.sampler.skip = trainer.fit_loop.epoch_loop.batch_progress.current.ready
        if module.best_epoch:
            module.best_state = load_file(self.best(module))

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, index: int) -> None:
        assert isinstance(module, EncoderClassifier)
        done = index + 1
        stepped = done % trainer.accumulate_grad_batches == 0 and trainer.global_step % self.every == 0
        if not stepped or done == trainer.num_training_batches:  # after an epoch's last batch its validation is still to come
            return
        if module.best_epoch:
            with replacing(self.best(module)) as aside:
                save_file(module.best_state, aside)
        with replacing(self.path) as aside:
            trainer.save_checkpoint(aside, weights_only=False)
        for older in set(self.path.parent.glob("best-*.safetensors")) - {self.best(module)}:
            older.unlink()

    def remove(self) -> None:
        for path in (self.path, *self.path.parent.glob("best-*.safetensors")):
            path.unlink(missing_ok=True)
