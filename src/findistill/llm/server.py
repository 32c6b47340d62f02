"""One chat server over HTTP: retries, adaptive concurrency and a circuit breaker.

A transient failure (a dropped connection, a timeout, 408, 409, 425, 429, 5xx, a truncated reply) is retried after an
exponential back-off with full jitter, or when the server says (Retry-After). A rate limit (429) halves the calls in flight,
and replies raise them again by one per round (additive increase, multiplicative decrease: Chiu and Jain 1989). A server that
fails call after call gets single calls only, with growing pauses, until it replies or `give_up_s` have passed.
"""

import asyncio
import json
import logging
import os
import random
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp

from findistill.config.fields import without_secrets
from findistill.errors import UserError
from findistill.llm import pricing, refusals
from findistill.llm.config import EndpointLLM
from findistill.llm.replies import Answer, Reply, Usage, read_choices, unpacked, usage
from findistill.llm.secrets import Redactor
from findistill.llm.text import one_line, read_json, without_controls

log = logging.getLogger(__name__)

OPENAI = "https://api.openai.com/v1"
FIRST_PAUSE_S = 0.5  # doubled with every further failure
LONGEST_PAUSE_S = 30.0
LONGEST_RETRY_AFTER_S = 120.0
HALVE_EVERY_S = 1.0  # the calls of one round all hit the same limit, which counts once
FAILURES_IN_A_ROW = 16  # before the server counts as down, or `concurrency` if that is more
LONGEST_BODY = 6 << 20  # bytes, compressed or not: 128 choices with the log-probabilities of 256 tokens each
LARGE_BODY = 256 << 10  # bytes; larger ones are read one at a time, since parsed they take many times their size
TRANSIENT = {408, 409, 425, 429}
NO_CREDIT = "insufficient_quota"  # OpenAI sends it with 429
RESUME = "All responses so far are cached; run the same command again to resume."


class CallError(Exception):
    """A call without a usable reply, with the number and duration of its attempts."""

    attempts = 1
    seconds = 0.0  # of all attempts


class RefusedError(CallError):
    """The server will never accept this call, because of a parameter or of what the text says."""

    def __init__(self, reason: str, parameter: str | None = None, about_text: bool = False) -> None:
        super().__init__(reason)
        self.parameter, self.about_text = parameter, about_text


class FailedError(CallError):
    """No usable reply; the next attempt may get one. `after`: seconds to wait, if the server says; `busy`: a rate limit."""

    def __init__(self, reason: str, after: float | None = None, busy: bool = False) -> None:
        super().__init__(reason)
        self.after, self.busy = after, busy


class Server:
    """A server for the duration of a run: `async with Server(...) as server: reply = await server.ask(body)`.

    The key goes into the session's header and nowhere else; it is masked in whatever the server sends. Proxies are taken
    from the environment.

    Args:
        settings: the `llm` section: the address, where its key is, and how long calls may take and fail.
        concurrency: calls in flight at most.

    Raises:
        UserError: the key's environment variable is not set or does not hold a valid key.
    """

    def __init__(self, settings: EndpointLLM, concurrency: int) -> None:
        self.settings = settings
        self.base_url = (settings.base_url or OPENAI).rstrip("/")
        self.address = without_secrets(self.base_url)  # for messages: without a password
        self.concurrency = concurrency
        self._url = completions_url(self.base_url)
        self._key = api_key(settings.api_key_env)
        self._redactor = Redactor(self._key)
        self._reached = False  # it has sent an HTTP response of any status
        self._in_flight = 0
        self._limit = float(self.concurrency)
        self._halved_at = float("-inf")
        self._paused_until = 0.0
        self._failing_since: float | None = None
        self._failures = 0  # in a row
        self._down = False
        self._trials = 0

    async def __aenter__(self) -> Self:
        parts = urlsplit(self.base_url)
        self._freed = asyncio.Event()
        self._large = asyncio.Lock()
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self.concurrency),
            cookie_jar=aiohttp.DummyCookieJar(),
            # Compressed bodies are decompressed here, up to the size limit.
            headers={"Content-Type": "application/json", "Accept-Encoding": "identity"} | self._credentials(),
            auto_decompress=False,
            timeout=aiohttp.ClientTimeout(total=self.settings.timeout_s, sock_connect=min(self.settings.timeout_s, 30.0)),
            # Not `trust_env`: it looks the proxy up in a thread for every call, and a ~/.netrc entry collides with the key.
            proxy=None if proxy_bypass(parts.hostname or "") else getproxies().get(parts.scheme),
            trust_env=False,
        )
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._session.close()

    def _credentials(self) -> dict[str, str]:
        """The header of the key; a key that includes its scheme (`Basic dXNlcjpw...`) is sent as it is."""
        if not self._key:
            return {}
        bearer = self.settings.api_key_header.lower() == "authorization" and " " not in self._key
        return {self.settings.api_key_header: f"Bearer {self._key}" if bearer else self._key}

    def mask_answer(self, text: str) -> str:
        """A model's answer without the key, in whatever form the server may have sent it back."""
        return self._redactor.mask_answer(text)

    async def ask(self, body: Mapping[str, Any]) -> Reply:
        """The server's reply to one request for a chat completion.

        Raises:
            RefusedError: the server does not accept it (400, 422 and the like).
            FailedError: no usable reply in `max_retries` + 1 attempts.
            UserError: no call can succeed: the key, the address or the model is wrong, or the server is down for good.
        """
        data = json.dumps(body).encode()
        clock = time.perf_counter  # the loop's own has a resolution of milliseconds
        failures = attempts = 0
        seconds = 0.0
        while True:
            await self._slot()
            attempts += 1
            started = clock()
            try:
                choices, counts = await self._post(data, body)
                self._record_success()
                seconds += clock() - started
                return Reply(choices, counts or estimated_usage(body, choices), attempts, seconds, counts is None)
            except CallError as error:
                seconds += clock() - started
                error.attempts, error.seconds = attempts, seconds
                if not isinstance(error, FailedError):
                    self._record_success()  # it is up
                    raise
                pause = self._record_failure(error, failures)
                failures += not self._down  # during an outage calls wait, and none of them fails
                if failures > self.settings.max_retries:
                    raise
            finally:
                self._in_flight -= 1
                self._freed.set()
            await asyncio.sleep(pause)

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
        patience = self.settings.give_up_s - (now - self._failing_since)  # seconds until giving up
        if patience < 0:
            raise UserError(
                f"llm.base_url={self.address}: no reply for {self.settings.give_up_s:g} s (llm.give_up_s); last failure: "
                f"{failure}\n{RESUME}"
            ) from None
        if failure.busy:
            if now - self._halved_at >= HALVE_EVERY_S:
                first = self._halved_at == float("-inf")
                self._halved_at, self._limit = now, max(1.0, self._limit / 2)
                # At INFO only once: from here on the limit oscillates around what the server allows.
                log.log(logging.INFO if first else logging.DEBUG, "%s limits the rate (429): reducing calls in flight to %d",
                        self.address, self._limit)  # fmt: skip
            if failure.after is not None:
                self._paused_until = max(self._paused_until, now + min(failure.after, patience))
        else:
            self._failures += 1
            if not self._down and self._failures >= max(FAILURES_IN_A_ROW, self.concurrency):
                self._down, self._trials = True, 0
                log.warning("%s keeps failing (%s): pausing, then retrying with one call at a time", self.address, failure)
            if self._down:
                if now >= self._paused_until:  # else the call was already in flight when the pause began
                    self._paused_until = now + min(failure.after or _back_off(self._trials), patience)
                    self._trials += 1
                return 0.0
        return min(_back_off(failures) if failure.after is None else failure.after, patience)

    # -- one call ----------------------------------------------------------------------------------------------------

    async def _post(self, data: bytes, sent: Mapping[str, Any]) -> tuple[list[Answer], Usage | None]:
        """One attempt: the choices of the completion, at least one, and the token counts where the server gives any."""
        with self._failures_as_errors():
            # A redirect would turn the POST into a GET, and might send the key elsewhere.
            async with self._session.post(self._url, data=data, allow_redirects=False) as response:
                return await self._read(response, sent)

    @contextmanager
    def _failures_as_errors(self) -> Iterator[None]:
        """Raise connection errors as this module's errors."""
        try:
            yield
        except TimeoutError:
            raise FailedError(f"no reply within {self.settings.timeout_s:g} s (llm.timeout_s)") from None
        except (aiohttp.ClientSSLError, aiohttp.InvalidURL) as error:
            raise UserError(f"llm.base_url={self.address} cannot be called: {self._reason(error)}") from None
        except (aiohttp.ClientError, OSError) as error:
            if isinstance(error, aiohttp.ClientConnectorError) and not self._reached:
                raise UserError(
                    f"llm.base_url={self.address} cannot be reached: {self._reason(error)}\n"
                    "Is the server running, and is the address correct?"
                ) from None
            raise FailedError(self._reason(error)) from None

    async def _read(self, response: aiohttp.ClientResponse, sent: Mapping[str, Any]) -> tuple[list[Answer], Usage | None]:
        parts: list[bytes] = []
        size, alone = 0, False
        async with AsyncExitStack() as stack:
            encoding = response.headers.get("Content-Encoding", "")
            async for part in response.content.iter_any():
                if not alone and (encoding or size + len(part) > LARGE_BODY):
                    await stack.enter_async_context(self._large)
                    alone = True
                size += len(part)
                parts.append(part)
                if size > LONGEST_BODY:
                    raise FailedError(f"the reply is longer than {LONGEST_BODY / 2**20:g} MB")
                if len(parts) > 1000:  # one object per byte would take more memory than the bytes
                    parts = [b"".join(parts)]
            self._reached = True
            body = b"".join(parts)
            body = self._unpacked(body, encoding) if encoding else body
            if response.status != 200:
                self.raise_for(response.status, response.headers, refusals.read(body), sent)
            payload = read_json(body)
            choices = read_choices(payload)
            if choices is not None:
                return choices, usage(payload)
            if isinstance(payload, dict) and payload.get("error"):
                self.raise_for(None, response.headers, refusals.read(payload), sent)
            fault = "is not JSON" if payload is None else "has no choices, or one without a message"
            raise FailedError(f"the reply {fault}: {self.clean(body[:4000].decode(errors='replace')) or '(empty)'}")

    def _unpacked(self, body: bytes, encoding: str) -> bytes:
        try:
            body = unpacked(body, encoding, LONGEST_BODY)
        except ValueError as error:
            raise FailedError(f"the reply {self.clean(str(error))}") from None
        if len(body) > LONGEST_BODY:
            raise FailedError(f"the reply is longer than {LONGEST_BODY / 2**20:g} MB when decompressed")
        return body

    def raise_for(
        self, status: int | None, headers: Mapping[str, str], refusal: refusals.Refusal, sent: Mapping[str, Any]
    ) -> None:
        """Raise the error for a reply that is not a completion; without `status`, one under status 200."""
        names = {*sent} - {*(self.settings.extra_body or {})}
        names |= {refusals.SYSTEM} if any(message.get("role") == "system" for message in sent["messages"]) else set()
        parameter = refusal.parameter(names, plain=status in (400, 422))
        if status is None:
            status = refusal.code or (400 if parameter or refusal.about_text else 500)
        reason = f"{status}: {self.clean(refusal.message) or '(empty)'}"
        if (400 <= status < 502 and status not in TRANSIENT and status not in (401, 402)) and (parameter or refusal.about_text):
            raise RefusedError(reason, None if refusal.about_text else parameter, refusal.about_text)
        variable = self.settings.api_key_env
        if status in (401, 403):
            status_text = f"403: {self.clean(refusal.message)}" if status == 403 else "401"
            if not variable:
                raise UserError(
                    f"llm.base_url={self.address} requires a key ({status_text}): put it into an environment variable and give "
                    "its name, such as llm.api_key_env=LLM_API_KEY."
                )
            raise UserError(
                f"llm.base_url={self.address} refuses the key ({status_text}).\n"
                f"Put a valid one into the environment variable {variable} (llm.api_key_env); "
                f"it is sent in the header {self.settings.api_key_header} (llm.api_key_header)."
            )
        if status in (404, 405):
            raise UserError(
                f"llm.base_url={self.address} cannot find the model or the path ({reason})\n"
                "Check llm.model, and that llm.base_url ends in the path that the server expects, often /v1."
            )
        if 300 <= status < 400:
            raise UserError(
                f"llm.base_url={self.address} has moved ({status}) to {self.clean(headers.get('Location', '?'))}\n"
                "Set llm.base_url to the new address, without /chat/completions."
            )
        if status == 402 or (status == 429 and any(NO_CREDIT in words for words in (refusal.message, *refusal.kinds))):
            raise UserError(f"llm.base_url={self.address}: the account's credit is used up ({reason})\n{RESUME}")
        if status in TRANSIENT or (status >= 500 and status != 501):
            raise FailedError(reason, after=_seconds(headers.get("Retry-After")), busy=status == 429)
        raise RefusedError(reason)

    def _reason(self, error: Exception) -> str:
        return self.clean(f"{type(error).__name__}: {error}")

    def clean(self, text: str) -> str:
        """One short line without the key or a password. Truncated last: part of a key would not be masked."""
        text = re.sub(r"//[^/@\s]*@", "//***@", self._redactor.mask(without_controls(text)))
        return one_line("".join(each if each.isprintable() else " " for each in text.encode(errors="replace").decode()))[:300]


def completions_url(base_url: str) -> str:
    """The URL of chat completions: the path goes before a query, such as Azure's `?api-version=`."""
    parts = urlsplit(base_url)
    path = parts.path.rstrip("/").removesuffix("/chat/completions") + "/chat/completions"
    return parts._replace(path=path, fragment="").geturl()


def api_key(variable: str | None) -> str:
    """The key in an environment variable; empty without a variable, for a server that needs no key.

    Raises:
        UserError: it is not set, or does not hold a valid key.
    """
    if not variable:
        return ""
    key = os.environ.get(variable, "").strip()
    if not key:
        raise UserError(
            f"llm.api_key_env={variable}: that environment variable is not set.\n"
            "Set it to your key, or name another variable; use llm.api_key_env=null for a server that needs no key."
        )
    if not (key.isascii() and key.isprintable()):
        raise UserError(f"llm.api_key_env={variable}: its value is not a valid key: it contains non-ASCII or control characters.")
    return key


def _back_off(failures: int) -> float:
    return random.uniform(0, min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** min(failures, 20)))


def _seconds(retry_after: str | None) -> float | None:
    """The seconds that a Retry-After header asks for, as a number or a date; None if it cannot be read."""
    if retry_after is None:
        return None
    try:
        wait = float(retry_after)
    except ValueError:
        try:
            wait = (parsedate_to_datetime(retry_after).astimezone(UTC) - datetime.now(UTC)).total_seconds()
        except (ValueError, OverflowError):  # not a date, or one out of range
            return None
    return min(max(0.0, wait), LONGEST_RETRY_AFTER_S)


def estimated_usage(body: Mapping[str, Any], choices: Iterable[Answer]) -> Usage:
    """Prompt and completion tokens, overestimated: for a truncated or empty completion, as many as it may have."""
    most = body.get("max_tokens") or body.get("max_completion_tokens") or 0
    prompt = sum(pricing.token_bound(str(message["content"])) for message in body["messages"])
    written = sum(most if each.cut or not each.text else pricing.token_bound(each.text) for each in choices)
    return Usage(prompt, written)
