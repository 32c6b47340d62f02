"""Rules of `stage=qlora`, and of an annotator that is tuned before it annotates (`llm.adapter=tune`)."""

from collections.abc import Iterator
from typing import Any

from omegaconf import OmegaConf

from findistill.config.fields import declares
from findistill.config.validate import missing, rule
from findistill.data.rules import human_labels


@rule("qlora")
def tunes(config: Any) -> Iterator[str]:
    llm, trainer = config.llm, config.trainer
    yield from missing(config, "llm")
    if OmegaConf.select(llm, "adapter"):
        yield f"llm.adapter={llm.adapter} is not needed: stage=qlora creates the adapter; leave it empty"
    yield from _tuning(config)
    yield from _prompt(config)
    if trainer.precision != "auto":
        yield (
            f"trainer.precision={trainer.precision} does not apply to language models: set llm.dtype=float32 or bfloat16; "
            "T5 overflows in fp16"
        )
    if trainer.max_length is not None:
        yield "trainer.max_length: prompt.max_text_tokens and llm.max_prompt_tokens truncate prompts, in tuning as in scoring"
    if trainer.unfreeze != "none" or trainer.layer_decay != 1:
        yield "trainer.unfreeze and trainer.layer_decay are for encoders: all layers of an adapter have one learning rate"


def tuned_first(config: Any) -> Iterator[str]:
    """Rules for `llm.adapter=tune` of an annotator."""
    yield from _tuning(config)
    yield from _prompt(config)
    if not config.data.labelled:
        yield "llm.adapter=tune trains on labelled rows, which it does not annotate: set data.labelled to their number"
    if config.shots.k:
        yield f"shots.k={config.shots.k}: llm.adapter=tune trains on prompts without demonstrations; set shots.k=0"
    if config.annotate.calibration == "pool":
        yield "annotate.calibration=pool: llm.adapter=tune was trained on the pool's rows, so they cannot calibrate it; use none"


def tuned_to_extract(config: Any) -> Iterator[str]:
    """Rules for `llm.adapter=tune` of an LLM that names entities."""
    yield from _tuning(config)
    if not declares(config.data, "has_spans"):
        yield f"llm.adapter=tune needs annotated entities; data={config.data.name} has none: name an adapter: llm.adapter=FOLDER"
    elif not config.data.labelled and (config.entities.step == "train" or config.extract.rows == "training"):
        yield "llm.adapter=tune trains on labelled rows, which it does not label: set data.labelled to their number"
    if config.shots.k:
        yield f"shots.k={config.shots.k}: llm.adapter=tune trains on prompts without demonstrations; set shots.k=0"


def _tuning(config: Any) -> Iterator[str]:
    llm, modules = config.llm, config.qlora.target_modules
    if not declares(llm, "in_process"):
        where = "runs in vLLM, which cannot tune" if declares(llm, "local") else "is on a server"
        yield (
            f"stage={config.stage.name} tunes a model in this process; llm={llm.name} {where}: "
            "use llm=smollm2 or llm=flan_t5_base"
        )
    if config.trainer.strategy == "fsdp":
        yield "trainer.strategy=fsdp: quantised weights cannot be sharded; use trainer=ddp, with a copy of them on each GPU"
    if isinstance(modules, str) and modules != "all-linear":
        yield f"qlora.target_modules={modules} must be all-linear, or a list of layer names such as [q_proj,v_proj]"


def _prompt(config: Any) -> Iterator[str]:
    if config.prompt.steps:
        yield f"prompt={config.prompt.name} asks for steps before the label, and no data set has them: tune with prompt=direct"
    yield from human_labels(config, "tuning", "; llm.adapter=RUN_FOLDER uses a tuned model")
