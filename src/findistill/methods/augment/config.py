"""Settings of augmentation."""

from dataclasses import dataclass, field

from omegaconf import MISSING

from findistill.config.fields import setting

WRITTEN = ("generate", "rephrase", "vary", "similar")  # methods that ask an LLM
METHODS = (*WRITTEN, "words")


@dataclass
class PerText:
    """New texts to request per source text, by method."""

    generate: int = setting(1, ge=0)  # new labelled texts aimed at hard cases; for texts that the teacher gets wrong
    rephrase: int = setting(3, ge=0)  # paraphrases, label kept; for texts that the teacher gets wrong
    vary: int = setting(5, ge=0)  # other texts of the same sentiment; for every labelled text
    similar: int = setting(30, ge=0)  # like the source, without a label; for texts that the teacher gets wrong
    words: int = setting(4, ge=0)  # copies with words replaced, label kept, no LLM; for every labelled text


@dataclass
class Augment:
    """New training texts from the labelled ones, see `findistill.methods.augment.stage`."""

    name: str = MISSING
    methods: list[str] = setting([], choices=METHODS, distinct=True)
    per_text: PerText = field(default_factory=PerText)
    limit: int | None = setting(None, ge=1)  # maximum source texts per method, sampled with `seed`
    seed: int = setting(0, ge=0)  # of source texts, LLM samples and folds
    use: bool = False  # stage=teacher, stage=student: train on the new texts too
    # Whose errors to use: run folder, model folder or hub id; empty: the `teacher` section, cross-validated on the labelled rows
    teacher: str = ""
    folds: int = setting(3, ge=2)
    temperature: float = setting(0.7, ge=0)  # of the LLM that writes the texts
    min_words: int = setting(4, ge=1)  # shorter and longer texts are dropped
    max_words: int = 60
    # 0 to 100: texts at least this similar to a training text or to one another are dropped
    similarity: float = setting(90.0, gt=0, le=100, meaning="an edit similarity")
    # who checks the requested labels: teacher, llm (votes as in stage=annotate), none
    relabel: str = setting("teacher", choices=("teacher", "llm", "none"))
    rounds: int = setting(2, ge=1)  # rounds of relabelling, which must all return the requested label
    masked_lm: str | None = None  # words: a hub id or folder; None: only the embedded MiniLM's word vectors
    # words: that a word is replaced
    replace: float = setting(0.4, gt=0, le=1, meaning="a probability")
    candidates: int = setting(15, ge=1)  # words: number of candidates for each replacement
