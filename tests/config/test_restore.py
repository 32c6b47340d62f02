"""A job's configuration, read from its run folder: typed as before, whichever version wrote it."""

from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from findistill.config.compose import plain
from findistill.config.restore import read_config
from tests.fixtures.composing import composed


def write_config(folder: Path, *overrides: str, without: str = "") -> Path:
    config: Any = plain(composed(*overrides))
    if without:
        section, _, name = without.partition(".")
        del config[section][name]
    path = folder / "config.yaml"
    path.write_text(OmegaConf.to_yaml(OmegaConf.create(config)))
    return path


@pytest.mark.parametrize("distill", ["cls", "gold", "logit"])
def test_a_section_has_its_type_again(distill: str, tmp_path: Path) -> None:
    config = composed(f"distill={distill}", "+trainer.limit_train_batches=2")
    again = read_config(write_config(tmp_path, f"distill={distill}", "+trainer.limit_train_batches=2"))
    for name in ("distill", "trainer", "llm", "data"):
        assert OmegaConf.get_type(again[name]) == OmegaConf.get_type(config[name]), name
    assert plain(again) == plain(config)


@pytest.mark.parametrize(
    ("distill", "later", "default"),
    [("gold", "distill.linear_teachers", []), ("logit", "distill.linear_teachers", []), ("cls", "distill.gold", False),
     ("cls", "trainer.layer_decay", 1.0)],
)  # fmt: skip
def test_a_setting_that_came_later_has_its_default(distill: str, later: str, default: Any, tmp_path: Path) -> None:
    """A report reads the jobs of studies that an earlier version started."""
    config = read_config(write_config(tmp_path, f"distill={distill}", "+trainer.limit_train_batches=2", without=later))
    assert OmegaConf.get_type(config.distill) == OmegaConf.get_type(composed(f"distill={distill}").distill)
    assert OmegaConf.select(config, later) == default and config.trainer.limit_train_batches == 2
