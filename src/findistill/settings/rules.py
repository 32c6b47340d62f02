"""Rules that no type can express: which values go together, with a sentence of advice each.

They read the configuration only, so that a mistake is told before anything heavy is loaded.
"""

import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from findistill.errors import UserError
from findistill.settings.compose import options, plain
from findistill.settings.schema import FAULTS, faults

CHOICES: dict[str, tuple[str, ...]] = {
    "shots.selection": ("random", "balanced", "nearest"),
    "shots.rationales": ("none", "given", "llm"),
    "annotate.calibration": ("none", "batch", "contextual", "pool", "auto"),
    "fewshot.scoring": ("auto", "likelihood", "generation"),
    "fewshot.normalise": ("mean", "sum"),
    "annotate.combine": ("majority", "dawid_skene"),
    "augment.relabel": ("teacher", "llm", "none"),
    "distill.objective": ("cls", "reg", "logit", "minilm", "tinybert"),
    "distill.target": ("distribution", "scalar"),
    "distill.votes": ("annotator", "human", "teacher"),
    "distill.class_weights": ("none", "balanced"),
    "distill.intermediate.schedule": ("constant", "linear"),
    "distill.recipe": ("fixed", "faithful", *FAULTS),
    "distill.cache": ("needed", "all"),
    "distill.cache_dtype": ("float16", "float32"),
    "prompt.wording": ("sentiment", "market", "movement"),
    "student.init": ("pretrained", "random", "parent"),
    "teacher.init": ("pretrained", "random", "parent"),
    "teacher.objective": ("classification", "regression"),
    "teacher.class_weights": ("none", "balanced"),
    "trainer.schedule": ("linear", "slanted", "constant"),
    "trainer.unfreeze": ("none", "gradual"),
    "trainer.accelerator": ("auto", "cpu", "gpu"),
    "trainer.precision": ("auto", "32", "bf16", "16"),
    "trainer.monitor": ("val/macro_f1", "val/accuracy", "val/loss"),
    "sweep.on_error": ("continue", "stop"),
    "logger.mode": ("auto", "online", "offline"),
    "data.level": ("50agree", "66agree", "75agree", "allagree"),
    "data.split": ("stratified", "finbert"),
    "data.part": ("news", "posts"),
    "data.on_leak": ("refuse", "drop"),
    "llm.dtype": ("auto", "float32", "bfloat16"),
    "qlora.quantization": ("nf4", "int8", "none"),
    "llm.structured": ("auto", "always", "never"),
}

# The smallest value that makes sense; None values (not set) pass.
LEAST: dict[str, float] = {
    "seed": 0,
    "shots.k": 0,
    "annotate.samples": 1,
    "annotate.temperature": 0,
    "annotate.limit": 2,
    "annotate.concurrency": 1,
    "annotate.stop_at": 1,
    "annotate.retries": 0,
    "shots.order": 0,
    "augment.per_text.generate": 0,
    "augment.per_text.rephrase": 0,
    "augment.per_text.vary": 0,
    "augment.per_text.similar": 0,
    "augment.per_text.words": 0,
    "augment.limit": 1,
    "augment.seed": 0,
    "augment.folds": 2,
    "augment.temperature": 0,
    "augment.min_words": 1,
    "augment.rounds": 1,
    "augment.candidates": 1,
    "distill.min_agreement": 1,
    "distill.label_smoothing": 0,
    "distill.intermediate.epochs": 0,
    "distill.relation_layer": 1,
    "distill.relation_heads": 1,
    "data.limit": 2,
    "data.pool": 0,
    "trainer.max_epochs": 1,
    "trainer.batch_size": 1,
    "trainer.max_length": 8,
    "trainer.accumulate": 1,
    "trainer.patience": 1,
    "trainer.warmup": 0,
    "trainer.weight_decay": 0,
    "fewshot.limit": 2,
    "evaluate.resamples": 1,
    "export.calibration_rows": 1,
    "report.resamples": 1,
    "llm.batch_tokens": 1,
    "llm.max_prompt_tokens": 32,
    "llm.max_tokens": 1,
    "llm.max_retries": 0,
    "llm.price.per_million_in": 0,
    "llm.price.per_million_out": 0,
    "student.blocks": 1,
    "student.downsample": 1,
    **{f"qlora.{key}": 1 for key in ("rank", "alpha", "epochs", "batch_size", "checkpoint_every")},
    **{f"{role}.pretrain.{key}": least for role in ("teacher", "student") for key, least in (("limit", 100), ("epochs", 1))},
}

OPSETS = range(18, 26)  # of ONNX: what torch writes and onnxruntime reads
WRITTEN = ("generate", "rephrase", "vary", "similar")  # methods of augmentation that ask an LLM
METHODS = (*WRITTEN, "words")

VOTERS = 8  # human votes are told in eighths

LAYER_MAPS = ("uniform", "last", "skip")
INTERMEDIATE = ("hidden", "attention", "attention_probs", "query_key", "value_value")  # terms on what is inside a model


def check(config: Any) -> None:
    """Raise one `UserError` with a line for each rule that `config` breaks (three at most)."""
    # Settings that are no more there cannot be checked further.
    problems = [*_keys(config)] or [*_values(config), *_combinations(config)]
    if problems:
        raise UserError("\n".join(problems[:3]))


def _keys(config: DictConfig) -> Iterator[str]:
    """Settings that `+` added or `~` removed: nothing reads the first, and everything needs the second."""
    if OmegaConf.get_type(config) is dict:
        return  # of a run's config.yaml, which names no types; its keys were checked when it ran
    sections = {f"{name!s}.": node for name, node in config.items() if isinstance(node, DictConfig)}
    for prefix, node in {"": config, **sections}.items():
        schema, here = {field.name for field in fields(cast(Any, OmegaConf.get_type(node)))}, {str(key) for key in node}
        yield from (f"{prefix}{key}: no such setting; nothing would read it" for key in sorted(here - schema))
        yield from (f"{prefix}{key} was removed, but it is needed: leave out ~{prefix}{key}" for key in sorted(schema - here))


def _values(config: DictConfig) -> Iterator[str]:
    for key, allowed in CHOICES.items():
        value = OmegaConf.select(config, key, throw_on_missing=False)
        if value is not None and str(value) not in allowed:
            yield f"{key}={value}: choose one of {', '.join(allowed)}"
    for key, least in LEAST.items():
        value = OmegaConf.select(config, key, throw_on_missing=False)
        if value is not None and value < least:
            yield f"{key}={value} is too small: at least {least:g}"
    if not 0 <= config.annotate.max_failed <= 1:
        yield f"annotate.max_failed={config.annotate.max_failed} is a share of the answers: a number from 0 to 1"
    for key in ("data.validation", "data.test"):
        value = OmegaConf.select(config, key)
        if value is not None and not 0 < value < 1:
            yield f"{key}={value} is a share of the rows: a number between 0 and 1"
    for key in (
        "trainer.learning_rate",
        "trainer.gradient_clip",
        "trainer.max_memory",
        "evaluate.usd_per_hour",
        "teacher.pretrain.learning_rate",
        "student.pretrain.learning_rate",
        "distill.temperature",
        "distill.intermediate.learning_rate",
        "distill.cache_gb",
        "qlora.learning_rate",
    ):
        value = OmegaConf.select(config, key)
        if value is not None and value <= 0:
            yield f"{key}={value} must be above 0"
    if not 0 < config.trainer.layer_decay <= 1:
        yield f"trainer.layer_decay={config.trainer.layer_decay} is a share: above 0, at most 1 (FinBERT: 0.8333)"
    if not re.fullmatch(r"[\w][\w.+-]*", config.study):
        yield f"study={config.study!r} names a folder: letters, digits, '.', '_', '-' only"


def _combinations(config: DictConfig) -> Iterator[str]:
    stage, data, distill = config.stage.name, config.data, config.distill
    if stage == "report":
        return
    for section in ("data", "llm", "teacher", "student"):
        for key in OmegaConf.missing_keys(config[section]):
            if section in _read(config):
                yield f"{section}.{key} is not set; {section}={config[section].name} needs {section}.{key}=..."
    if data.name in ("csv", "jsonl", "parquet"):
        if not data.path:
            yield f"data.path is not set; data={data.name} needs data.path=FILE"
        elif not Path(data.path).is_file():
            yield f"data.path={data.path}: no such file"
    if data.name == "hub" and not data.hub_id:
        yield "data.hub_id is not set; data=hub needs data.hub_id=OWNER/NAME"
    named = [("shots.source", config.shots.source), *(("evaluate.also", words) for words in config.evaluate.also)]
    named += [("distill.pool", OmegaConf.select(distill, "pool") or None)]
    for key, words in named:
        if words is not None and (not words.split() or words.split()[0] not in options()["data"]):
            yield f"{key}={words}: no such data set; there are {', '.join(sorted(options()['data']))}"
    if stage in ("teacher", "augment") and OmegaConf.select(data, "label_column", default="") is None:
        yield f"stage={stage} needs human labels; data={data.name} has none without data.label_column=COLUMN"
    if stage in ("evaluate", "export") and not config.evaluate.model:
        onnx = ", or an ONNX file" if stage == "evaluate" else ""
        yield f"stage={stage} needs evaluate.model: a run folder, a model folder or a hub id{onnx}"
    if stage == "export":
        yield from _export(config.export)
    if stage not in ("annotate", "augment") and (config.annotate.dry_run or config.annotate.show_prompt):
        yield f"annotate.dry_run and annotate.show_prompt go with stage=annotate and augment, not with stage={stage}"
    if stage in ("teacher", "student"):
        yield from _encoder(config, stage)
    if stage == "teacher":
        yield from _teacher(config)
    if stage == "student":
        yield from _student(config)
    if _augments(config):
        yield from _augment(config)
    if _asks_llm(config):
        yield from _annotator(config)
    if stage == "fewshot":
        yield from _fewshot(config)
    if stage == "qlora" or (_asks_llm(config) and OmegaConf.select(config, "llm.adapter") == "tune"):
        yield from _qlora(config)
    if config.trainer.precision == "16" and config.trainer.accelerator == "cpu":
        yield "trainer.precision=16 needs a GPU; on a CPU use 32, bf16 or auto"
    if OmegaConf.select(data, "classes", default=3) not in (2, 3):
        yield f"data.classes={data.classes}: 2 or 3"
    if distill.objective == "reg" and "positive" not in data.labels and distill.target == "scalar":
        yield "distill.target=scalar is positive share minus negative share; data.labels has no 'positive'"


def is_preview(config: Any) -> bool:
    """Whether the job only tells what it would do."""
    return bool(config.stage.name in ("annotate", "augment") and (config.annotate.dry_run or config.annotate.show_prompt))


def _read(config: DictConfig) -> tuple[str, ...]:
    """The sections whose every setting the job needs."""
    stage, distill = config.stage.name, config.distill
    if stage == "student" and distill.votes == "teacher":
        return ("data", "student") if OmegaConf.select(distill, "teacher") else ("data", "student", "teacher")
    asked = ("llm",) if _asks_llm(config) or stage == "qlora" else ()
    if stage == "augment":
        return ("data", *asked, "teacher")
    return ("data", *asked, *((stage,) if stage in ("student", "teacher") else ()))


def _asks_llm(config: DictConfig) -> bool:
    if _augments(config) and (config.augment.relabel == "llm" or set(WRITTEN) & set(config.augment.methods)):
        return True
    return config.stage.name in ("annotate", "fewshot") or (
        config.stage.name == "student" and config.distill.votes == "annotator"
    )


def tunes(config: Any) -> bool:
    """Whether an annotator is tuned first."""
    llm, members = config["llm"], config["annotate"]["members"]
    own = "adapter" in llm and llm["adapter"] == "tune"
    return own or any("llm.adapter=tune" in member.split() for member in members)


def asks_teacher(distill: Any) -> bool:
    """Whether a student of a teacher model learns anything from it: a term other than the gold label, or a published fault."""
    terms = plain(distill)["terms"]
    return any(weight for name, weight in terms.items() if name != "hard") or bool(faults(distill.recipe))


def _encoder(config: DictConfig, role: str) -> Iterator[str]:
    """How the model to be trained begins; `role` is teacher or student."""
    encoder, charformer = config[role], "blocks" in config[role]
    if charformer and (encoder.pretrain.source or encoder.trim_vocabulary):
        yield f"{role}.pretrain.source and {role}.trim_vocabulary are for models with word pieces; {encoder.name} reads bytes"
    if charformer and encoder.init != "random":
        yield f"{role}.init={encoder.init}: there are no weights of {encoder.name} to start from; use {role}.init=random"
    if encoder.freeze_embeddings and encoder.init == "random":
        yield f"{role}.freeze_embeddings=true would keep random embeddings: set it to false, or use {role}.init=parent"
    if encoder.init == "parent" and encoder.shape is None:
        yield f"{role}.init=parent needs {role}.shape, the size to cut from the parent's weights"
    if encoder.init != "pretrained" and encoder.layers is not None:
        yield f"{role}.layers keeps layers of a pretrained model: use {role}.init=pretrained, or set {role}.shape.layers"
    if encoder.shape is not None and not OmegaConf.missing_keys(encoder.shape):
        small = [key for key, value in encoder.shape.items() if value < 1]
        if small:
            yield f"{role}.shape.{small[0]}={encoder.shape[small[0]]} is too small: at least 1"
        elif encoder.shape.hidden % encoder.shape.heads:
            yield f"{role}.shape.hidden={encoder.shape.hidden} must be a multiple of {role}.shape.heads={encoder.shape.heads}"
    source = encoder.pretrain.source
    if source is not None and (not source.split() or source.split()[0] not in options()["data"]):
        yield f"{role}.pretrain.source={source}: no such data set; there are {', '.join(sorted(options()['data']))}"
    if not 0 < encoder.pretrain.mask < 1:
        yield f"{role}.pretrain.mask={encoder.pretrain.mask} is a share of the words: a number between 0 and 1"


def _teacher(config: DictConfig) -> Iterator[str]:
    if config.teacher.objective == "regression":
        if "part" not in config.data:
            yield f"teacher.objective=regression needs scores; data={config.data.name} has none: use fiqa_news or fiqa_posts"
        if config.teacher.class_weights != "none":
            yield "teacher.class_weights only works with teacher.objective=classification: a score has no class to weigh"
    if config.augment.use and config.teacher.objective == "regression":
        yield "augment.use=true with teacher.objective=regression: new texts have labels, not scores"


def _augments(config: DictConfig) -> bool:
    return config.stage.name == "augment" or (config.stage.name in ("teacher", "student") and config.augment.use)


def _augment(config: DictConfig) -> Iterator[str]:
    augment = config.augment
    if config.data.name in ("reddit", "headlines"):
        yield f"new texts are made from texts with human labels, and data={config.data.name} has none"
    unknown = [method for method in augment.methods if method not in METHODS]
    if unknown or not augment.methods:
        yield f"augment.methods=[{','.join(unknown)}]: choose one or more of {', '.join(METHODS)}"
    several = [method for method in augment.methods if method in WRITTEN and augment.per_text[method] > 1]
    if several and augment.temperature == 0:
        yield (
            f"augment.temperature=0 makes all augment.per_text.{several[0]}={augment.per_text[several[0]]} texts of a source "
            "the same one; raise it"
        )
    if augment.min_words > augment.max_words:
        yield f"augment.min_words={augment.min_words} is above augment.max_words={augment.max_words}: no text is left"
    if not 0 < augment.similarity <= 100:
        yield f"augment.similarity={augment.similarity:g} is an edit similarity: above 0, and 100 for equal texts"
    if not 0 < augment.replace <= 1:
        yield f"augment.replace={augment.replace:g} is the probability that a word is replaced: above 0, up to 1"
    if config.stage.name == "student" and config.distill.votes == "human":
        yield "augment.use=true with distill.votes=human: no human voted on new texts; use distill.votes=annotator"


def _student(config: DictConfig) -> Iterator[str]:
    """Rules for students of votes, or of a teacher model."""
    yield from _from_teacher(config) if "terms" in config.distill else _from_votes(config)


def _from_teacher(config: DictConfig) -> Iterator[str]:
    distill, data = config.distill, config.data
    weights = {str(name): weight for name, weight in distill.terms.items()}
    intermediate = {name for name in INTERMEDIATE if weights[name]}
    predictions = {name for name in weights.keys() - set(INTERMEDIATE) if weights[name]}
    if distill.objective in ("cls", "reg") or distill.votes != "teacher" or distill.min_agreement is not None:
        yield "distill.objective, votes and min_agreement are not set by hand; choose distill=cls, reg, logit, minilm or tinybert"
    for name, weight in weights.items():
        if weight < 0:
            yield f"distill.terms.{name}={weight:g} is a weight: 0 (left out) or more"
    if not predictions:
        yield "distill.terms: none teaches the labels; give kl, soft_ce, logits_mse or hard a weight above 0"
    if distill.intermediate.epochs and not intermediate:
        yield (
            f"distill.intermediate.epochs={distill.intermediate.epochs} has nothing to learn: give one of distill.terms."
            f"{', '.join(INTERMEDIATE)} a weight above 0"
        )
    if isinstance(distill.layers, str) and distill.layers not in LAYER_MAPS:
        yield f"distill.layers={distill.layers}: choose one of {', '.join(LAYER_MAPS)}, or list teacher layers: [2,4,6]"
    elif not isinstance(distill.layers, str) and not (
        OmegaConf.is_list(distill.layers) and all(isinstance(layer, int) for layer in distill.layers)
    ):
        yield f"distill.layers={distill.layers}: a list of layer numbers, [2,4,6], or one of {', '.join(LAYER_MAPS)}"
    if config.teacher.objective == "regression" and not distill.teacher:
        yield f"distill={distill.objective} learns from label probabilities: set teacher.objective=classification"
    unlabelled = data.name in ("reddit", "headlines") or OmegaConf.select(data, "label_column", default="") is None
    if unlabelled and not distill.teacher:
        yield (
            f"distill={distill.objective} trains its teacher on human labels, and data={data.name} has none; "
            "name a trained one: distill.teacher=RUN_FOLDER"
        )


def _from_votes(config: DictConfig) -> Iterator[str]:
    distill, annotate = config.distill, config.annotate
    if distill.objective not in ("cls", "reg") or distill.votes == "teacher":
        yield "distill.objective and distill.votes do not choose a teacher model; distill=logit, minilm and tinybert do"
        return
    if distill.min_agreement is None:
        yield "distill.min_agreement is not set: give the number of answers that must agree, 1 keeps all texts"
        return
    most, who = annotate.samples * max(1, len(annotate.members)), f"annotate.samples={annotate.samples}"
    if annotate.stop_at is not None:
        most, who = annotate.stop_at, f"annotate.stop_at={annotate.stop_at} asks no further"
    if distill.votes == "human":
        most, who = VOTERS, "human votes are told in eighths"
    if distill.min_agreement > most:
        yield f"distill.min_agreement={distill.min_agreement} can never be reached: {who}. Use at most {most}."
    if distill.votes == "human" and config.data.name != "phrasebank":
        yield f"distill.votes=human: data={config.data.name} publishes no votes of its annotators; use data=phrasebank"
    if distill.objective == "reg" and distill.label_smoothing:
        yield "distill.label_smoothing only works with distill=cls: REG's targets, the vote shares, are soft already"
    if distill.objective == "reg" and distill.class_weights != "none":
        yield "distill.class_weights only works with distill=cls: REG's targets have no single class to weigh"
    if distill.objective == "cls" and distill.target != "distribution":
        yield "distill.target only works with distill=reg: CLS trains on the hard label"


def _export(export: Any) -> Iterator[str]:
    known = ("none", "dynamic", "static")
    if not export.quantize or not set(export.quantize) <= set(known) or len(set(export.quantize)) < len(export.quantize):
        yield f"export.quantize={list(export.quantize)}: some of {', '.join(known)}, each once"
    if not export.threads or min(export.threads) < 1 or len(set(export.threads)) < len(export.threads):
        yield f"export.threads={list(export.threads)}: numbers of threads, each once, such as [1,2]"
    if export.opset not in OPSETS:
        yield f"export.opset={export.opset}: from {OPSETS[0]} to {OPSETS[-1]}"


def _fewshot(config: DictConfig) -> Iterator[str]:
    annotate, generation = config.annotate, config.fewshot.scoring == "generation"
    if annotate.members:
        yield "annotate.members are for stage=annotate: stage=fewshot scores one llm with one prompt"
    if annotate.limit is not None:
        yield f"annotate.limit={annotate.limit} limits training rows; stage=fewshot takes test rows: fewshot.limit=..."
    if generation and (annotate.temperature or annotate.samples > 1) and "in_process" in config.llm._target_:
        yield "fewshot.scoring=generation takes the likeliest text: annotate.samples=1 annotate.temperature=0"
    if generation and annotate.calibration in ("batch", "contextual", "pool"):
        yield f"annotate.calibration={annotate.calibration} needs label probabilities: fewshot.scoring=likelihood"
    if config.fewshot.scoring == "likelihood" and "in_process" not in config.llm._target_:
        yield "fewshot.scoring=likelihood needs label probabilities, and servers give text: fewshot.scoring=generation or auto"


def _qlora(config: DictConfig) -> Iterator[str]:
    """Rules for tuning a language model, as a stage or before it annotates."""
    llm, trainer, stage = config.llm, config.trainer, config.stage.name
    if "in_process" not in llm._target_:
        yield f"stage={stage} tunes a model in this process; llm={llm.name} is on a server: use llm=smollm2 or llm=flan_t5_base"
    if stage == "qlora" and OmegaConf.select(llm, "adapter"):
        yield f"llm.adapter={llm.adapter} is what stage=qlora makes: leave it empty"
    if config.prompt.steps:
        yield f"prompt={config.prompt.name} asks for steps before the label, and no data set has them: tune with prompt=direct"
    if not 0 <= config.qlora.dropout < 1:
        yield f"qlora.dropout={config.qlora.dropout} is a share: from 0 to below 1"
    if isinstance(config.qlora.target_modules, str) and config.qlora.target_modules != "all-linear":
        yield f"qlora.target_modules={config.qlora.target_modules}: all-linear, or a list of layer names such as [q_proj,v_proj]"
    unlabelled = config.data.name in ("reddit", "headlines") or OmegaConf.select(config.data, "label_column", default="") is None
    if unlabelled:
        yield f"tuning needs human labels, and data={config.data.name} has none; llm.adapter=RUN_FOLDER takes a tuned model"
    if stage != "qlora":
        yield from _tuned_first(config)
        return
    if trainer.precision != "auto":
        yield (
            f"trainer.precision={trainer.precision}: llm.dtype says what a language model computes in, float32 or bfloat16; "
            "T5 overflows in fp16"
        )
    if trainer.max_length is not None:
        yield "trainer.max_length: prompts are cut by prompt.max_text_tokens and llm.max_prompt_tokens, in tuning as in scoring"
    if trainer.devices not in ("auto", 1):
        yield f"trainer.devices={trainer.devices}: a language model is tuned on one device; use trainer.devices=1"
    if trainer.unfreeze != "none" or trainer.layer_decay != 1:
        yield "trainer.unfreeze and trainer.layer_decay are for encoders: an adapter's layers all learn at one rate"


def _tuned_first(config: DictConfig) -> Iterator[str]:
    """Rules for `llm.adapter=tune`."""
    if not config.data.pool:
        yield "llm.adapter=tune learns from labelled rows that it does not annotate: set data.pool to their number"
    if config.shots.k:
        yield f"shots.k={config.shots.k}: llm.adapter=tune learns prompts without demonstrations; set shots.k=0"
    if config.annotate.calibration == "pool":
        yield "annotate.calibration=pool: llm.adapter=tune has learnt from the pool's rows, which are no test of it; use none"


def _annotator(config: DictConfig) -> Iterator[str]:
    annotate, shots, llm = config.annotate, config.shots, config.llm
    if annotate.samples > 1 and annotate.temperature == 0:
        yield (
            f"annotate.temperature=0 makes all {annotate.samples} samples the same answer, which would look like full "
            "agreement; raise it, or set annotate.samples=1"
        )
    # A study of shots takes any k: the odd ones out go to labels that are drawn.
    if config.stage.name != "fewshot" and shots.selection == "balanced" and shots.k % len(config.data.labels):
        yield (
            f"shots.k={shots.k} cannot be balanced over {len(config.data.labels)} labels; "
            f"use a multiple of {len(config.data.labels)}, or shots.selection=nearest"
        )
    if annotate.stop_at is not None and annotate.stop_at > annotate.samples:
        yield f"annotate.stop_at={annotate.stop_at} can never be reached with annotate.samples={annotate.samples}"
    if annotate.max_cost_usd is not None and annotate.max_cost_usd <= 0:
        yield f"annotate.max_cost_usd={annotate.max_cost_usd:g} buys nothing; annotate.dry_run=true tells what it would cost"
    elif annotate.max_cost_usd is not None and None in (llm.price.per_million_in, llm.price.per_million_out):
        yield (
            f"annotate.max_cost_usd={annotate.max_cost_usd:g} needs the price of llm={llm.name}: "
            "set llm.price.per_million_in and llm.price.per_million_out (US dollars for a million tokens)"
        )
    if annotate.combine == "dawid_skene" and len(annotate.members) < 2:
        yield "annotate.combine=dawid_skene weighs several annotators: name two or more in annotate.members"
    address = OmegaConf.select(llm, "base_url", default=None)
    if address is not None and not re.match(r"https?://[^/]", address):
        yield "llm.base_url is no address: it begins with http:// or https:// and often ends in /v1"
    if annotate.calibration in ("batch", "contextual", "pool") and (config.prompt.steps or "in_process" not in llm._target_):
        yield (
            f"annotate.calibration={annotate.calibration} needs label probabilities: "
            "prompt=direct with an in-process llm such as llm=smollm2"
        )
    if (shots.k and not shots.source and config.data.name in ("reddit", "headlines")) or (
        shots.k and not shots.source and OmegaConf.select(config.data, "label_column", default="") is None
    ):
        yield (
            f"data={config.data.name} has no labelled rows for shots.k={shots.k} demonstrations; "
            "name a labelled set, for example shots.source=tfns, or set shots.k=0"
        )
