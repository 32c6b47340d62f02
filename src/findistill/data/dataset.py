"""The first step of every graph: a data set, read, cleaned and split."""

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf, read_write

from findistill.config.copies import copied
from findistill.config.fields import result_settings
from findistill.core.step import Step
from findistill.data.locations import files_under, local_files
from findistill.data.user_files import by_text


class Dataset(Step):
    """The texts of one `data` section. The key depends on the content of its files, not on their location."""

    name = "data"
    implementation = "findistill.data.loading:store"
    cheap = True
    version = 3  # near-duplicates of test rows are counted; more of a text counts in comparisons

    def __init__(self, section: Any) -> None:
        super().__init__(None)
        self.section = section

    @cached_property
    def config(self) -> Any:
        return _detached(self.section)

    def files(self) -> Iterable[Path]:
        return [*local_files(self.section), *([Path(self.section.reviewed).expanduser()] if self.section.reviewed else [])]

    def settings(self) -> dict[str, Any]:
        settings = {name: value for name, value in result_settings(self.section).items() if name not in ("path", "reviewed")}
        if settings.get("label_map"):
            settings["label_map"] = by_text(settings["label_map"])
        path = Path(getattr(self.section, "path", None) or __file__).expanduser()
        if path.is_dir():  # names of folders may be a file's split or a column's value
            settings["folder"] = [file.relative_to(path).as_posix() for file in files_under(path)]
        if local_files(self.section):  # then the hub is not used
            settings |= {"hub_id": None, "hub_revision": None}
        return settings


def _detached(section: Any) -> Any:
    """A copy of a section whose references to other settings (`data.labelled_seed=${seed}`) are replaced by their values."""
    if not OmegaConf.is_config(section):
        return section
    own = copied(section)
    with read_write(own):
        OmegaConf.resolve(own)
    return own
