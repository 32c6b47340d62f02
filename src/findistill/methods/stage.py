"""The base class of stages: the last step of a job's graph, declared in `conf/stage/<name>.yaml`."""

from collections.abc import Mapping
from typing import Any

from findistill.config.expand import expand
from findistill.config.instantiate import resolve
from findistill.config.validate import validate
from findistill.core.step import Step


class Stage(Step):
    """One operation of the pipeline. Its artifact is the job's run folder.

    The settings that it reads itself, besides those of its ancestors, are listed in its YAML file (`stage.reads`).

    Attributes:
        preview: `package.module:function`, called as `function(job)` instead of running if `previews()`.
        of_study: it works on an entire study, and has no run folder.
        afterwards: `package.module:function`, called as `function(config, folder, overrides)` after every command whose job is
            done, now or earlier, if `acts_afterwards()`: an effect outside the run folder, such as an upload.
    """

    version = 4  # min_steps may add epochs, not only passes within each
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
        """Whether the settings ask for the `afterwards` function."""
        return False


def without(section: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """A section's settings without `names`, which do not affect the result or enter the key in another way."""
    return {name: value for name, value in section.items() if name not in names}


def stage_of(config: Any) -> Stage:
    """The stage of a configuration, the last step of its graph. Short forms of settings are expanded (`config.expand`).

    Raises:
        UserError: a setting is invalid.
    """
    expanded = expand(config)
    validate(expanded)
    return resolve(config.stage._target_, "stage._target_")(expanded)
