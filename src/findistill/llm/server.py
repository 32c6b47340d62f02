"""One chat server over HTTP, called with patience: what goes wrong in passing is met here.

A call that fails in passing (a cut connection, a time-out, 408, 409, 425, 429, 5xx, half an answer) is made again after an
exponential back-off with full jitter, or when the server says (Retry-After). A rate limit (429) halves the calls in flight,
and answers raise them again, by one a round (additive increase, multiplicative decrease: Chiu and Jain 1989). A server that
fails call after call is left in peace: single calls try it, with longer and longer pauses, until it answers or
`give_up_s` are over.
"""

import asyncio
import json
import logging
import os
import random
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from findistill.errors import UserError

if TYPE_CHECKING:
    from types import TracebackType

    from aiohttp import ClientSession

log = logging.getLogger(__name__)

FIRST_PAUSE_S = 0.5  # doubled with every further failure
LONGEST_PAUSE_S = 30.0
LONGEST_RETRY_AFTER_S = 120.0
HALVE_EVERY_S = 1.0  # the calls of one round all meet the same limit: it counts once
FAILURES_IN_A_ROW = 16  # at least, and never fewer than the calls in flight, before the server counts as down
PASSING = {408, 409, 425, 429}
KEPT = "What was answered is kept; run the same command again to go on."


class CallError(Exception):
    """A call came to nothing; with what it took."""

    attempts = 1
    seconds = 0.0  # of all attempts


class RefusedError(CallError):
    """The server does not take this call, however often it is made."""


class FailedError(CallError):
    """The call got no usable answer in all its attempts."""


class _PassingError(Exception):
    """What may be over by the next attempt. `after`: seconds to wait, if the server says; `busy`: it limits the rate."""

    def __init__(self, reason: str, after: float | None = None, busy: bool = False) -> None:
        super().__init__(reason)
        self.after = after
        self.busy = busy


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

    The key goes into the session's header and nowhere else; every message of the server is cleaned of it. An address with
    `user:password@` is called with these instead. Proxies are taken from the environment.

    Args:
        base_url: the address that `/chat/completions` is added to.
        key_env: the environment variable that holds the key.
        concurrency: calls in flight at most.
        timeout_s: of one call.
        max_retries: of a call that failed in passing.
        give_up_s: how long nothing but failures may come.

    Raises:
        UserError: the variable is not set or holds what cannot be a key, or the address is none.
    """

    def __init__(
        self, base_url: str, key_env: str, concurrency: int, timeout_s: float, max_retries: int, give_up_s: float
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self.key_env = key_env
        self.concurrency = max(1, concurrency)
        self.timeout_s = timeout_s
        self.max_retries = max_retries
        self.give_up_s = give_up_s
        self._key = key_in(key_env)
        self._reached = False  # it has sent a response of whatever kind
        self._in_flight = 0
        self._limit = float(self.concurrency)
        self._halved = float("-inf")
        self._paused_until = 0.0
        self._in_trouble_since: float | None = None
        self._failures = 0  # in a row
        self._down = False
        self._trials = 0

    @property
    def address(self) -> str:
        """The address without a password, for messages."""
        return re.sub(r"//[^/@]*@", "//***@", self.base_url)

    async def __aenter__(self) -> "Server":
        import aiohttp

        parts = urlsplit(self.base_url)
        proxy = None if proxy_bypass(parts.hostname or "") else getproxies().get(parts.scheme)
        self._freed = asyncio.Event()
        self._session: ClientSession = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self.concurrency),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"Content-Type": "application/json"} | ({} if parts.username else {"Authorization": f"Bearer {self._key}"}),
            timeout=aiohttp.ClientTimeout(total=self.timeout_s, sock_connect=min(self.timeout_s, 30.0)),
            # Not `trust_env`: it looks the proxy up in a thread for every call, and a ~/.netrc entry collides with the key.
            proxy=proxy,
            trust_env=False,
        )
        return self

    async def __aexit__(
        self, kind: "type[BaseException] | None", error: BaseException | None, trace: "TracebackType | None"
    ) -> None:
        await self._session.close()

    async def ask(self, body: Mapping[str, Any]) -> Reply:
        """The server's answer to one chat completion.

        Raises:
            RefusedError: the server does not take it (400, 422 and the like).
            FailedError: no usable answer in `max_retries` + 1 attempts.
            UserError: no call can succeed: the key, the address or the model is wrong, or the server is down for good.
        """
        data = json.dumps(body).encode()
        clock = time.perf_counter  # the loop's own counts whole milliseconds
        failures = attempts = 0
        seconds = 0.0
        while True:
            trial = await self._slot()
            attempts += 1
            started = clock()
            try:
                found = await self._post(data)
                self._went_well()
                choices, usage = found["choices"], found.get("usage") or {}
                return Reply(
                    choices, _count(usage, "prompt_tokens"), _count(usage, "completion_tokens"), attempts,
                    seconds + clock() - started,
                )  # fmt: skip
            except RefusedError as refusal:
                self._went_well()  # it is up, and answers
                refusal.attempts, refusal.seconds = attempts, seconds + clock() - started
                raise
            except _PassingError as trouble:
                pause = self._went_wrong(trouble, trial, failures)
                seconds += clock() - started
                failures += not self._down  # an outage is nobody's failure: calls wait for its end
                if failures > self.max_retries:
                    failed = FailedError(str(trouble))
                    failed.attempts, failed.seconds = attempts, seconds
                    raise failed from None
            finally:
                self._in_flight -= 1
                self._freed.set()
            await asyncio.sleep(pause)

    # -- pace --------------------------------------------------------------------------------------------------------

    async def _slot(self) -> bool:
        """Wait until another call may be made, and count it as in flight. True: it tries a server that is down."""
        while True:
            pause = self._paused_until - asyncio.get_running_loop().time()
            if pause > 0:
                await asyncio.sleep(pause)
            elif self._in_flight < (1 if self._down else int(self._limit)):
                self._in_flight += 1
                return self._down
            else:
                self._freed.clear()
                await self._freed.wait()

    def _went_well(self) -> None:
        self._failures, self._in_trouble_since = 0, None
        if self._down:
            self._down = False
            log.info("%s answers again", self.address)
        if self._limit < self.concurrency:
            self._limit = min(self._limit + 1 / self._limit, self.concurrency)

    def _went_wrong(self, trouble: _PassingError, trial: bool, failures: int) -> float:
        """Note a failure; the seconds that its call is to wait before it may ask for a slot again."""
        now = asyncio.get_running_loop().time()
        if self._in_trouble_since is None:
            self._in_trouble_since = now
        if now - self._in_trouble_since > self.give_up_s:
            raise UserError(
                f"llm.base_url={self.address}: no answer for {self.give_up_s:g} s (llm.give_up_s), the last trouble: "
                f"{trouble}\n{KEPT}"
            ) from None
        if trouble.busy:
            if now - self._halved >= HALVE_EVERY_S:
                first = self._halved == float("-inf")
                self._halved, self._limit = now, max(1.0, self._limit / 2)
                # Only once: from here on the limit goes up and down around what the server allows.
                log.log(logging.INFO if first else logging.DEBUG, "%s limits the rate (429): calls in flight go down to %d",
                        self.address, self._limit)  # fmt: skip
            if trouble.after is not None:
                self._paused_until = max(self._paused_until, now + trouble.after)
        else:
            self._failures += 1
            if not self._down and self._failures >= max(FAILURES_IN_A_ROW, self.concurrency):
                self._down, self._trials, trial = True, 0, True
                log.warning("%s fails call after call (%s): pausing, and trying again with single calls", self.address, trouble)
            if self._down:
                if trial:
                    self._paused_until = max(self._paused_until, now + (trouble.after or _back_off(self._trials)))
                    self._trials += 1
                return 0.0
        return _back_off(failures) if trouble.after is None else trouble.after

    # -- one call ----------------------------------------------------------------------------------------------------

    async def _post(self, data: bytes) -> dict[str, Any]:
        """One attempt; a completion with at least one choice that has a message."""
        import aiohttp

        try:
            # A redirect would turn the POST into a GET, and might take the key elsewhere.
            async with self._session.post(f"{self.base_url}/chat/completions", data=data, allow_redirects=False) as response:
                body = await response.read()
        except TimeoutError:
            raise _PassingError(f"no answer within {self.timeout_s:g} s (llm.timeout_s)") from None
        except (aiohttp.ClientSSLError, aiohttp.InvalidURL) as error:
            raise UserError(f"llm.base_url={self.address} cannot be called: {self._reason(error)}") from None
        except (aiohttp.ClientError, OSError) as error:
            if isinstance(error, aiohttp.ClientConnectorError) and not self._reached:
                raise UserError(
                    f"llm.base_url={self.address} cannot be reached: {self._reason(error)}\n"
                    "Is the server on, and the address right?"
                ) from None
            raise _PassingError(self._reason(error)) from None
        self._reached = True
        if response.status != 200:
            self._raise_for(response.status, response.headers, body)
        found = _json(body)
        choices = found.get("choices") if isinstance(found, dict) else None
        if not isinstance(found, dict):
            raise _PassingError(f"the answer is not JSON: {self._said(body)}")
        if not isinstance(choices, list) or not choices:
            raise _PassingError(f"the answer has no choices: {self._said(body)}")
        if not all(isinstance(each, dict) and isinstance(each.get("message"), dict) for each in choices):
            raise _PassingError(f"a choice has no message: {self._said(body)}")
        return found

    def _raise_for(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        said = f"{status}: {self._said(body)}"
        if status in (401, 403):
            raise UserError(
                f"llm.base_url={self.address} refuses the key ({status}). "
                f"Put a valid one into the environment variable {self.key_env} (llm.api_key_env)."
            )
        if status in (404, 405):
            raise UserError(
                f"llm.base_url={self.address} does not find the model or the address ({said})\n"
                "Check llm.model, and that llm.base_url ends as the server wants it, often in /v1."
            )
        if 300 <= status < 400:
            raise UserError(
                f"llm.base_url={self.address} has moved ({status}) to {self._clean(headers.get('Location', '?'))}\n"
                "Set llm.base_url to where it is now, without /chat/completions."
            )
        if status == 402 or (status == 429 and b"insufficient_quota" in body):
            raise UserError(f"llm.base_url={self.address}: the account's credit is used up ({said})\n{KEPT}")
        if status in PASSING or (status >= 500 and status != 501):
            raise _PassingError(said, after=_seconds(headers.get("Retry-After")), busy=status == 429)
        raise RefusedError(said)

    def _said(self, body: bytes) -> str:
        """What a body says, in one short line: the message of an error as the protocol has it, or the body's beginning."""
        found = _json(body)
        for key in ("error", "message", "detail"):
            if isinstance(found, dict) and found.get(key):
                found = found[key]
        return self._clean(found if isinstance(found, str) else body[:4000].decode(errors="replace")) or "(nothing)"

    def _reason(self, error: Exception) -> str:
        return self._clean(f"{type(error).__name__}: {error}")

    def _clean(self, text: str) -> str:
        """One short line without the key or the address's password. Cut last: half a key is too much of it."""
        for secret in (self._key, unquote(urlsplit(self.base_url).password or "")):
            if len(secret) > 3:  # no secret, and it would tear holes into the words
                text = text.replace(secret, "***")
        text = re.sub(r"//[^/@\s]*@", "//***@", text)
        return " ".join(text.encode(errors="replace").decode().split())[:300]


def key_in(variable: str) -> str:
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
        raise UserError(f"llm.api_key_env={variable}: what that variable holds is no key: it has a line break or such inside.")
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
            date = parsedate_to_datetime(retry_after)
        except ValueError:
            return None
        wait = (date.astimezone(UTC) - datetime.now(UTC)).total_seconds()
    return min(max(0.0, wait), LONGEST_RETRY_AFTER_S)


def _json(body: bytes) -> Any:
    """What the body holds; None where it is not JSON."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _count(usage: Any, name: str) -> int:
    found = usage.get(name) if isinstance(usage, dict) else None
    return found if isinstance(found, int) else 0
