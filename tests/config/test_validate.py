"""The generic validator: a field's constraints are checked wherever the field is, and errors name a remedy."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest
from omegaconf import MISSING, OmegaConf

from findistill.config import validate as validation
from findistill.config.fields import declares, setting
from findistill.config.validate import rule, validate, wrong_value
from findistill.errors import UserError


@dataclass
class Inner:
    share: float = setting(0.5, gt=0, lt=1, meaning="a share")
    rows: int = setting(1, ge=1)
    rate: float = setting(1.0, gt=0)


@dataclass
class Stage:
    name: str = "testing"


@dataclass
class Root:
    is_open: ClassVar[bool] = True

    stage: Stage = field(default_factory=Stage)
    how: str = setting("fast", choices=("fast", "slow"))
    kinds: list[str] = setting(["a"], choices=("a", "b"), distinct=True)
    threads: list[int] = setting([1, 2], ge=1, distinct=True)
    inner: Inner = field(default_factory=Inner)
    parts: dict[str, Inner] = field(default_factory=dict)
    listed: list[Inner] = field(default_factory=list)
    late: int = setting(MISSING, ge=1)
    anything: Any = None

    @property
    def has_parts(self) -> bool:
        return len(self.parts) > 0


@pytest.fixture(autouse=True)
def own_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validation, "_rules", {})

    @rule("testing")
    def no_slow_b(config: Any) -> Iterator[str]:
        if config.how == "slow" and "b" in config.kinds:
            yield "how=slow and kinds=[b] do not go together"


def configured(**values: Any) -> Any:
    return OmegaConf.merge(OmegaConf.structured(Root), values)


def test_what_is_allowed_passes_and_what_is_not_set_is_not_checked() -> None:
    validate(configured(how="slow", kinds=["a"], parts={"x": {"rows": 3}}, listed=[{"share": 0.1}], anything={"share": 7}))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"how": "slwo"}, "how=slwo: choose one of fast, slow (did you mean slow?)"),
        ({"kinds": ["a", "c"]}, "kinds=[a,c]: choose one or more of a, b, each once"),
        ({"kinds": []}, "kinds=[]: choose one or more of a, b, each once"),
        ({"threads": [1, 1]}, "threads=[1,1]: give one or more values, each once"),
        ({"threads": [1, 0]}, "threads=[1,0] must be at least 1"),
        ({"inner": {"share": 1}}, "inner.share=1.0 is not a share: above 0, below 1"),
        ({"inner": {"rate": float("inf")}}, "inner.rate=inf must be finite"),
        ({"inner": {"share": float("nan")}}, "inner.share=nan is not a share: above 0, below 1"),
        ({"parts": {"x": {"rows": 0}}}, "parts.x.rows=0 must be at least 1"),
        ({"listed": [{"rows": 1}, {"rows": 0}]}, "listed.1.rows=0 must be at least 1"),
        ({"how": "slow", "kinds": ["b"]}, "how=slow and kinds=[b] do not go together"),
    ],
)
def test_a_value_is_checked_wherever_its_field_stands(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        validate(configured(**values))
    assert str(error.value) == message


def test_rules_hold_for_their_stages_and_come_after_the_values() -> None:
    validate(configured(how="slow", kinds=["b"], stage={"name": "other"}))
    with pytest.raises(UserError) as error:
        validate(configured(how="slow", kinds=["b"], inner={"rows": 0}))
    assert str(error.value) == "inner.rows=0 must be at least 1"


def test_three_mistakes_at_most_are_named() -> None:
    with pytest.raises(UserError) as error:
        validate(configured(how="x", kinds=["c"], threads=[0], inner={"rows": 0}))
    assert len(str(error.value).splitlines()) == 3


def test_only_the_bound_that_is_broken_is_worded() -> None:
    limits = Root.__dataclass_fields__["threads"].metadata["findistill"]
    assert wrong_value("threads", [2], limits) == "" and "at least 1" in wrong_value("threads", [0], limits)


def test_a_schema_declares_what_its_sections_are() -> None:
    assert declares(configured(), "is_open") and not declares(configured(), "has_parts")
    assert declares(configured(parts={"x": {}}), "has_parts")
    with pytest.raises(AttributeError):
        declares(configured(), "is_nothing")


@dataclass
class Passing:
    further_keys: ClassVar[bool] = True  # passed through to code that checks them

    own: int = setting(1, ge=1)


def test_a_schema_may_take_further_keys() -> None:
    for schema, refused in ((Passing, False), (Inner, True)):
        config = OmegaConf.merge(OmegaConf.structured(Root), {"anything": OmegaConf.structured(schema)})
        OmegaConf.update(config, "anything.another", 3, force_add=True)
        if refused:
            with pytest.raises(UserError, match=r"anything\.another: no such setting"):
                validate(config)
        else:
            validate(config)
