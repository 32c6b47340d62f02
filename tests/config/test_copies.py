"""Copies of configurations: equal to OmegaConf's own, independent where they may be changed, shared where they may not."""

import gc
import weakref
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml
from omegaconf import DictConfig, OmegaConf

from findistill.config import copies
from findistill.config.copies import ComposedConfig, Variants, copied, with_sections
from findistill.config.shared import share


@dataclass
class Data:
    path: Path = Path("a.csv")
    limit: int | None = None


@dataclass
class Student:
    seed: int = 0
    layers: list[int] = field(default_factory=lambda: [1, 2])


def configuration() -> DictConfig:
    config = OmegaConf.create({"seed": 3, "free": {"x": {"y": 1}}, "nothing": None})
    config.data = OmegaConf.structured(Data)
    config.student = OmegaConf.structured(Student)
    config.student.seed = "${seed}"
    OmegaConf.set_struct(config, True)
    return config


def set_values(config: DictConfig, overrides: Sequence[str]) -> None:
    for override in overrides:
        key, _, value = override.partition("=")
        OmegaConf.update(config, key, yaml.safe_load(value))


def test_a_copy_is_equal_typed_and_in_the_same_mode() -> None:
    config = configuration()
    variants = Variants(config, set_values)
    for copy in (copied(config), variants.copy(), variants.copy([("data", "data.limit=null")])):
        assert copy == config
        assert OmegaConf.to_yaml(copy) == OmegaConf.to_yaml(config)
        assert OmegaConf.get_type(copy.data) is Data
        with pytest.raises(Exception, match="unknown"):
            copy.unknown = 1


def test_values_of_one_variant_are_not_in_the_others() -> None:
    config = configuration()
    variants = Variants(config, set_values)
    values = ["data.limit=5", "free.x.y=2", "seed=4", "student.layers=[9]", "nothing=1"]
    one = variants.copy([(value.partition("=")[0].partition(".")[0], value) for value in values])
    assert (one.data.limit, one.free.x.y, one.seed, one.student.layers, one.nothing) == (5, 2, 4, [9], 1)
    assert variants.copy() == config == configuration()


def test_references_resolve_in_the_variant_itself() -> None:
    variants = Variants(configuration(), set_values)
    one = variants.copy([("seed", "seed=7")])
    assert (one.seed, one.student.seed) == (7, 7)
    assert variants.copy().student.seed == 3
    other = variants.copy([("data", "data.limit=${seed}"), ("seed", "seed=8")])  # a section that could be shared before
    assert other.data.limit == 8


def test_sections_without_references_are_shared_by_variants_with_the_same_values() -> None:
    variants = Variants(configuration(), set_values)
    five, also_five, six = (variants.copy([("data", f"data.limit={limit}"), ("seed", f"seed={seed}")])
                            for limit, seed in ((5, 1), (5, 2), (6, 1)))  # fmt: skip
    assert five.data is also_five.data and five.data is not six.data and six.data.limit == 6
    assert five.free is six.free is variants.copy().free
    assert five.student is not also_five.student  # it refers to `seed`


def test_few_sections_with_other_values_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copies, "SECTIONS", 2)
    variants = Variants(configuration(), set_values)
    sections = [weakref.ref(variants.copy([("data", f"data.limit={limit}")]).data) for limit in range(5)]
    gc.collect()
    assert [section() is not None for section in sections] == [False, False, False, True, True]


def test_a_copy_of_a_variant_belongs_to_itself() -> None:
    variants = Variants(configuration(), set_values)
    own = copied(variants.copy())
    own.data.limit = 5
    assert all(own._get_node(name)._get_parent() is own for name in own if own._get_node(name) is not None)
    assert variants.copy().data.limit is None


def test_new_sections_come_first_and_shared_ones_keep_their_parent() -> None:
    config, mine = configuration(), share(configuration().data)
    other = with_sections(config, {"more": OmegaConf.create({}), "data": mine})
    assert next(iter(other)) == "more" and other.data is mine and mine._get_parent() is not other
    assert other.more._get_parent() is other and "more" not in config


def test_deepcopy_of_a_composed_configuration_is_what_omegaconf_returns() -> None:
    plain, quick = configuration(), ComposedConfig.of(configuration())
    ComposedConfig.of(quick.free)
    variant = Variants(quick, set_values).copy([("seed", "seed=4")])
    for config in (quick, variant):
        copy, expected = deepcopy(config), deepcopy(plain)
        expected.seed = config.seed
        assert type(copy) is ComposedConfig and copy == expected and OmegaConf.to_yaml(copy) == OmegaConf.to_yaml(expected)
        assert OmegaConf.get_type(copy.data) is Data and copy.student.seed == config.seed
        copy.data.limit, copy.free.x.y = 5, 2
        assert config.data.limit is None and config.free.x.y == 1
    part = deepcopy(quick.free)
    assert part == quick.free and part is not quick.free and part._get_parent() is quick


def test_schemas_without_an_importable_name_are_copied_too() -> None:
    @dataclass
    class Local:
        x: int = 1

    config = OmegaConf.create({"section": OmegaConf.structured(Local)})
    for one in (copied(config), Variants(config, set_values).copy([("section", "section.x=2")])):
        one.section.x = 2
        assert OmegaConf.get_type(one.section) is Local and (config.section.x, one.section.x) == (1, 2)
