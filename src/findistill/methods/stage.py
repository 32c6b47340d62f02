"""What every stage is: the last step of a job's graph, declared in `conf/stage/<name>.yaml`."""

from collections.abc import Mapping
from typing import Any

from findistill.config.expand import expand
from findistill.config.instantiate import resolve
from findistill.config.validate import validate
from findistill.core.step import Step


class Stage(Step):
    """One verb of the pipeline. Its artifact is the job's run folder.

    What it reads itself, besides what its ancestors read, stands in its YAML file (`stage.reads`).

    Attributes:
        preview: `package.module:function`, called as `function(job)` instead of running where `previews()` says so.
        of_study: it works on a whole study, not in a run folder of its own.
        afterwards: `package.module:function`, called as `function(config, folder, overrides)` behind every command whose job is
            done, now or before, where `acts_afterwards()`: an effect outside the run folder, such as an upload.
    """

    version = 4  # min_steps is met by more epochs, not by whole passes in each
    preview: str | None = None
    of_study: bool = False
    afterwards: str | None = None

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.name = config.stage.name
        self.reads = tuple(config.stage.reads)

    def previews(self) -> bool:
        """Whether the settings ask for a preview: what the job would do, without doing it."""
        annotate = self._config.annotate
        return self.preview is not None and bool(annotate.dry_run or annotate.show_prompt)

    def acts_afterwards(self) -> bool:
        """Whether the settings ask for what comes `afterwards`."""
        return False


def without(section: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """A section's settings without those that change no result, or enter the key in another way."""
    return {name: value for name, value in section.items() if name not in names}


def stage_of(config: Any) -> Stage:
    """The stage of a configuration, the last step of its graph. Settings in words are expanded (`config.expand`).

    Raises:
        UserError: a setting is refused.
    """
    expanded = expand(config)
    validate(expanded)
    return resolve(config.stage._target_, "stage._target_")(expanded)
