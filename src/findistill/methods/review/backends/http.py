"""JSON over HTTP with a review server: errors are one line each and never contain the key."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from json import JSONDecodeError
from typing import Any

import httpx

from findistill.errors import UserError
from findistill.llm.secrets import Redactor
from findistill.llm.text import one_line

LONGEST = 200  # characters of a server's message in an error


def api_key(variable: str, where: str) -> str:
    """The key in an environment variable. Raises UserError if there is no valid one; `where` says where to get one."""
    key = os.environ.get(variable, "").strip()
    if not key:
        raise UserError(f"the environment variable {variable} is not set; set it to your key, {where}")
    if not (key.isascii() and key.isprintable()):
        raise UserError(f"the environment variable {variable} is not a valid key: it has a control or non-ASCII character")
    return key


class Server:
    """A client of a server, for one job.

    Args:
        name: of the program, for messages.
        variable: the environment variable that holds the key.
        renew: called on status 401, before the request is retried once: some tokens expire during a job.
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
        """The server's JSON response.

        Raises:
            UserError: it cannot be reached, refuses the key or the request, or answers something else.
        """
        try:
            response = self._client.request(method, path, **content)
            if response.status_code == 401 and (renew := self._renew):
                self._renew = None  # no recursion while renewing
                renew()
                self._renew = renew
                response = self._client.request(method, path, **content)
        except (httpx.TransportError, httpx.InvalidURL, UnicodeError) as error:
            why = self._redactor.mask(one_line(str(error) or type(error).__name__))[:LONGEST]
            raise UserError(
                f"{self.name} at {self.url} cannot be reached ({why}). No texts or decisions are lost: start it, and run the "
                "same command again"
            ) from error
        if response.status_code in (401, 403):
            raise UserError(
                f"{self.name} at {self.url} refuses the key in {self._variable} ({response.status_code}): it was revoked, or "
                "has no access to this project. Set it to a valid key, and run the same command again"
            )
        if response.is_redirect:
            target = self._redactor.mask(one_line(response.headers.get("location", "")))[:LONGEST]
            raise UserError(f"{self.name} at {self.url} redirects to {target}: set review.url to its final address")
        if not response.is_success:
            raise UserError(
                f"{self.name} at {self.url} refuses {method} {path} ({response.status_code}): {self._words(response)}"
            )
        try:
            return response.json() if response.content else None
        except (JSONDecodeError, UnicodeDecodeError):
            raise UserError(
                f"{self.name} at {self.url} did not answer {method} {path} with JSON; is review.url its address?"
            ) from None

    def _words(self, response: httpx.Response) -> str:
        """The server's message, without the key."""
        return self._redactor.mask(one_line(response.text))[:LONGEST]

    @contextmanager
    def expected(self, version: str) -> Iterator[None]:
        """Raise UserError if a response, read inside the block, differs in format from the tested `version`."""
        try:
            yield
        except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
            raise UserError(
                f"{self.name} at {self.url} responds in another format than version {version} "
                f"({type(error).__name__}: {one_line(str(error))[:80]}); nothing is lost there"
            ) from error
