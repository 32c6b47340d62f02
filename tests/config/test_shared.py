"""Results for sections that configurations share: computed once, gone with the section, never those of another."""

import gc
from typing import Any

from omegaconf import DictConfig, OmegaConf

from findistill.config import shared
from findistill.config.shared import is_shared, once, share

calls = list[tuple[Any, ...]]()


@once
def described(section: Any, key: str, *, further: int = 0) -> str:
    calls.append((section, key, further))
    return f"{key}={section.x + further}"


@once
def doubled(section: Any) -> Any:
    return OmegaConf.create({"x": section.x * 2})


def test_a_result_for_a_shared_section_is_computed_once_for_each_argument() -> None:
    calls.clear()
    section = share(OmegaConf.create({"x": 1}))
    assert [described(section, key) for key in ("a", "b", "a")] == ["a=1", "b=1", "a=1"]
    assert described(section, "a", further=2) == "a=3" and len(calls) == 3


def test_a_section_that_is_not_shared_is_read_again() -> None:
    section = OmegaConf.create({"x": 1})
    assert described(section, "a") == "a=1"
    section.x = 2
    assert described(section, "a") == "a=2"


def test_a_section_made_of_a_shared_one_is_shared() -> None:
    section = share(OmegaConf.create({"x": 1}))
    assert is_shared(doubled(section)) and doubled(section) is doubled(section)
    assert not is_shared(doubled(OmegaConf.create({"x": 1})))


def test_results_are_forgotten_with_their_section() -> None:
    for _ in range(2):
        gc.collect()
    before = len(shared._results)
    for x in range(50):  # Python uses the addresses of deleted sections again
        assert doubled(share(OmegaConf.create({"x": x}))).x == 2 * x
    for _ in range(2):  # what was made of them can only be collected after them
        gc.collect()
    assert len(shared._results) <= before


def test_an_error_is_raised_again() -> None:
    section: DictConfig = share(OmegaConf.create({"y": 1}))
    for _ in range(2):
        try:
            described(section, "a")
        except AttributeError:
            continue
        raise AssertionError("the section has no x")
