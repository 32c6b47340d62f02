"""Numbers as the report's sentences and tables word them."""

from typing import TYPE_CHECKING

from findistill.analysis.intervals import Estimate, Paired

if TYPE_CHECKING:
    from findistill.analysis.comparisons import Comparison


def value(one: Estimate) -> str:
    """`0.712 ± 0.004 [0.70, 0.73]`; without the ± for one seed."""
    sd = f" ± {one.sd:.3f}" if one.sd is not None else ""
    return f"{one.mean:.3f}{sd} [{one.low:.2f}, {one.high:.2f}]"


def chosen(fair: bool) -> str:
    """On what the best of several methods was chosen; `fair` as `comparisons.best` says it."""
    if fair:
        return "“Best” was chosen by macro F1 on the validation split; the test split had no say."
    return "“Best” was chosen on the test split, as some runs have no val/macro_f1: that flatters the chosen ones."


def points(difference: float, *, sign: bool = True, unit: str = " points") -> str:
    """A difference of shares in points of a hundred: `+1.2 points`."""
    text = f"{100 * difference:+.1f}" if sign else f"{100 * difference:.1f}"
    return text.replace("-", "−") + unit


def difference(gap: Paired) -> str:
    """`+1.2 [−0.1, +2.4]`, in points."""
    low, high = points(gap.low, unit=""), points(gap.high, unit="")
    return f"{points(gap.difference, unit='')} [{low}, {high}]"


def amount(dollars: float) -> str:
    """US dollars, or any quantity that may be tiny or large: `1,234.50`, `0.00092`."""
    return f"{dollars:,.2f}" if abs(dollars) >= 0.1 else f"{dollars:.2g}"


def p_value(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def p_is(p: float) -> str:
    """`p = 0.041`, `p < 0.001`."""
    return "p " + (p_value(p) if p < 0.001 else f"= {p_value(p)}")


def against(test: "Comparison") -> str:
    """`REG ≥5 against CLS ≥5: +1.2 [−0.1, +2.4] points of accuracy, p = 0.041.`"""
    return f"{test.a} against {test.b}: {difference(test.accuracy)} points of accuracy, {p_is(test.p_holm)}."
