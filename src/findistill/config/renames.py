"""Renamed settings: the old name is refused with a message that gives the new one."""

from findistill.errors import UserError

RENAMED = {
    "data.pool": "data.labelled",
    "distill.pool": "distill.unlabelled",
    "distill.votes": "distill.source",
    "annotate.members": "annotate.ensemble",
    "shots.order": "shots.order_seed",
    "logger.mode": "logger.wandb.mode",
    "logger.project": "logger.wandb.project",
    "logger.table_rows": "logger.wandb.table_rows",
    "trainer.gradient_clip": "trainer.gradient_clip_val",
    "trainer.accumulate": "trainer.accumulate_grad_batches",
}


def rename_message(key: str, value: str = "") -> str:
    """A message if `key`, or a section that contains it, was renamed; else empty."""
    for old, new in RENAMED.items():
        if key == old or key.startswith(f"{old}."):
            now = new + key.removeprefix(old)
            return f"{key} is now {now}" + (f": {now}={value}" if value else "")
    return ""


def refuse_renamed(overrides: "list[str]") -> None:
    """Refuse overrides that use an old name: `data.pool=2000`, `+data.pool=2000`, `~data.pool`.

    Raises:
        UserError: an override does.
    """
    for override in overrides:
        key, _, value = override.lstrip("+~").partition("=")
        if message := rename_message(key.partition("@")[2].partition(":")[0] or key, value):
            raise UserError(message)
