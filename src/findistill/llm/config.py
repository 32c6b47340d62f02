"""Settings of language models, prompts, demonstrations and annotation."""

import re
from dataclasses import dataclass, field
from typing import Any, ClassVar

from omegaconf import MISSING

from findistill.config.fields import setting


@dataclass
class Price:
    """What a model costs, in US dollars; None: not known (a self-hosted model costs 0)."""

    per_million_in: float | None = setting(None, ge=0)
    per_million_out: float | None = setting(None, ge=0)
    per_million_cached: float | None = setting(None, ge=0)  # prompt tokens in the server's cache; None: as other prompt tokens
    factor: float = setting(1.0, gt=0)  # of the list price that is charged: 0.5 for batches
    as_of: str | None = None  # the day the list price was looked up


@dataclass
class LLM:
    """An annotator. `_target_` is its engine in `findistill.llm`."""

    in_process: ClassVar[bool] = False  # it gives label probabilities, and can be tuned
    local: ClassVar[bool] = False  # its weights and tokenizer are files on this machine or the hub
    writes: ClassVar[bool] = True  # its responses are text, not just labels
    recorded: ClassVar[bool] = False  # it sends no requests, so it needs no demonstrations
    cross_fitted: ClassVar[bool] = False  # models that a step fits to the labelled rows first

    _target_: str = MISSING
    name: str = MISSING
    model: str = MISSING
    price: Price = setting(Price, runtime_only=True)


@dataclass
class InProcessLLM(LLM):
    in_process: ClassVar[bool] = True
    local: ClassVar[bool] = True

    dtype: str = setting("auto", choices=("auto", "float32", "bfloat16"))
    batch_tokens: int = setting(4096, ge=1, runtime_only=True)  # prompt tokens in one forward pass, padding included
    # longer prompts lose entire demonstrations, then the end of the text; counted and logged
    max_prompt_tokens: int = setting(1536, ge=32)
    chat: bool = True  # wrap the prompt in the model's chat template
    # A LoRA adapter: a run folder of stage=qlora, an adapter's folder or a hub id; tune: one that is trained first, on
    # the data.labelled rows, as `qlora` says; empty: none
    adapter: str = ""


@dataclass
class VllmLLM(LLM):
    """A model that vLLM runs in this process, on a GPU; its responses are sampled, like a server's."""

    local: ClassVar[bool] = True

    dtype: str = setting("auto", choices=("auto", "float32", "bfloat16", "float16"))
    quantization: str | None = setting(None, choices=("fp8", "awq", "gptq", "bitsandbytes"))  # None: as the weights are stored
    max_model_len: int | None = setting(4096, ge=32, runtime_only=True)  # tokens of prompt and response; None: the model's limit
    max_tokens: int = setting(256, ge=1)
    structured: bool = True  # JSON that follows a schema; false: lines of text
    # A LoRA adapter: a run folder of stage=qlora, an adapter's folder or a hub id; empty: none
    adapter: str = ""
    tensor_parallel_size: int = setting(1, ge=1, runtime_only=True)  # GPUs over which every layer is split
    gpu_memory_utilization: float = setting(0.9, gt=0, le=1, meaning="a share of the GPU's memory", runtime_only=True)
    texts_at_once: int = setting(512, ge=1, runtime_only=True)  # passed to vLLM together; their responses are cached afterwards
    tokenizer: str = setting("embedded:smollm2", runtime_only=True)  # to count tokens before a run, without the hub
    extra_engine: Any = None  # further arguments of vllm.LLM, see its documentation: {enforce_eager: true}


@dataclass
class EndpointLLM(LLM):
    base_url: str | None = None
    # name of the environment variable, the key itself is never configured; None: the server needs no key
    api_key_env: str | None = setting("OPENAI_API_KEY", runtime_only=True)
    # Authorization sends `Bearer KEY`, any other header the key alone, such as Azure's api-key
    api_key_header: str = setting("Authorization", pattern=r"[A-Za-z][A-Za-z0-9-]*", meaning="a header name", runtime_only=True)
    timeout_s: float = setting(60.0, gt=0, runtime_only=True)  # of one call
    max_retries: int = setting(6, ge=0, runtime_only=True)  # of transient failures: 429, 5xx, a dropped connection, half a body
    give_up_s: float = setting(300.0, gt=0, runtime_only=True)  # stop after this long without any reply
    max_tokens: int = setting(256, ge=1)
    structured: str = setting("auto", choices=("auto", "always", "never"))  # JSON by a schema; auto: if the server supports it
    extra_body: Any = None  # further fields of every request, see the server's documentation
    # a folder or hub id, to count tokens before a run; servers have their own
    tokenizer: str = setting("embedded:smollm2", runtime_only=True)


@dataclass
class BatchLLM(EndpointLLM):
    """Like an endpoint, but through batch files (`/files`, `/batches`): the same requests, hours later and cheaper."""

    max_requests: int = setting(50_000, ge=1, runtime_only=True)  # of one batch; OpenAI's limit
    max_mb: float = setting(200.0, gt=0, runtime_only=True)  # of its file, in 1e6 bytes
    parallel: int = setting(4, ge=1, runtime_only=True)  # batches at the server at once
    poll_s: float = setting(30.0, gt=0, runtime_only=True)  # longest interval between two polls
    # hours to wait for responses; 0: submit and stop. Run the same command again to wait longer
    wait_h: float = setting(25.0, ge=0, runtime_only=True)
    resubmit: int = setting(3, ge=0, runtime_only=True)  # how often a failed, expired or missing request is resubmitted


_SECRET_QUERY = re.compile(r"[?&](?:api[_-]?)?(?:key|token|sig|code|secret|password|subscription-key)=", re.IGNORECASE)


def address_fault(base_url: str | None) -> str | None:
    """What is wrong with an address, and how to fix it; None if nothing is. Secrets in it are masked."""
    if base_url is None:  # OpenAI's
        return None
    if not base_url:
        azure = "https://RESOURCE.openai.azure.com/openai/deployments/DEPLOYMENT?api-version=2024-10-21"
        return (
            "llm.base_url is not set: give the server's address, such as llm.base_url=http://127.0.0.1:8000/v1\n"
            f"For Azure: 'llm.base_url=\"{azure}\"'"
        )
    begins = re.match(r"https?://[^/\s]", base_url)
    if begins and "@" not in base_url.split("/")[2].partition("?")[0] and not _SECRET_QUERY.search(base_url):
        return None
    safe = re.sub(r"^(https?://)?[^/]*@", r"\1", base_url)
    safe = re.sub(_SECRET_QUERY.pattern + "[^&#]*", "", safe, flags=re.IGNORECASE)
    if begins:
        override = f"'llm.base_url=\"{safe}\"'" if "=" in safe else f"llm.base_url={safe}"  # Hydra needs quotes around it
        return (
            "llm.base_url contains a user name, password or key, which would be written to files: put the key into an "
            f"environment variable (export LLM_API_KEY=...) and set {override} llm.api_key_env=LLM_API_KEY"
        )
    masked, safe = re.sub(r"[^/@]*@", "***@", base_url), re.sub(r"^[^/]*:?//+", "", safe)
    return f"llm.base_url={masked}: give the complete address, llm.base_url=http://{safe or '127.0.0.1:8000/v1'}"


@dataclass
class RecordedLLM(LLM):
    """Answers or labels recorded elsewhere; at most `annotate.samples` of each text are read.

    A text's samples are its rows, in file order, and within a row the elements of a list or the `label_columns`.
    Columns of nested JSON have dotted names: `response.body.model`.
    """

    recorded: ClassVar[bool] = True

    path: str = MISSING  # a .csv, .jsonl or .parquet file, one row per sample; its content is part of every key
    text_column: str = "text"
    id_column: str | None = None  # matches rows to texts by this id; None: by the text
    answer_column: str = "answer"  # parsed by the prompt's template
    label_column: str | None = None  # a column of labels instead: names of data.labels, or words of prompt.wording
    label_columns: list[str] | None = setting(None, distinct=True)  # or one per person, model or labelling function
    answer_line: str = setting("last", choices=("first", "last"))  # which line of an answer names the label
    where: Any = None  # only rows with these values, {model: gpt-4}, or with one of several, {model: [gpt-4, gpt-3.5-turbo]}
    tokens_in_column: str | None = None
    tokens_out_column: str | None = None
    encoding: str = "utf-8"


@dataclass
class ClassifierLLM(LLM):
    """A classifier fitted to the labelled rows, as an annotator; its labels are drawn from its probabilities, like an LLM's."""

    recorded: ClassVar[bool] = True

    writes: ClassVar[bool] = False

    kind: str = setting(MISSING, choices=("tfidf", "embeddings", "neighbours"))
    k: int = setting(8, ge=1)  # neighbours that vote


@dataclass
class CrossFittedLLM(LLM):
    """The `teacher` section's encoder as an annotator: one model per fold of the labelled rows, trained without that fold."""

    recorded: ClassVar[bool] = True
    cross_fitted: ClassVar[bool] = True
    writes: ClassVar[bool] = False

    folds: int = setting(4, ge=2)


@dataclass
class LabellingFunctions(LLM):
    """Case-insensitive regular expressions as an annotator: `llm.rules={positive: [profit rose, record sales]}`."""

    recorded: ClassVar[bool] = True
    writes: ClassVar[bool] = False

    rules: Any = MISSING  # label -> one pattern or several


@dataclass
class Prompt:
    name: str = MISSING
    # what is classified: sentiment, topic, event, rating, ...; null: sentiment where the labels are negative, neutral and
    # positive, else category
    task: str | None = None
    instruction: str | None = None  # null: one of the next two
    sentiment_instruction: str | None = None  # where the task is sentiment
    task_instruction: str | None = None  # for any other task; {task} is replaced by its name
    # The labels' words in the prompt: null, their names; market (bearish ..), movement (down ..); or {label: word}. Not
    # typed as a dict: Hydra would require a `+` before its keys.
    wording: Any = None
    text_header: str = "Text:"
    answer_header: str | None = None  # null: the task, "Sentiment:"
    steps: list[str] = field(default_factory=list)  # headers of the lines that the model writes before the label
    step_hints: list[str] = field(default_factory=list)  # what each step should contain; "one sentence" where empty
    max_text_tokens: int = setting(96, ge=1)  # of each demonstration and of the text itself


@dataclass
class Extract:
    """A prompt for the entities that a text names; their types are the data's labels."""

    name: str = MISSING
    instruction: str = MISSING  # {types} is replaced by the entity types
    # worked examples in the instruction, for one type: {text, result, normalized_result}, two lists of equal length
    examples: list[Any] = field(default_factory=list)
    normalized: bool = True  # also request each entity's usual name, if there is only one type
    wording: Any = None  # the types' words in the prompt, {ORG: organization}; for others, see `entity_types.word`
    label_map: Any = None  # further names of the types in answers, {Organisation: company}
    rows: str = setting("training", choices=("training", "test"), runtime_only=True)  # which rows entities.step=label labels
    text_header: str = "Text:"
    max_text_tokens: int = setting(128, ge=1)  # of each demonstration and of the text itself


@dataclass
class Shots:
    k: int = setting(4, ge=0)
    selection: str = setting("nearest", choices=("random", "balanced", "nearest"))
    seed: int = setting(0, ge=0)
    order_seed: int | None = setting(None, ge=0)  # a seed that permutes the selected ones; None: the selection's own order
    # none; given: only demonstrations that have a rationale, such as those of shots.source=demo; llm: if the prompt has steps,
    # the llm writes a rationale for each demonstration's label
    rationales: str = setting("none", choices=("none", "given", "llm"))
    source: Any = setting(None, names="data")  # the data set whose labelled rows they come from; None: the data's own pool


MEASURED = ("weighted_majority", "stacking")  # methods of combining annotators that need labelled rows


@dataclass
class Annotate:
    samples: int = setting(8, ge=1)
    temperature: float = setting(0.5, ge=0)
    limit: int | None = setting(None, ge=2)
    # none; batch: subtract the mean label log-probability over the texts; contextual: subtract that of content-free texts;
    # pool: offsets and scale fitted on held-out pool rows; auto: pool where the llm gives label probabilities and the
    # pool is large enough, else none
    calibration: str = setting("auto", choices=("none", "batch", "contextual", "pool", "auto"))
    stop_at: int | None = setting(None, ge=1)  # stop sampling a text once this many samples agree; None: always draw all
    seed: int = setting(0, ge=0)
    ensemble: list[Any] = setting([], names="overrides")  # several annotators, each as overrides: 'prompt=cot shots.k=6'
    # majority of all votes; weighted_majority: annotators weighted by accuracy on labelled rows; dawid_skene: weighted by how
    # they disagree, without labels; stacking: logistic regression of the labels on all votes
    combine: str = setting("majority", choices=("majority", "dawid_skene", *MEASURED))
    measure_on: int = setting(300, ge=10)  # most labelled rows that are annotated for weighted_majority and stacking
    next: int | None = setting(None, ge=1)  # how many texts to label by hand next are written to to_label.csv
    concurrency: int = setting(32, ge=1, runtime_only=True)  # maximum calls in flight, for endpoint engines
    retries: int = setting(2, ge=0)  # how often a response that names no label is requested again
    # share of responses that may stay failed after all retries
    max_failed: float = setting(0.02, ge=0, le=1, meaning="a share of the responses", runtime_only=True)
    # share of responses that must name a label: below it, annotation stops and shows an unreadable one
    min_readable: float = setting(0.5, ge=0, le=1, meaning="a share of the responses", runtime_only=True)
    max_cost_usd: float | None = setting(None, runtime_only=True)
    dry_run: bool = setting(False, runtime_only=True)  # print what would be requested and what it costs, and send nothing
    show_prompt: bool = setting(False, runtime_only=True)  # print one filled prompt, and send nothing
