"""What tuning needs of a GPU, for a plan: from the settings alone, without weights, data or a GPU."""

from findistill.core.store import Work
from findistill.data.labels import COMPANY, LabelSet
from findistill.errors import UserError
from findistill.llm import extraction, pricing
from findistill.llm.prompts import template
from findistill.models import memory
from findistill.training.processes import count_of

CARDS = (24, 80)  # GB of memory of usual GPUs
USUAL = LabelSet(("negative", "neutral", "positive"))  # where the rows' own labels are not read yet


def estimate(work: Work) -> str:
    """Memory a step takes on each device, and how many texts a step may have on usual GPUs, in one line.

    Prompts are counted as long as `max_text_tokens` lets them be, so those of headlines take less.
    """
    llm, qlora, trainer = work.config.llm, work.config.qlora, work.config.trainer
    try:
        model = memory.size(llm.model)
    except UserError:
        return "memory not known without the model's configuration"
    count = count_of(trainer)
    batch = -(-(getattr(trainer, "batch_size", None) or qlora.batch_size) // count)
    names_entities = "extract" in work.config
    form = extraction.template(work.config.extract, (COMPANY,)) if names_entities else template(work.config.prompt, USUAL)
    answer = extraction.LINE_TOKENS if names_entities else memory.LABEL
    length = min(llm.max_prompt_tokens, pricing.token_bound(form.plain([], "")) + form.max_text_tokens)
    # `auto` is about this machine, which plans for another where it has no GPU itself.
    dtype = "bfloat16" if llm.dtype == "auto" and trainer.accelerator == "gpu" else llm.dtype

    def needed(texts: int) -> memory.Memory:
        return memory.tuning(model, qlora, texts, length, dtype, answer)

    where = f" on each of {count} devices" if count > 1 else ""
    fitting = ", ".join(f"{card} GB hold {memory.largest(needed, card) or 'not one'}" for card in CARDS)
    return f"{needed(batch).text()}{where} for {batch} texts of up to {length} tokens ({fitting})"
