"""Settings of encoders."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

from omegaconf import MISSING

from findistill.config.fields import setting


@dataclass
class Shape:
    """The size of a BERT-shaped encoder."""

    layers: int = setting(MISSING, ge=1)
    hidden: int = setting(MISSING, ge=1)  # width of the hidden states
    heads: int = setting(MISSING, ge=1)
    intermediate: int = setting(MISSING, ge=1)  # width inside the feed-forward blocks


@dataclass
class Pretrain:
    """Masked-language-model pretraining on unlabelled texts of the domain, before training on labels."""

    # a data set by name, with settings: 'headlines limit=20000'; None: no pretraining
    source: Any = setting(None, names="data")
    limit: int | None = setting(None, ge=100)  # at most this many of its texts
    epochs: int = setting(1, ge=1)
    mask: float = setting(0.15, gt=0, lt=1, meaning="a share of the words")  # to be predicted
    learning_rate: float = setting(5e-5, gt=0)


@dataclass
class Encoder:
    """A small encoder to train: where its weights come from and the recipe that suits it.

    `_target_` creates an architecture that transformers lacks: a function of this section and of the labels' settings in the
    model's configuration that returns a `findistill.models.architecture.NewEncoder`. None: `model` is a transformers model.
    """

    word_pieces: ClassVar[bool] = True  # it has a vocabulary of them
    linear: ClassVar[bool] = False  # no encoder: logistic regression, see `findistill.models.linear`

    _target_: str | None = None
    name: str = MISSING
    model: str = MISSING  # embedded:minilm_l6, a folder, or a hub id
    # pretrained: the model's own weights; random: new ones of its shape or of `shape`; parent: `shape` cut from its weights
    init: str = setting("pretrained", choices=("pretrained", "random", "parent"))
    layers: list[int] | None = None  # keep these encoder layers of the model, counted from 1; None keeps all
    shape: Shape | None = None  # for init=random and init=parent
    trim_vocabulary: bool = False  # keep only the word pieces that the training texts use, and all single characters
    freeze_embeddings: bool = False  # the word embeddings keep their initial values; only `pretrain` changes them
    pretrain: Pretrain = field(default_factory=Pretrain)
    epochs: int = setting(5, ge=1)
    # A few texts are repeated within an epoch, so that training has at least this many steps; None: no repeats. Ignored if
    # trainer.max_epochs is set, and in distillation from a teacher's outputs
    min_steps: int | None = setting(None, ge=1)
    batch_size: int = setting(32, ge=1)
    learning_rate: float = setting(5e-5, gt=0)
    max_length: int = setting(64, ge=8)  # tokens, or bytes for a charformer


@dataclass
class CharformerEncoder(Encoder):
    """An encoder over bytes (Tay et al. 2022); it always starts from random weights."""

    word_pieces: ClassVar[bool] = False

    _target_: str | None = "findistill.models.charformer.new"
    blocks: int = setting(4, ge=1)  # candidate subwords are 1 to this many bytes long
    downsample: int = setting(2, ge=1)  # bytes that become one position of the encoder
    calibrate: bool = False  # let positions that look alike agree on their block lengths
