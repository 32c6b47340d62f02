"""What annotation costs: token prices, and a budget."""

from dataclasses import dataclass

from findistill.llm.config import Price

CHARACTERS_A_TOKEN = 3  # of ASCII: fewer than any current tokenizer has on English text, so that reservations suffice
BYTES_A_TOKEN = 2  # of other scripts in UTF-8: an ideograph counts as one and a half tokens


def cost(price: Price, tokens_in: int, tokens_out: int, cached: int = 0) -> float | None:
    """US dollars for these prompt tokens, `cached` of them in the server's cache, and completion tokens; None: not known."""
    if price.per_million_in is None or price.per_million_out is None:
        return None
    per_million_cached = price.per_million_in if price.per_million_cached is None else price.per_million_cached
    prompt = (tokens_in - cached) * price.per_million_in + cached * per_million_cached
    return price.factor * (prompt + tokens_out * price.per_million_out) / 1e6


def token_bound(text: str) -> int:
    """Tokens of a text, overestimated without a tokenizer."""
    ascii_characters = len(text) if text.isascii() else sum(map(str.isascii, text))
    other_bytes = len(text.encode(errors="surrogatepass")) - ascii_characters
    return ascii_characters // CHARACTERS_A_TOKEN + other_bytes // BYTES_A_TOKEN + 1


@dataclass
class Budget:
    """US dollars: the limit, what is spent, and what is reserved for calls in flight."""

    limit: float | None
    spent: float = 0.0
    reserved: float = 0.0

    def allows(self, amount: float) -> bool:
        """Whether a call that costs at most `amount` may start now."""
        return self.limit is None or self.spent + self.reserved + amount <= self.limit
