"""A job's configuration, read from its run folder: typed as before, whichever version wrote it."""

from enum import Enum
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from findistill.config.compose import plain
from findistill.config.restore import as_yaml, read_config
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


def test_what_is_written_is_read_again_with_its_type(tmp_path: Path) -> None:
    strings = ["1e3", "1e-5", ".5", "1_000", "0x1F", "010", "12:30:00", "2026-01-01", "yes", "null", "~", "nan", ".inf", "", " "]
    strings += ["=", "<<", "- a", "a: b", "#", *"*&!%@`{['", '"', "é €", "two\nlines\n", "x" * 300]
    others = [1, -1.5, 1e-5, 1e30, float("inf"), True, None, [], {}]
    values = {"strings": strings, "others": others, "nested": {"a": {"b": [{"c": "1"}]}}}
    path = tmp_path / "config.yaml"
    path.write_text(as_yaml(values), encoding="utf-8")
    read = OmegaConf.to_container(OmegaConf.load(path))
    assert read == values == OmegaConf.to_container(read_config(path))
    assert [type(each) for each in read["others"]] == [type(each) for each in others]  # type: ignore[call-overload, index]


def test_paths_and_choices_of_packages_are_written_as_strings() -> None:
    side = Enum("side", ["SHORT", "LONG"])
    assert as_yaml({"backtest": {"folder": Path("a/b"), "side": side.LONG}}) == "backtest:\n  folder: a/b\n  side: LONG\n"
