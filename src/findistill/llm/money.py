"""What annotation costs: prices of tokens, and an estimate before anything is asked."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from findistill.settings.schema import Price

CHARACTERS_A_TOKEN = 3  # fewer than any tokenizer in use has on English text, so that what is set aside suffices


def known(price: "Price") -> bool:
    return price.per_million_in is not None and price.per_million_out is not None


def cost(price: "Price", tokens_in: int, tokens_out: int) -> float | None:
    """US dollars for so many tokens read and written; None where the price is not known."""
    if price.per_million_in is None or price.per_million_out is None:
        return None
    return (tokens_in * price.per_million_in + tokens_out * price.per_million_out) / 1e6


@dataclass
class Budget:
    """US dollars that may be spent, what was spent, and what the calls in flight may still cost at most."""

    limit: float | None
    spent: float = 0.0
    set_aside: float = 0.0

    def allows(self, most: float) -> bool:
        """Whether a call that costs at most `most` may start now."""
        return self.limit is None or self.spent + self.set_aside + most <= self.limit


def at_most(price: "Price", characters: int, tokens_out: int) -> float:
    """US dollars that a call with a prompt of so many characters can cost."""
    return cost(price, characters // CHARACTERS_A_TOKEN + 1, tokens_out) or 0.0
