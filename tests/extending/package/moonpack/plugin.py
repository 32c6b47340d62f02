"""What findistill imports with every command: schemas and rules, nothing heavy."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from findistill.data.config import FileData
from findistill.plugins import register_schema, register_section, rule, setting


@dataclass
class MoonNews(FileData):
    phase: str = setting("full", choices=("new", "full"))


@dataclass
class Backtest:
    days: int = setting(20, ge=1)
    side: str = setting("long", choices=("long", "short", "both"))


@dataclass
class Lexicon:
    smoothing: float = setting(1.0, gt=0)  # added to every count of a word


register_schema("data", "moonnews", MoonNews)  # defaults: [base_moonnews, _self_]
register_section("backtest", Backtest)  # backtest.days=5
register_section("lexicon", Lexicon)


@rule("student")
def enough_days(config: Any) -> Iterator[str]:
    if config.backtest.side == "both" and config.backtest.days < 5:
        yield "backtest.side=both needs backtest.days=5 or more"
