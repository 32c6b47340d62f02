"""Settings of training and distillation."""

import ast
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

from omegaconf import MISSING, DictConfig, OmegaConf

from findistill.config.compose import plain
from findistill.config.fields import setting
from findistill.errors import UserError, did_you_mean
from findistill.models.config import Encoder


@dataclass
class Teacher(Encoder):
    """An encoder to train on human labels."""

    # regression: the score of a text, where the data has scores (fiqa)
    objective: str = setting("classification", choices=("classification", "regression"))
    # balanced: a rare class weighs as much as a frequent one
    class_weights: str = setting("none", choices=("none", "balanced"))


@dataclass
class LinearTeacher(Teacher):
    """Logistic regression on words or on frozen sentence embeddings, fitted to human labels in seconds.

    It ignores an encoder's recipe: its only hyperparameter, the penalty, is chosen by cross-validation.
    """

    linear: ClassVar[bool] = True

    model: str = setting(MISSING, choices=("tfidf", "embeddings"))


@dataclass
class Distill:
    """What a student learns from: in this base class, votes."""

    from_teacher: ClassVar[bool] = False  # a teacher model instead of votes

    # of votes: cls, cross-entropy on the hard label; reg, mean squared error on the vote shares; a registered one
    # (`findistill.training.objectives`); or the name of a preset of a teacher model: logit, minilm, tinybert
    objective: str = MISSING
    # reg only; scalar: positive share minus negative share
    target: str = setting("distribution", choices=("distribution", "scalar"))
    # annotator: the LLM's votes; folder: those in `annotations`; human: the source's own annotators (phrasebank); teacher: none,
    # but a teacher model
    source: str = setting("annotator", choices=("annotator", "folder", "human", "teacher"))
    annotations: str = ""  # source=folder: where `annotations.parquet` is, an artifact's or one of edited votes
    min_agreement: int | None = setting(5, ge=1)  # None only if there are no votes
    gold: bool = False  # votes only: also train on human labels, as unanimous votes, and choose the epoch by them
    label_smoothing: float = setting(0.0, ge=0, lt=1, meaning="a share")  # cls only
    class_weights: str = setting("none", choices=("none", "balanced"))


LAYER_MAPS = ("uniform", "last", "skip")

LOSSES = "findistill.training.losses"
# The shipped terms: name -> target. Planning reads this table, since the modules themselves import torch.
INTERMEDIATE_TERMS = {  # on a model's internal activations, not on its predictions
    "hidden": f"{LOSSES}.hidden_states.HiddenStates",
    "attention": f"{LOSSES}.attention_scores.AttentionScores",
    "attention_probs": f"{LOSSES}.attention_probs.AttentionProbs",
    "query_key": f"{LOSSES}.query_key.QueryKey",
    "value_value": f"{LOSSES}.value_value.ValueValue",
}
PREDICTION_TERMS = {
    "kl": f"{LOSSES}.kl.KL",
    "soft_ce": f"{LOSSES}.soft_cross_entropy.SoftCrossEntropy",
    "logits_mse": f"{LOSSES}.logits_mse.LogitsMSE",
    "hard": f"{LOSSES}.hard_label.HardLabel",
}
SHIPPED_TERMS = INTERMEDIATE_TERMS | PREDICTION_TERMS


def no_terms() -> dict[str, Any]:
    """Every shipped term with weight 0, so that the command line can set one without a `+`."""
    return {name: {"_target_": target, "weight": 0.0} for name, target in SHIPPED_TERMS.items()}


def term_weight(term: Any) -> Any:
    """The weight of an entry of `distill.terms`: the entry itself if it is a number, 1 if a mapping does not set it."""
    return term.get("weight", 1.0) if isinstance(term, Mapping | DictConfig) else term


def term_nodes(terms: Any) -> dict[str, dict[str, Any]]:
    """`distill.terms` with each entry written out, `{_target_: ..., weight: 1.0}`; a number is the weight of a shipped term.

    Terms with weight 0 are left out. Shipped ones come first, in the order of the table, then others by name, so that the
    sum does not depend on the order in a file.

    Raises:
        UserError: a number or an empty entry for a name that is not a shipped term.
    """
    nodes = {}
    order = {name: place for place, name in enumerate(SHIPPED_TERMS)}
    for name, term in sorted(plain(terms).items(), key=lambda item: (order.get(item[0], len(order)), item[0])):
        node = dict(term) if isinstance(term, Mapping) else {"weight": term}
        node.setdefault("weight", 1.0)
        if "_target_" not in node:
            if name not in SHIPPED_TERMS:
                raise UserError(
                    f"distill.terms.{name}={term}: no such term{did_you_mean(name, known=list(SHIPPED_TERMS))}"
                    f"\nA term of your own needs its class: '+distill.terms.{name}={{_target_: package.module.Class, weight: 1}}'"
                )
            node["_target_"] = SHIPPED_TERMS[name]
        if node["weight"] != 0:
            nodes[name] = node
    return nodes


@dataclass
class Intermediate:
    """A stage before that of predictions, with only the intermediate terms (hidden states, attention, relations)."""

    epochs: int = setting(0, ge=0)  # 0: no such stage, all terms are trained together
    learning_rate: float | None = setting(None, gt=0)  # None: that of the run
    schedule: str = setting("constant", choices=("constant", "linear"))  # linear: warm-up, then decay


# Faults of TinyFinBERT's released code that a student can be trained with, all (`distill.recipe=faithful`) or one.
FAULTS = {
    "schedule": "the prediction stage's learning rate is 0 after steps / batch size steps",
    "selection": "the best student is selected on the test rows, evaluated every 50 steps",
    "projection": "the projection between the widths is the teacher's, random and never trained",
    "attention": "attention is compared after the softmax",
    "mean": "soft cross-entropy is averaged over the classes too",
}


def faults(recipe: str) -> frozenset[str]:
    """The faults that `distill.recipe` asks for: none (fixed), all (faithful) or the one it names."""
    return frozenset({"fixed": (), "faithful": tuple(FAULTS)}.get(recipe, (recipe,)))


def asks_teacher(distill: Any) -> bool:
    """Whether a student needs its teacher model at all: for a term other than the gold label, or a published fault."""
    targets = {node["_target_"] for node in term_nodes(distill.terms).values()}
    return bool(targets - {SHIPPED_TERMS["hard"]}) or bool(faults(distill.recipe))


@dataclass
class TeacherDistill(Distill):
    """Distillation from a teacher model instead of votes."""

    from_teacher: ClassVar[bool] = True

    source: str = setting("teacher", choices=("annotator", "folder", "human", "teacher"))
    min_agreement: int | None = setting(None, ge=1)
    teacher: str = ""  # a run folder, model folder or hub id; empty: the `teacher` section, trained first on this `data`
    teachers: int = setting(1, ge=1)  # trained on the labels with seeds 0, 1, ...: a student learns the mean of their logits
    # logistic regressions on the same labels (as by teacher=NAME, in seconds), whose logits are in that mean, too
    linear_teachers: list[str] = setting([], choices=("tfidf", "embeddings"))
    # label of `teacher` -> label of the data, or the latter in the order of its outputs. Not a dict: Hydra would require a `+`
    label_map: Any = None
    # a data set whose texts, labels dropped, are distilled on too: 'headlines limit=20000'
    unlabelled: Any = setting("", names="data")
    # name -> {_target_, weight, further settings}, or the weight of a shipped term; 0: left out. `findistill.training.losses`
    terms: dict[str, Any] = field(default_factory=no_terms)
    temperature: float = setting(1.0, gt=0)
    layers: Any = "uniform"  # student to teacher: uniform, last, skip, or the teacher layer of each student layer, [2,4,6]
    relation_layer: int | None = setting(None, ge=1)  # the teacher layer that the student's last is compared with; None: the last
    relation_heads: int | None = setting(None, ge=1)  # None: the most that divides the teacher's heads and the student's width
    intermediate: Intermediate = field(default_factory=Intermediate)
    # faithful: with all of FAULTS, or with the one named
    recipe: str = setting("fixed", choices=("fixed", "faithful", *FAULTS))
    # needed: the outputs these terms compare; all: every layer's, in one pass, before a sweep over terms and layer maps
    cache: str = setting("needed", choices=("needed", "all"), runtime_only=True)
    cache_gb: float = setting(8.0, gt=0, runtime_only=True)  # most disk space for one teacher's outputs on one set of texts
    cache_dtype: str = setting("float16", choices=("float16", "float32"))

    @staticmethod
    def complete(section: Any) -> None:
        """Expand the short forms in a section; `findistill.config.expand` calls it."""
        section.terms = term_nodes(section.terms)


@dataclass
class QLoRA:
    """Tuning of `llm` on human labels: its weights stay frozen and quantised, a low-rank adapter is trained.

    Prompts are those of `prompt` without demonstrations, truncated by `prompt.max_text_tokens` and `llm.max_prompt_tokens`.
    """

    # of the frozen weights: nf4 (4 bits, QLoRA), int8, none (plain LoRA)
    quantization: str = setting("nf4", choices=("nf4", "int8", "none"))
    rank: int = setting(16, ge=1)
    alpha: int = setting(32, ge=1)  # the adapter's output is scaled by alpha / rank
    dropout: float = setting(0.05, ge=0, lt=1, meaning="a share")  # of the adapter's input
    # None: the family's query and value projections; all-linear: every linear layer except the vocabulary's; or names, [q,v]
    target_modules: Any = None
    gradient_checkpointing: bool = False  # activations are recomputed in the backward pass: less memory, more time
    epochs: int = setting(3, ge=1)
    # A few texts are repeated within an epoch, so that training has at least this many steps; None: no repeats
    min_steps: int | None = setting(None, ge=1)
    batch_size: int = setting(16, ge=1)
    learning_rate: float = setting(5e-4, gt=0)
    checkpoint_every: int = setting(50, ge=1, runtime_only=True)  # optimizer steps between the checkpoints of a run
    merge: bool = False  # also save the full model with the adapter merged in, in `merged`


@dataclass
class Trainer:
    """Settings of Lightning and of the optimiser; None means the value that suits the model (see `Encoder`).

    Any further key (`trainer.limit_train_batches=2`, with or without a `+`) is passed to `lightning.Trainer`.
    """

    further_keys: ClassVar[bool] = True  # checked by `findistill.training.rules`

    accelerator: str = setting("auto", choices=("auto", "cpu", "gpu"))
    # A number, -1 for all, or a list of GPUs, [0,2]. auto: one, and with trainer=ddp or fsdp all GPUs
    devices: Any = "auto"
    # ddp: one process per device, which share each batch; fsdp: they also shard the model's weights. auto: ddp if several
    # devices are requested
    strategy: str = setting("auto", choices=("auto", "ddp", "fsdp"))
    max_epochs: int | None = setting(None, ge=1)
    batch_size: int | None = setting(None, ge=1)
    learning_rate: float | None = setting(None, gt=0)
    max_length: int | None = setting(None, ge=8)
    # auto: bf16 only on processors where it is faster
    precision: str = setting("auto", choices=("auto", "32", "bf16", "16"))
    weight_decay: float = setting(0.01, ge=0)
    warmup: float = setting(0.1, ge=0, le=1, meaning="a share of the steps")
    # Nodes with a `_target_` and `_partial_: true`: called with the parameter groups or the optimizer. The scheduler's
    # numbers of steps (num_training_steps, total_steps, T_max; num_warmup_steps) are filled in. None: `schedule` below
    optimizer: dict[str, Any] = field(default_factory=lambda: {"_target_": "torch.optim.AdamW", "_partial_": True})
    scheduler: dict[str, Any] | None = None
    # after warm-up: linear, to 0; slanted, to 1/32 of the rate; constant
    schedule: str = setting("linear", choices=("linear", "slanted", "constant"))
    # each layer's learning rate as a share of that of the layer above; 1: all the same (FinBERT: 0.8333)
    layer_decay: float = setting(1.0, gt=0, le=1, meaning="a share")
    # gradual: the head and top layer first, the others from the top; none: all from the start
    unfreeze: str = setting("none", choices=("none", "gradual"))
    gradient_clip_val: float | None = setting(1.0, gt=0)
    accumulate_grad_batches: int = setting(1, ge=1)
    monitor: str = setting("val/macro_f1", choices=("val/macro_f1", "val/accuracy", "val/loss"))
    # Optimizer steps between checkpoints to resume a killed run from; None: 500, or `qlora.checkpoint_every` for an adapter
    checkpoint_every: int | None = setting(None, ge=1, runtime_only=True)
    # GB that a model and its batch may take; None: what the device has free
    max_memory: float | None = setting(None, gt=0, runtime_only=True)


# Arguments of Lightning's Trainer that other settings determine.
OTHERWISE = {
    "callbacks": "choose callbacks=NAME, or add +callbacks.NAME",
    "logger": "choose logger=NAME",
    "default_root_dir": "output goes to the run folder",
    "enable_checkpointing": "set trainer.checkpoint_every",
    "use_distributed_sampler": "batches are already grouped by length and distributed to the devices",
    "num_nodes": "training runs on the devices of one machine: trainer=ddp",
}


def lightning_extras(trainer: Any) -> dict[str, Any]:
    """The keys of a `trainer` section that are not ours, but arguments of `lightning.Trainer`."""
    own = {field.name for field in fields(Trainer)}
    if OmegaConf.is_config(trainer):
        return {str(name): trainer[name] for name in trainer if name not in own}
    return {name: value for name, value in vars(trainer).items() if name not in own}


@cache
def lightning_arguments() -> tuple[str, ...]:
    """The arguments of `lightning.Trainer`, read from its source: importing it would load torch before a typo is found."""
    package = find_spec("pytorch_lightning")
    assert package and package.origin
    source = (Path(package.origin).parent / "trainer" / "trainer.py").read_text(encoding="utf-8")
    [trainer] = [node for node in ast.parse(source).body if isinstance(node, ast.ClassDef) and node.name == "Trainer"]
    [init] = [node for node in trainer.body if isinstance(node, ast.FunctionDef) and node.name == "__init__"]
    return tuple(argument.arg for argument in init.args.kwonlyargs)
