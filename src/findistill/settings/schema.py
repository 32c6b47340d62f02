"""What may be configured: one dataclass a group.

The YAML files under `conf/` start from these (`defaults: [base_..., _self_]`), so a misspelt key or a wrong type is an
error before anything runs. Nothing here imports more than omegaconf.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING


@dataclass
class Stage:
    """One verb of the pipeline."""

    name: str = MISSING


@dataclass
class Data:
    """A source of texts and how it is split. `_target_` is the reader in `findistill.data.sources`."""

    _target_: str = MISSING
    name: str = MISSING
    labels: list[str] = field(default_factory=lambda: ["negative", "neutral", "positive"])
    limit: int | None = None  # at most this many training rows, drawn with `seed`
    pool: int = 0  # training rows kept labelled as demonstrations and neighbours; the other labels count as hidden
    validation: float = 0.1  # share of the training rows
    test: float = 0.2  # share of all rows, where the source has no test rows of its own; 1: all are for testing
    seed: int = 0  # of splits and draws; apart from the training seed, so that seeds share annotations
    hub_id: str | None = None
    hub_revision: str | None = None


@dataclass
class PhrasebankData(Data):
    level: str = "50agree"  # 50agree, 66agree, 75agree, allagree
    split: str = "stratified"  # stratified, or finbert: the published 72/8/20 split by random_state 0


@dataclass
class FiqaData(Data):
    part: str = MISSING  # news or posts
    classes: int = 3  # 3, or 2: zero scores and texts on several targets dropped, as in the Reddit study
    threshold: float = 0.1  # three classes: |score| at or below it is neutral


@dataclass
class RedditData(Data):
    files: list[str] = field(default_factory=lambda: ["posts_2016_2019", "posts_2020", "posts_2021", "posts_2022_2025"])
    subreddits: list[str] = field(default_factory=list)  # empty: all
    min_characters: int = 40
    max_characters: int = 2000


@dataclass
class HeadlinesData(Data):
    files: list[str] = field(
        default_factory=lambda: [
            "benzinga_2009_2020",
            "stocknews_2019_2021",
            "fnspid_sample",
            "cnbc",
            "guardian",
            "reuters",
        ]
    )


@dataclass
class DemoData(Data):
    rows: int | None = None  # None: the hand-written corpus alone; a number: grown to it by the seeded generator


@dataclass
class FileData(Data):
    """One's own file, or a hub data set: the columns to read."""

    path: str | None = None
    text_column: str = "text"
    label_column: str | None = None  # None: the texts are unlabelled
    id_column: str | None = None
    date_column: str | None = None
    rationale_column: str | None = None  # what leads to the label, for demonstrations of chain of thought
    split_column: str | None = None
    on_leak: str = "refuse"  # a test text that stands in other rows too, by split_column: refuse, or drop the other rows
    # The file's names -> the LabelSet's, {0: negative, 1: positive}. Not typed as a dict: Hydra would want a `+` before it.
    label_map: Any = None
    encoding: str = "utf-8"


@dataclass
class Price:
    """What a model costs, in US dollars; None: not known (a model of one's own costs 0)."""

    per_million_in: float | None = None
    per_million_out: float | None = None
    as_of: str | None = None  # the day the list price was looked up


@dataclass
class LLM:
    """An annotator. `_target_` is its engine in `findistill.llm`."""

    _target_: str = MISSING
    name: str = MISSING
    model: str = MISSING
    price: Price = field(default_factory=Price)


@dataclass
class InProcessLLM(LLM):
    dtype: str = "auto"  # auto, float32, bfloat16
    batch_tokens: int = 4096  # prompt tokens in one forward pass, padding included
    max_prompt_tokens: int = 1536  # longer prompts drop whole demonstrations, then the text's end; counted and said
    chat: bool = True  # wrap the prompt in the model's chat template
    # A LoRA adapter: a run folder of stage=qlora, an adapter's folder or a hub id; tune: tuned first, on the labelled
    # data.pool, as `qlora` says; empty: none
    adapter: str = ""


@dataclass
class EndpointLLM(LLM):
    base_url: str | None = None
    api_key_env: str = "OPENAI_API_KEY"  # the name of the variable; the key itself is never configured
    timeout_s: float = 60.0  # of one call
    max_retries: int = 6  # of a call that failed in passing: 429, 5xx, a cut connection, half an answer
    give_up_s: float = 300.0  # stop when the server has given no answer to anything for so long
    max_tokens: int = 256
    structured: str = "auto"  # JSON by a schema: auto where the server honours it, always, never
    extra_body: Any = None  # further fields of every call, as the server's own documentation has them
    tokenizer: str = "embedded:smollm2"  # a folder or hub id to count tokens with before a run; servers keep their own


@dataclass
class Prompt:
    name: str = MISSING
    instruction: str = MISSING
    wording: str = "sentiment"  # how labels are named to the model: sentiment, market (bearish ..), movement (down ..)
    text_header: str = "Text:"
    answer_header: str = "Sentiment:"
    steps: list[str] = field(default_factory=list)  # headers of what the model writes before the label
    step_hints: list[str] = field(default_factory=list)  # what each step is to hold; "one sentence" where empty
    max_text_tokens: int = 96  # of each demonstration and of the text itself


@dataclass
class Shots:
    k: int = 4
    selection: str = "nearest"  # random, balanced, nearest
    seed: int = 0
    order: int | None = None  # a seed that permutes the chosen ones; None: as the selection puts them
    # none; given: only demonstrations that have a rationale, such as those of shots.source=demo; llm: where the prompt has
    # steps, the llm writes what leads to each demonstration's label
    rationales: str = "none"
    source: str | None = None  # the data set whose labelled rows they come from; None: the data's own pool


@dataclass
class Annotate:
    samples: int = 8
    temperature: float = 0.5
    limit: int | None = None
    # none; batch: subtract the mean label log-probability over the texts; contextual: subtract that of content-free texts;
    # pool: offsets and scale fitted on held-out pool rows; auto: pool where the llm gives label probabilities and the
    # pool is large enough, else none
    calibration: str = "auto"
    stop_at: int | None = None  # ask a text no further once so many answers agree; None: always all samples
    seed: int = 0
    members: list[str] = field(default_factory=list)  # several annotators, each as overrides: 'prompt=cot shots.k=6'
    combine: str = "majority"  # of the members: majority over all votes, or dawid_skene
    concurrency: int = 32  # calls in flight at most, endpoint engines
    retries: int = 2  # how often an answer that names no label is asked for again
    max_failed: float = 0.02  # share of answers that may stay failed after all retries
    max_cost_usd: float | None = None
    dry_run: bool = False  # say what it would ask and cost, and ask nothing
    show_prompt: bool = False  # print one filled prompt, and ask nothing


@dataclass
class Fewshot:
    """`stage=fewshot`. How it asks is set by `annotate`: one sample at temperature 0 unless told otherwise."""

    limit: int | None = None  # at most so many rows of each test set: a stratified sample drawn by data.seed; None: all
    # How the label is read. likelihood: from the log-probabilities of the label words; generation: from the text that the
    # llm writes, where an answer without a label counts as wrong; auto: likelihood in this process, generation at a server
    scoring: str = "auto"
    normalise: str = "mean"  # likelihood: a label word's log-probability is the mean or the sum over its tokens


# Settings of how and where, which change no result: they are part of no job's and no artifact's identity.
PACE: dict[str, tuple[str, ...]] = {
    "trainer": ("max_memory",),
    "evaluate": ("usd_per_hour",),
    "llm": ("price", "batch_tokens", "api_key_env", "timeout_s", "max_retries", "give_up_s", "tokenizer"),
    "annotate": ("concurrency", "max_failed", "max_cost_usd", "dry_run", "show_prompt"),
    "distill": ("cache", "cache_gb"),
    "qlora": ("checkpoint_every",),
}


def unpaced(sections: Mapping[str, Any]) -> dict[str, Any]:
    """Sections of a configuration, as plain values by their names, without `PACE`."""
    return {
        name: {key: value for key, value in section.items() if key not in PACE.get(name, ())}
        if isinstance(section, Mapping)
        else section
        for name, section in sections.items()
    }


@dataclass
class Shape:
    """The size of a BERT-shaped encoder."""

    layers: int = MISSING
    hidden: int = MISSING  # width of the hidden states
    heads: int = MISSING
    intermediate: int = MISSING  # width inside the feed-forward blocks


@dataclass
class Pretrain:
    """Masked-language pretraining on unlabelled texts of the domain, before the labels."""

    source: str | None = None  # a data set by name, with settings: 'headlines limit=20000'; None: no such step
    limit: int | None = None  # at most so many of its texts
    epochs: int = 1
    mask: float = 0.15  # share of the words to be guessed
    learning_rate: float = 5e-5


@dataclass
class Encoder:
    """A small encoder to train: where its weights come from and the recipe that suits it."""

    name: str = MISSING
    model: str = MISSING  # embedded:minilm_l6, a folder, or a hub id
    # pretrained: the model's own weights; random: new ones of its shape or of `shape`; parent: `shape` cut from its weights
    init: str = "pretrained"
    layers: list[int] | None = None  # keep these encoder layers of the model, counted from 1; None keeps all
    shape: Shape | None = None  # for init=random and init=parent
    trim_vocabulary: bool = False  # keep only the word pieces that the texts to learn from use, and all single characters
    freeze_embeddings: bool = False  # the word embeddings stay as they begin; only `pretrain` moves them
    pretrain: Pretrain = field(default_factory=Pretrain)
    epochs: int = 5
    batch_size: int = 32
    learning_rate: float = 5e-5
    max_length: int = 64  # tokens, or bytes for a charformer


@dataclass
class CharformerEncoder(Encoder):
    """An encoder over bytes (Tay et al. 2022); it always starts from random weights."""

    blocks: int = 4  # candidate subwords are 1 to so many bytes long
    downsample: int = 2  # bytes that become one position of the encoder
    calibrate: bool = False  # let positions that look alike agree on their block lengths


@dataclass
class Teacher(Encoder):
    """An encoder that learns from human labels."""

    objective: str = "classification"  # classification; regression: the score of a text, where the data has scores (fiqa)
    class_weights: str = "none"  # none; balanced: a rare class weighs as much as a frequent one


@dataclass
class PerText:
    """New texts asked for of each source text, by method."""

    generate: int = 1  # new labelled texts aimed at hard cases; of texts that the teacher gets wrong
    rephrase: int = 3  # the same in other words, label kept; of texts that the teacher gets wrong
    vary: int = 5  # other texts of the same sentiment; of every labelled text
    similar: int = 30  # like the source, without a label; of texts that the teacher gets wrong
    words: int = 4  # copies with words replaced, label kept, no LLM; of every labelled text


@dataclass
class Augment:
    """New training texts from the labelled ones. `findistill.stages.augment` says what becomes of them."""

    name: str = MISSING
    methods: list[str] = field(default_factory=list)  # generate, rephrase, vary, similar, words
    per_text: PerText = field(default_factory=PerText)
    limit: int | None = None  # source texts of each method at most, drawn with `seed`
    seed: int = 0  # of draws, of sampling and of the folds
    use: bool = False  # stage=teacher, stage=student: train on the new texts too
    # Whose errors: a run folder, model folder or hub id; empty: the `teacher` section, cross-validated on the labelled rows
    teacher: str = ""
    folds: int = 3
    temperature: float = 0.7  # of the LLM that writes
    min_words: int = 4  # shorter and longer texts are dropped
    max_words: int = 60
    similarity: float = 90.0  # edit similarity, 0 to 100: texts so close to a training text or to one another are dropped
    relabel: str = "teacher"  # who checks the labels asked for: teacher, llm (votes as stage=annotate), none
    rounds: int = 2  # relabellings that must all give the label asked for
    masked_lm: str | None = None  # words: a hub id or folder; None: the embedded MiniLM, by similar word vectors alone
    replace: float = 0.4  # words: the probability that a word is replaced
    candidates: int = 15  # words: how many a new word is chosen from


@dataclass
class Distill:
    # cls: cross-entropy on the hard label; reg: mean squared error on the vote shares; logit, minilm, tinybert: a teacher model
    objective: str = MISSING
    target: str = "distribution"  # reg only: distribution, or scalar: positive share minus negative share
    # annotator: the LLM's; human: the source's own annotators (phrasebank); teacher: none, a teacher model is learnt from
    votes: str = "annotator"
    min_agreement: int | None = 5  # None only where there are no votes
    label_smoothing: float = 0.0  # cls only
    class_weights: str = "none"  # none, balanced


@dataclass
class DistillTerms:
    """The weight of each term of the loss, 0: left out; `findistill.learning.terms` defines them."""

    kl: float = 0.0  # label distributions, softened by the temperature: T^2 x KL
    soft_ce: float = 0.0  # the same as TinyBERT has it: cross-entropy, no T^2
    logits_mse: float = 0.0
    hard: float = 0.0  # cross-entropy on the gold label, where a text has one
    hidden: float = 0.0  # hidden states, embeddings included
    attention: float = 0.0  # attention scores before the softmax
    attention_probs: float = 0.0  # attention probabilities
    query_key: float = 0.0  # MiniLM's relations, for any two widths and numbers of heads
    value_value: float = 0.0


@dataclass
class Intermediate:
    """A stage before the predictions are learnt, on the intermediate terms alone (hidden, attention, relations)."""

    epochs: int = 0  # 0: no such stage, all terms are learnt together
    learning_rate: float | None = None  # None: that of the run
    schedule: str = "constant"  # constant, or linear: warm-up, then decay


# Faults of TinyFinBERT's released code that a student can be trained with, all (`distill.recipe=faithful`) or one.
FAULTS = {
    "schedule": "the prediction stage's learning rate is 0 after steps / batch size steps",
    "selection": "the best student is picked on the test rows, looked at every 50 steps",
    "projection": "the map between the widths is the teacher's, random, and never trained",
    "attention": "attention is compared after the softmax",
    "mean": "soft cross-entropy is averaged over the classes too",
}


def faults(recipe: str) -> frozenset[str]:
    """The faults that `distill.recipe` asks for: none (fixed), all (faithful) or the one it names."""
    return frozenset({"fixed": (), "faithful": tuple(FAULTS)}.get(recipe, (recipe,)))


@dataclass
class TeacherDistill(Distill):
    """Distillation from a teacher model instead of votes."""

    votes: str = "teacher"
    min_agreement: int | None = None
    teacher: str = ""  # a run folder, model folder or hub id; empty: the `teacher` section, trained first on this `data`
    pool: str = ""  # a data set whose texts, labels dropped, are distilled on too: 'headlines limit=20000'
    terms: DistillTerms = field(default_factory=DistillTerms)
    temperature: float = 1.0
    layers: Any = "uniform"  # student to teacher: uniform, last, skip, or the teacher layer of each student layer, [2,4,6]
    relation_layer: int | None = None  # the teacher layer that the student's last is compared with; None: the last
    relation_heads: int | None = None  # None: the most that divides the teacher's heads and the student's width
    intermediate: Intermediate = field(default_factory=Intermediate)
    recipe: str = "fixed"  # fixed, faithful (all of FAULTS), or the name of one fault
    # needed: the outputs these terms compare; all: every layer's, in one pass, before a sweep over terms and layer maps
    cache: str = "needed"
    cache_gb: float = 8.0  # of disk at most for one teacher's outputs on one set of texts
    cache_dtype: str = "float16"  # float16, float32


@dataclass
class QLoRA:
    """Tuning of `llm` on human labels: its weights stay frozen, and quantised, a low-rank adapter learns.

    Prompts are those of `prompt` without demonstrations, cut as `prompt.max_text_tokens` and `llm.max_prompt_tokens` say.
    """

    quantization: str = "nf4"  # of the frozen weights: nf4 (4 bits, QLoRA), int8, none (plain LoRA)
    rank: int = 16
    alpha: int = 32  # the adapter's output counts alpha / rank
    dropout: float = 0.05  # of the adapter's input
    # None: the family's query and value projections; all-linear: every linear layer but the vocabulary's; or names, [q,v]
    target_modules: Any = None
    gradient_checkpointing: bool = False  # activations are computed again in the backward pass: less memory, more time
    epochs: int = 3
    batch_size: int = 16
    learning_rate: float = 5e-4
    checkpoint_every: int = 50  # optimizer steps after which a killed run can go on from there
    merge: bool = False  # leave the whole model with the adapter added in, too, in `merged`


@dataclass
class Trainer:
    """Lightning's settings and the optimiser's; None means the value that suits the model (see `Encoder`)."""

    accelerator: str = "auto"
    devices: Any = "auto"
    strategy: str = "auto"
    max_epochs: int | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    max_length: int | None = None
    precision: str = "auto"  # auto picks bf16 only where the processor gains; 32, bf16, 16
    weight_decay: float = 0.01
    warmup: float = 0.1  # share of the steps
    schedule: str = "linear"  # after warm-up: linear, to 0; slanted, to 1/32 of the rate; constant
    layer_decay: float = 1.0  # each layer learns at this share of the rate of the one above; 1: all the same
    unfreeze: str = "none"  # gradual: the head and top layer first, the others from the top; none: all from the start
    gradient_clip: float = 1.0
    accumulate: int = 1
    monitor: str = "val/macro_f1"
    patience: int | None = None  # epochs without a better `monitor` before stopping; None: all epochs
    max_memory: float | None = None  # GB that a model and its batch may take; None: what the device has free


@dataclass
class Evaluate:
    model: str | None = None  # stage=evaluate, export: a run folder, a model folder or a hub id; evaluate: an ONNX file too
    also: list[str] = field(default_factory=list)  # further test sets: data configs, settings behind: 'phrasebank test=1'
    resamples: int = 1000
    latency: bool = True
    usd_per_hour: float | None = None  # price of this machine, for the cost of 1,000 predictions; None: not known


@dataclass
class Export:
    """stage=export: `evaluate.model` as ONNX files."""

    # none: float32; dynamic: 8-bit, activations scaled in every call; static: 8-bit, ranges from training texts
    quantize: list[str] = field(default_factory=lambda: ["none", "dynamic", "static"])
    calibration_rows: int = 256  # training texts that static's ranges come from
    opset: int = 18
    threads: list[int] = field(default_factory=lambda: [1, 2])  # to time with
    against: str | None = None  # a model, such as the teacher, that is timed in torch beside the files


@dataclass
class Report:
    # on the jobs' test rows: the most frequent label, the nearest labelled texts, and whom students learnt from
    baselines: list[str] = field(default_factory=lambda: ["majority", "neighbours", "annotator", "teacher"])
    published: str | None = None  # key into the published numbers
    resamples: int = 2000


@dataclass
class Sweep:
    on_error: str = "continue"  # continue, stop
    report: bool = True  # make the study's report when the sweep ends
    vary: list[str] = field(default_factory=list)  # settings that may differ between a study's jobs, besides swept ones


@dataclass
class Logger:
    name: str = MISSING  # wandb, csv, none
    project: str = "findistill"
    mode: str = "auto"  # wandb: auto is online only when logged in; online, offline
    table_rows: int = 200  # rows of the prediction table that are sent


@dataclass
class Config:
    stage: Stage = MISSING
    study: str = "default"
    seed: int = 0
    runs_dir: str = "runs"
    data: Data = MISSING
    llm: LLM = MISSING
    prompt: Prompt = MISSING
    shots: Shots = field(default_factory=Shots)
    annotate: Annotate = field(default_factory=Annotate)
    teacher: Teacher = MISSING
    student: Encoder = MISSING
    augment: Augment = MISSING
    distill: Distill = MISSING
    trainer: Trainer = MISSING
    qlora: QLoRA = field(default_factory=QLoRA)
    fewshot: Fewshot = field(default_factory=Fewshot)
    evaluate: Evaluate = field(default_factory=Evaluate)
    export: Export = field(default_factory=Export)
    report: Report = field(default_factory=Report)
    sweep: Sweep = field(default_factory=Sweep)
    logger: Logger = MISSING


def register() -> None:
    """Put every schema into Hydra's store, under the names the YAML files start from."""
    store = ConfigStore.instance().store
    store(name="base_config", node=Config)
    store(group="stage", name="base_stage", node=Stage)
    for name, node in {
        "data": Data,
        "phrasebank": PhrasebankData,
        "fiqa": FiqaData,
        "reddit": RedditData,
        "headlines": HeadlinesData,
        "demo": DemoData,
        "file": FileData,
    }.items():
        store(group="data", name=f"base_{name}", node=node)
    store(group="llm", name="base_in_process", node=InProcessLLM)
    store(group="llm", name="base_endpoint", node=EndpointLLM)
    store(group="prompt", name="base_prompt", node=Prompt)
    store(group="teacher", name="base_teacher", node=Teacher)
    store(group="student", name="base_encoder", node=Encoder)
    store(group="student", name="base_charformer", node=CharformerEncoder)
    store(group="augment", name="base_augment", node=Augment)
    store(group="distill", name="base_distill", node=Distill)
    store(group="distill", name="base_teacher_distill", node=TeacherDistill)
    store(group="trainer", name="base_trainer", node=Trainer)
    store(group="logger", name="base_logger", node=Logger)


register()
