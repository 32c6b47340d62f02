"""GPU memory that tuning needs, estimated for a plan from the settings alone, without weights, data or a GPU."""

from findistill.core.store import Work
from findistill.data.labels import COMPANY, LabelSet
from findistill.errors import UserError
from findistill.llm import extraction, pricing
from findistill.llm.prompts import template
from findistill.models import memory
from findistill.training.processes import count_of

CARDS = (24, 80)  # GB of memory of common GPUs
USUAL = LabelSet(("negative", "neutral", "positive"))  # while the rows' own labels are not read yet


def estimate(work: Work) -> str:
    """Memory of a training step per device, and the largest batch on common GPUs, in one line.

    Prompts are assumed as long as `max_text_tokens` allows, so those of headlines need less.
    """
    llm, qlora, trainer = work.config.llm, work.config.qlora, work.config.trainer
    try:
        model = memory.size(llm.model)
    except UserError:
        return "memory unknown: it needs the model's configuration"
    count = count_of(trainer)
    batch = -(-(getattr(trainer, "batch_size", None) or qlora.batch_size) // count)
    names_entities = "extract" in work.config
    form = extraction.template(work.config.extract, (COMPANY,)) if names_entities else template(work.config.prompt, USUAL)
    answer = extraction.LINE_TOKENS if names_entities else memory.LABEL
    length = min(llm.max_prompt_tokens, pricing.token_bound(form.plain([], "")) + form.max_text_tokens)
    # `auto` resolves for this machine, which may plan for one with a GPU without having one.
    dtype = "bfloat16" if llm.dtype == "auto" and trainer.accelerator == "gpu" else llm.dtype

    def needed(texts: int) -> memory.Memory:
        return memory.tuning(model, qlora, texts, length, dtype, answer)

    where = f" on each of {count} devices" if count > 1 else ""
    fitting = ", ".join(f"{card} GB fit {memory.largest(needed, card) or 'none'}" for card in CARDS)
    return f"{needed(batch).text()}{where} for {batch} texts of up to {length} tokens ({fitting})"
