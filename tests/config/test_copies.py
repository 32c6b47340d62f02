"""Copies of configurations: equal to OmegaConf's own, independent where they may be changed, shared where they may not."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from findistill.config.copies import Variants, copied, with_own


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


def test_a_copy_is_equal_typed_and_in_the_same_mode() -> None:
    config = configuration()
    for copy in (
        copied(config),
        Variants(config).copy([]),
        Variants(config).copy(["data", "absent"]),
        with_own(config, ["data"]),
    ):
        assert copy == config
        assert OmegaConf.to_yaml(copy) == OmegaConf.to_yaml(config)
        assert OmegaConf.get_type(copy.data) is Data
        with pytest.raises(Exception, match="unknown"):
            copy.unknown = 1


def test_what_is_changed_in_a_variant_is_not_changed_in_the_others() -> None:
    config = configuration()
    variants = Variants(config)
    one = variants.copy(["data", "free"])
    one.data.limit, one.free.x.y, one.seed, one.student.layers[0] = 5, 2, 4, 9
    assert variants.copy(["data", "free"]) == config == configuration()


def test_references_resolve_in_the_variant_itself() -> None:
    variants = Variants(configuration())
    one = variants.copy([])
    one.seed = 7
    assert one.student.seed == 7
    assert variants.copy([]).student.seed == 3


def test_unchanged_sections_without_references_are_shared() -> None:
    variants = Variants(configuration(), own=["free"])
    one, other = variants.copy(["data"]), variants.copy([])
    assert other.data is variants.copy([]).data
    assert one.data is not other.data  # it may be changed
    assert one.free is not other.free  # each has its own
    assert one.student is not other.student  # it refers to `seed`


def test_a_copy_of_a_variant_belongs_to_itself() -> None:
    own = copied(Variants(configuration()).copy([]))
    own.data.limit = 5
    assert all(own._get_node(name)._get_parent() is own for name in own if own._get_node(name) is not None)
    assert Variants(configuration()).copy([]).data.limit is None


def test_schemas_without_an_importable_name_are_copied_too() -> None:
    @dataclass
    class Local:
        x: int = 1

    config = OmegaConf.create({"section": OmegaConf.structured(Local)})
    for one in (copied(config), Variants(config).copy(["section"])):
        one.section.x = 2
        assert OmegaConf.get_type(one.section) is Local and (config.section.x, one.section.x) == (1, 2)
