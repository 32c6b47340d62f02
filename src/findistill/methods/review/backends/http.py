"""JSON over HTTP with a server of reviews: what goes wrong is one line, and no line has the key in it."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from json import JSONDecodeError
from typing import Any

import httpx

from findistill.errors import UserError
from findistill.llm.secrets import Redactor
from findistill.llm.text import one_line

LONGEST = 200  # characters of a server's own words in a message


def api_key(variable: str, where: str) -> str:
    """The key in an environment variable. Raises UserError where there is none; `where` tells where to get one."""
    key = os.environ.get(variable, "").strip()
    if not key:
        raise UserError(f"the environment variable {variable} is not set; put your key into it, which is {where}")
    if not (key.isascii() and key.isprintable()):
        raise UserError(f"the environment variable {variable} holds no key: it has a line break or such inside")
    return key


class Server:
    """A server for the time of a job.

    Args:
        name: of the program, for messages.
        variable: the environment variable that has the key.
        renew: called where the server answers 401, before the request is tried once more: some access expires while one works.
    """

    def __init__(
        self, name: str, url: str, variable: str, key: str, timeout_s: float, renew: Callable[[], None] | None = None
    ) -> None:
        self.name, self.url, self._variable, self._renew = name, url.rstrip("/"), variable, renew
        self._redactor = Redactor(key)
        self._client = httpx.Client(base_url=self.url, timeout=timeout_s)

    def authorize(self, **headers: str) -> None:
        self._client.headers.update(headers)

    def get(self, path: str, **params: Any) -> Any:
        return self.request("GET", path, params=params)

    def request(self, method: str, path: str, **content: Any) -> Any:
        """What the server answers, from JSON.

        Raises:
            UserError: it cannot be reached, refuses the key or the request, or answers something else.
        """
        try:
            response = self._client.request(method, path, **content)
            if response.status_code == 401 and (renew := self._renew):
                self._renew = None  # not while renewing
                renew()
                self._renew = renew
                response = self._client.request(method, path, **content)
        except (httpx.TransportError, httpx.InvalidURL, UnicodeError) as error:
            why = self._redactor.mask(one_line(str(error) or type(error).__name__))[:LONGEST]
            raise UserError(
                f"{self.name} at {self.url} cannot be reached ({why}). What it has of texts and decisions is there: start it, "
                "and run the same command again"
            ) from error
        if response.status_code in (401, 403):
            raise UserError(
                f"{self.name} at {self.url} refuses the key in {self._variable} ({response.status_code}): it was revoked, or "
                "has no right to this project. Put a valid one there, and run the same command again"
            )
        if response.is_redirect:
            target = self._redactor.mask(one_line(response.headers.get("location", "")))[:LONGEST]
            raise UserError(f"{self.name} at {self.url} sends on to {target}: give the address that it is at as review.url")
        if not response.is_success:
            raise UserError(
                f"{self.name} at {self.url} refuses {method} {path} ({response.status_code}): {self._words(response)}"
            )
        try:
            return response.json() if response.content else None
        except (JSONDecodeError, UnicodeDecodeError):
            raise UserError(
                f"{self.name} at {self.url} answers {method} {path} with something else than JSON; is review.url its address?"
            ) from None

    def _words(self, response: httpx.Response) -> str:
        """The server's own words, without the key."""
        return self._redactor.mask(one_line(response.text))[:LONGEST]

    @contextmanager
    def expected(self, version: str) -> Iterator[None]:
        """Raise UserError where an answer, read inside the block, has another form than those of the version that was tried."""
        try:
            yield
        except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
            raise UserError(
                f"{self.name} at {self.url} answers in another form than version {version} does "
                f"({type(error).__name__}: {one_line(str(error))[:80]}); nothing is lost there"
            ) from error
