"""Parse the replies of chat servers, in any of their usual forms: text, tokens and compression."""

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from findistill.llm import answers
from findistill.llm.text import without_controls

COUNTS = range(10**7)  # plausible token counts of one call
MOST_CHOICES = 128  # per call, by OpenAI's API reference
MOST_TOKENS = 1 << 16  # log-probabilities per choice that are read
CUT = ("length", "max_tokens", "model_length", "MAX_TOKENS")  # finish reasons of a truncated choice


@dataclass(frozen=True)
class Answer:
    """One choice: its text, whether a limit cut it, why the model refused, and its tokens with log-probabilities."""

    text: str
    cut: bool = False
    refused: str = ""
    tokens: Sequence[tuple[str, float]] = ()


@dataclass(frozen=True)
class Usage:
    """Tokens of one call: of the prompt, of all completions, and how many of the prompt's the server had in a cache."""

    tokens_in: int
    tokens_out: int
    cached: int = 0


@dataclass(frozen=True)
class Reply:
    """A chat completion: its choices, at least one, and its usage."""

    choices: list[Answer]
    usage: Usage
    attempts: int
    seconds: float  # of all attempts, without the pauses between them
    estimated: bool = False  # whether the token counts are estimates


def read_choices(payload: Any) -> list[Answer] | None:
    """The choices of a completion; None if there are none, or one that has neither message nor text."""
    choices = payload.get("choices") if isinstance(payload, dict) else None
    if not isinstance(choices, list) or not choices:
        return None
    read = [_read(choice) for choice in choices[:MOST_CHOICES]]
    return None if None in read else read  # type: ignore[return-value]


def _read(choice: Any) -> Answer | None:
    if not isinstance(choice, dict):
        return None
    message = choice.get("message")
    if not isinstance(message, dict):
        if not isinstance(choice.get("text"), str):
            return None
        message = {"content": choice["text"]}  # of the older completions protocol
    text = _text(message.get("content"))
    if not text.strip():
        text = _arguments(message)
    if not text.strip():  # reasoning without an answer is not an answer, but worth showing
        thinking = _text(message.get("reasoning_content")) or _text(message.get("reasoning")) or _thinking(message.get("content"))
        text = f"<think>{thinking}" if thinking else ""
    finish, failure = choice.get("finish_reason"), choice.get("error")
    refused = _text(message.get("refusal")) if not text.strip() else ""
    if finish == "content_filter" or (failure and not text.strip()):
        refused = refused or (str(failure)[:1000] if failure else "content_filter")
    short = without_controls(text[: answers.LONGEST + 1])
    cut = finish in CUT or len(text) > answers.LONGEST
    return Answer(short[: answers.LONGEST], cut, without_controls(refused), _log_probabilities(choice))


def _text(content: Any) -> str:
    """The text of a message's content: a string, a list of parts, or an object that the server has already parsed."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "".join(_part(each) for each in content[: answers.LONGEST])
    if isinstance(content, dict):
        if isinstance(content.get("text"), str):
            return str(content["text"])
        try:
            return json.dumps(content, ensure_ascii=False)
        except (ValueError, RecursionError):
            return ""
    return ""


def _part(part: Any) -> str:
    if not isinstance(part, dict):
        return part if isinstance(part, str) else ""
    text = part.get("text") if part.get("type", "text") in ("text", "output_text") else ""
    text = text.get("value") if isinstance(text, dict) else text
    return text if isinstance(text, str) else ""


def _thinking(content: Any) -> str:
    """Reasoning that is part of the content."""
    parts = content if isinstance(content, list) else []
    return "".join(_text(each.get("thinking")) for each in parts if isinstance(each, dict))


def _arguments(message: Mapping[str, Any]) -> str:
    """The arguments of the model's first tool call."""
    calls = message.get("tool_calls")
    call = calls[0].get("function") if isinstance(calls, list) and calls and isinstance(calls[0], dict) else None
    call = call or message.get("function_call")
    return _text(call.get("arguments")) if isinstance(call, dict) else ""


def _log_probabilities(choice: Mapping[str, Any]) -> list[tuple[str, float]]:
    """The tokens of a choice with their log-probabilities; empty if there are none, or not in the protocol's form."""
    try:
        return [(str(each["token"]), float(each["logprob"])) for each in choice["logprobs"]["content"][:MOST_TOKENS]]
    except (TypeError, KeyError, ValueError, OverflowError):
        return []


def usage(payload: Mapping[str, Any]) -> Usage | None:
    """The server's token counts; None if there are none, or implausible ones."""
    counts = payload.get("usage")
    counts = counts if isinstance(counts, dict) else {}
    tokens_in, tokens_out = (counts.get(name) for name in ("prompt_tokens", "completion_tokens"))
    if type(tokens_in) is int and type(tokens_out) is int and tokens_in in COUNTS and tokens_out in COUNTS and tokens_in:
        return Usage(tokens_in, tokens_out, min(_cached(counts, payload), tokens_in))
    return None


def _cached(counts: Mapping[str, Any], payload: Mapping[str, Any]) -> int:
    """Prompt tokens that the server had in its cache, wherever it reports them; 0 if it does not."""
    places = [counts.get(name) for name in ("prompt_tokens_details", "input_tokens_details")]  # OpenAI, vLLM, Gemini, OpenRouter
    places += [counts, payload.get("timings")]  # DeepSeek and Moonshot; Anthropic's; llama.cpp
    names = ("cached_tokens", "prompt_cache_hit_tokens", "cache_read_input_tokens", "num_cached_tokens", "cache_n")
    numbers = (place.get(name) for place in places if isinstance(place, dict) for name in names)
    return next((number for number in numbers if type(number) is int and number in COUNTS), 0)


def unpacked(body: bytes, encoding: str, most: int) -> bytes:
    """A body decompressed according to its content encoding, up to `most` + 1 bytes.

    Raises:
        ValueError: its encoding is unknown or not the one named, or it is truncated.
    """
    for name in reversed([each.strip() for each in encoding.lower().split(",") if each.strip() not in ("", "identity")]):
        if name not in ("gzip", "x-gzip", "deflate"):
            raise ValueError(f"is compressed as {name[:20]}, which was not requested")
        raw = name == "deflate" and body[:1] != b"\x78"
        unpack = zlib.decompressobj(-zlib.MAX_WBITS if raw else zlib.MAX_WBITS | 32)
        try:
            body = unpack.decompress(body, most + 1)
        except zlib.error as error:
            raise ValueError(f"is not valid {name}: {error}") from None
        if not unpack.eof and len(body) <= most:
            raise ValueError(f"is truncated {name}")
    return body
