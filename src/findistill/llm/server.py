"""One chat server over HTTP: retries, adaptive concurrency and a circuit breaker.

A transient failure (a cut connection, a time-out, 408, 409, 425, 429, 5xx, half a reply) is retried after an exponential
back-off with full jitter, or when the server says (Retry-After). A rate limit (429) halves the calls in flight, and replies
raise them again, by one a round (additive increase, multiplicative decrease: Chiu and Jain 1989). A server that fails call
after call is tried by single calls only, with longer and longer pauses, until it replies or `give_up_s` are over.
"""

import asyncio
import json
import logging
import os
import random
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp

from findistill.config.fields import masked_address
from findistill.errors import UserError
from findistill.llm.config import EndpointLLM
from findistill.llm.pricing import CHARACTERS_A_TOKEN
from findistill.llm.text import one_line, read_json

log = logging.getLogger(__name__)

OPENAI = "https://api.openai.com/v1"
FIRST_PAUSE_S = 0.5  # doubled with every further failure
LONGEST_PAUSE_S = 30.0
LONGEST_RETRY_AFTER_S = 120.0
HALVE_EVERY_S = 1.0  # the calls of one round all meet the same limit: it counts once
FAILURES_IN_A_ROW = 16  # at least, and never fewer than the calls in flight, before the server counts as down
LONGEST_BODY = 32 << 20  # bytes
COUNTS = range(10**7)  # tokens of one call that a server may count
TRANSIENT = {408, 409, 425, 429}
RESUME = "All responses so far are cached; run the same command again to go on."


class CallError(Exception):
    """A call without a usable reply; with what its attempts took."""

    attempts = 1
    seconds = 0.0  # of all attempts


class RefusedError(CallError):
    """The server does not take this call, however often it is made."""


class FailedError(CallError):
    """No usable reply; the next attempt may get one. `after`: seconds to wait, if the server says; `busy`: it limits the rate."""

    def __init__(self, reason: str, after: float | None = None, busy: bool = False) -> None:
        super().__init__(reason)
        self.after, self.busy = after, busy


@dataclass(frozen=True)
class Reply:
    """A chat completion: its choices as the server sent them, at least one, and what it took."""

    choices: list[dict[str, Any]]
    tokens_in: int
    tokens_out: int
    attempts: int
    seconds: float  # of all attempts, without the pauses between them


class Server:
    """A server for the time of a run: `async with Server(...) as server: reply = await server.ask(body)`.

    The key goes into the session's header and nowhere else; it is masked in whatever the server sends. An address with
    `user:password@` is called with these instead. Proxies are taken from the environment.

    Args:
        settings: the `llm` section: the address, where its key is, and how long calls may take and fail.
        concurrency: calls in flight at most.

    Raises:
        UserError: the variable of the key is not set or holds what cannot be a key, or the address is none.
    """

    def __init__(self, settings: EndpointLLM, concurrency: int) -> None:
        self.settings = settings
        self.base_url = (settings.base_url or OPENAI).rstrip("/")
        self.address = masked_address(self.base_url)  # for messages: without a password
        self.concurrency = concurrency
        self._key = api_key(settings.api_key_env)
        self._reached = False  # it has sent an HTTP response of whatever status
        self._in_flight = 0
        self._limit = float(self.concurrency)
        self._halved_at = float("-inf")
        self._paused_until = 0.0
        self._failing_since: float | None = None
        self._failures = 0  # in a row
        self._down = False
        self._trials = 0
        self._estimated = False  # token counts
        password = unquote(urlsplit(self.base_url).password or "")
        self._secrets = [each for each in (self._key, password) if len(each) > 3]  # a shorter one would tear holes into words

    async def __aenter__(self) -> "Server":
        parts = urlsplit(self.base_url)
        self._freed = asyncio.Event()
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self.concurrency),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"Content-Type": "application/json"} | ({} if parts.username else {"Authorization": f"Bearer {self._key}"}),
            timeout=aiohttp.ClientTimeout(total=self.settings.timeout_s, sock_connect=min(self.settings.timeout_s, 30.0)),
            # Not `trust_env`: it looks the proxy up in a thread for every call, and a ~/.netrc entry collides with the key.
            proxy=None if proxy_bypass(parts.hostname or "") else getproxies().get(parts.scheme),
            trust_env=False,
        )
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._session.close()

    async def ask(self, body: Mapping[str, Any]) -> Reply:
        """The server's reply to one request for a chat completion.

        Raises:
            RefusedError: the server does not take it (400, 422 and the like).
            FailedError: no usable reply in `max_retries` + 1 attempts.
            UserError: no call can succeed: the key, the address or the model is wrong, or the server is down for good.
        """
        data = json.dumps(body).encode()
        clock = time.perf_counter  # the loop's own counts whole milliseconds
        failures = attempts = 0
        seconds = 0.0
        while True:
            await self._slot()
            attempts += 1
            started = clock()
            try:
                payload = await self._post(data)
                self._record_success()
                choices = payload["choices"]
                tokens_in, tokens_out = self._tokens(body, choices, payload.get("usage"))
                return Reply(choices, tokens_in, tokens_out, attempts, seconds + clock() - started)
            except CallError as error:
                seconds += clock() - started
                error.attempts, error.seconds = attempts, seconds
                if not isinstance(error, FailedError):
                    self._record_success()  # it is up
                    raise
                pause = self._record_failure(error, failures)
                failures += not self._down  # calls wait for the end of an outage, and none of them fails by it
                if failures > self.settings.max_retries:
                    raise
            finally:
                self._in_flight -= 1
                self._freed.set()
            await asyncio.sleep(pause)

    def _tokens(self, body: Mapping[str, Any], choices: list[dict[str, Any]], usage: Any) -> tuple[int, int]:
        """Prompt and completion tokens as the server counts them; estimated high from the texts where it counts none."""
        usage = usage if isinstance(usage, dict) else {}
        tokens_in, tokens_out = (usage.get(name, -1) for name in ("prompt_tokens", "completion_tokens"))
        if isinstance(tokens_in, int) and isinstance(tokens_out, int) and tokens_in in COUNTS and tokens_out in COUNTS:
            return tokens_in, tokens_out
        if not self._estimated:
            self._estimated = True
            log.warning("%s counts no tokens (usage): tokens and cost are estimated from the texts", self.address)
        return _estimate([m.get("content") for m in body["messages"]]), _estimate([c["message"].get("content") for c in choices])

    # -- pace --------------------------------------------------------------------------------------------------------

    async def _slot(self) -> None:
        """Wait until another call may be sent, and count it as in flight."""
        while True:
            pause = self._paused_until - asyncio.get_running_loop().time()
            if pause > 0:
                await asyncio.sleep(pause)
            elif self._in_flight < (1 if self._down else int(self._limit)):
                self._in_flight += 1
                return
            else:
                self._freed.clear()
                await self._freed.wait()

    def _record_success(self) -> None:
        self._failures, self._failing_since = 0, None
        if self._down:
            self._down = False
            log.info("%s replies again", self.address)
        if self._limit < self.concurrency:
            self._limit = min(self._limit + 1 / self._limit, self.concurrency)

    def _record_failure(self, failure: FailedError, failures: int) -> float:
        """Adapt the pace to a failure; returns the seconds until its call may wait for a slot again."""
        now = asyncio.get_running_loop().time()
        if self._failing_since is None:
            self._failing_since = now
        if now - self._failing_since > self.settings.give_up_s:
            raise UserError(
                f"llm.base_url={self.address}: no reply for {self.settings.give_up_s:g} s (llm.give_up_s), the last failure: "
                f"{failure}\n{RESUME}"
            ) from None
        if failure.busy:
            if now - self._halved_at >= HALVE_EVERY_S:
                first = self._halved_at == float("-inf")
                self._halved_at, self._limit = now, max(1.0, self._limit / 2)
                # Only once: from here on the limit goes up and down around what the server allows.
                log.log(logging.INFO if first else logging.DEBUG, "%s limits the rate (429): calls in flight go down to %d",
                        self.address, self._limit)  # fmt: skip
            if failure.after is not None:
                self._paused_until = max(self._paused_until, now + failure.after)
        else:
            self._failures += 1
            if not self._down and self._failures >= max(FAILURES_IN_A_ROW, self.concurrency):
                self._down, self._trials = True, 0
                log.warning("%s fails call after call (%s): pausing, and trying again with single calls", self.address, failure)
            if self._down:
                if now >= self._paused_until:  # else the call was in flight already when the pause began
                    self._paused_until = now + (failure.after or _back_off(self._trials))
                    self._trials += 1
                return 0.0
        return _back_off(failures) if failure.after is None else failure.after

    # -- one call ----------------------------------------------------------------------------------------------------

    async def _post(self, data: bytes) -> dict[str, Any]:
        """One attempt; a completion with at least one choice that has a message."""
        try:
            # A redirect would turn the POST into a GET, and might take the key elsewhere.
            async with self._session.post(f"{self.base_url}/chat/completions", data=data, allow_redirects=False) as response:
                body = b""
                async for chunk in response.content.iter_chunked(1 << 16):
                    body += chunk
                    if len(body) > LONGEST_BODY:
                        raise FailedError(f"the reply is longer than {LONGEST_BODY >> 20} MB")
        except TimeoutError:
            raise FailedError(f"no reply within {self.settings.timeout_s:g} s (llm.timeout_s)") from None
        except (aiohttp.ClientSSLError, aiohttp.InvalidURL) as error:
            raise UserError(f"llm.base_url={self.address} cannot be called: {self._reason(error)}") from None
        except (aiohttp.ClientError, OSError) as error:
            if isinstance(error, aiohttp.ClientConnectorError) and not self._reached:
                raise UserError(
                    f"llm.base_url={self.address} cannot be reached: {self._reason(error)}\n"
                    "Is the server on, and the address right?"
                ) from None
            raise FailedError(self._reason(error)) from None
        self._reached = True
        for secret in self._secrets:  # a server may echo it, even in a response; a short one may be a word of any text
            body = body.replace(secret.encode(), b"***") if len(secret) > 11 else body
        if response.status != 200:
            self._raise_for(response.status, response.headers, body)
        payload = read_json(body)
        choices = payload.get("choices") if isinstance(payload, dict) else None
        whole = isinstance(choices, list) and all(
            isinstance(each, dict) and isinstance(each.get("message"), dict) for each in choices
        )
        if not choices or not whole:
            fault = "is not JSON" if payload is None else "has no choices, or one without a message"
            raise FailedError(f"the reply {fault}: {self._summary(body)}")
        return payload

    def _raise_for(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        reason = f"{status}: {self._summary(body)}"
        if status in (401, 403):
            raise UserError(
                f"llm.base_url={self.address} refuses the key ({status}). "
                f"Put a valid one into the environment variable {self.settings.api_key_env} (llm.api_key_env)."
            )
        if status in (404, 405):
            raise UserError(
                f"llm.base_url={self.address} does not find the model or the address ({reason})\n"
                "Check llm.model, and that llm.base_url ends as the server wants it, often in /v1."
            )
        if 300 <= status < 400:
            raise UserError(
                f"llm.base_url={self.address} has moved ({status}) to {self._clean(headers.get('Location', '?'))}\n"
                "Set llm.base_url to where it is now, without /chat/completions."
            )
        if status == 402 or (status == 429 and b"insufficient_quota" in body):
            raise UserError(f"llm.base_url={self.address}: the account's credit is used up ({reason})\n{RESUME}")
        if status in TRANSIENT or (status >= 500 and status != 501):
            raise FailedError(reason, after=_seconds(headers.get("Retry-After")), busy=status == 429)
        raise RefusedError(reason)

    def _summary(self, body: bytes) -> str:
        """A body in one short line: the message of an error as the protocol has it, or the body's beginning."""
        value = read_json(body)
        for key in ("error", "message", "detail"):
            if isinstance(value, dict) and value.get(key):
                value = value[key]
        return self._clean(value if isinstance(value, str) else body[:4000].decode(errors="replace")) or "(nothing)"

    def _reason(self, error: Exception) -> str:
        return self._clean(f"{type(error).__name__}: {error}")

    def _clean(self, text: str) -> str:
        """One short line without the key or the address's password. Cut last: half a key is too much of it."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        text = re.sub(r"//[^/@\s]*@", "//***@", text)
        printable = "".join(each if each.isprintable() else " " for each in text.encode(errors="replace").decode())
        return one_line(printable)[:300]


def api_key(variable: str) -> str:
    """The key that an environment variable holds.

    Raises:
        UserError: it is not set, or holds what no key can be.
    """
    key = os.environ.get(variable, "").strip()
    if not key:
        raise UserError(
            f"llm.api_key_env={variable}: that environment variable is not set.\n"
            "Set it to your key (to any word for a server that wants none), or name another variable."
        )
    if not (key.isascii() and key.isprintable()):
        raise UserError(f"llm.api_key_env={variable}: its value is no key: it has a line break or such inside.")
    return key


def _back_off(failures: int) -> float:
    return random.uniform(0, min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** min(failures, 20)))


def _seconds(retry_after: str | None) -> float | None:
    """What a Retry-After header asks for, in seconds or as a date; None where it cannot be read."""
    if retry_after is None:
        return None
    try:
        wait = float(retry_after)
    except ValueError:
        try:
            wait = (parsedate_to_datetime(retry_after).astimezone(UTC) - datetime.now(UTC)).total_seconds()
        except (ValueError, OverflowError):  # no date, or one at the end of time
            return None
    return min(max(0.0, wait), LONGEST_RETRY_AFTER_S)


def _estimate(texts: Iterable[Any]) -> int:
    return sum(len(text) // CHARACTERS_A_TOKEN + 1 for text in texts if isinstance(text, str))
