"""Probe with a few calls what a chat server supports.

Servers differ silently: some ignore `n`, some the schema, and some ignore the temperature and return the same greedy response
for every sample, which would look like perfect agreement.
"""

import logging
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from findistill.errors import UserError
from findistill.llm.chat import BodyBuilder, contents, matches_schema, request_seed, response_format
from findistill.llm.engine import Sampling
from findistill.llm.prompts import Template
from findistill.llm.replies import Reply
from findistill.llm.server import FailedError, RefusedError, Server

log = logging.getLogger(__name__)

DIGITS = "Write one line of 24 random digits, and nothing else."  # they differ between samples of any model
QUESTION = "In one short sentence: what is a share of a company?"
SAMPLING_CALLS = 4  # if responses are the same in all of these, they are taken to be greedy


@dataclass(frozen=True)
class ServerCapabilities:
    """What a server was observed to do."""

    several: bool  # returns n different choices for `n`
    sampling: bool  # its responses to the same question differ
    schema: bool  # follows a JSON schema
    log_probabilities: bool  # of the tokens it writes
    seconds: float  # of its fastest response

    def check(self, sampling: Sampling, structured: str) -> None:
        """Raise UserError if samples would be copies, or the schema that `llm.structured=always` needs is ignored."""
        if sampling.temperature and not self.sampling:
            raise UserError(
                f"The server ignores annotate.temperature={sampling.temperature:g}: all its responses are identical, so "
                "agreement would mean nothing.\nConfigure sampling on the server (by fields of its own: llm.extra_body={...}), "
                "or set annotate.samples=1 annotate.temperature=0."
            )
        if structured == "always" and not self.schema:
            raise UserError(
                "llm.structured=always: the server does not follow a JSON schema.\n"
                "Use llm.structured=auto, which requests lines of text instead."
            )


async def probe(server: Server, bodies: BodyBuilder, template: Template, sampling: Sampling) -> ServerCapabilities:
    """Request random digits with and without `n`, and JSON by the template's schema alone, not in words.

    Raises:
        UserError: the server refuses or fails the calls, or gives empty responses.
    """
    model, structured = bodies.settings.model, bodies.settings.structured

    async def ask(question: str, number: int, **fields: Any) -> Reply:
        fields |= {"messages": [{"role": "user", "content": question}], "seed": request_seed(sampling.seed, "probe", number)}
        while True:
            body = bodies.body(**fields)
            try:
                return await server.ask(body)
            except RefusedError as refusal:
                omitted = refusal.parameter or bodies.next_optional(body)
                if not omitted:
                    raise UserError(f"llm.model={model} at {server.address} refuses the call: {refusal}") from None
                bodies.omit([omitted], refusal)

    # High enough for digits to differ: the question is whether the server respects a temperature at all.
    temperature = max(sampling.temperature, 1.0) if sampling.temperature else 0.0
    try:
        replies = [await ask(DIGITS, 0, temperature=temperature, n=2)]
        several = len(replies[0].choices) > 1
        replies.append(await ask(DIGITS, 1, temperature=temperature, n=2 if several else None, logprobs=True))
        while sampling.temperature and len(contents(replies)) < 2 and len(replies) < SAMPLING_CALLS:
            replies.append(await ask(DIGITS, len(replies), temperature=temperature))
    except FailedError as failure:
        raise UserError(f"llm.base_url={server.address} returns no usable response: {failure}") from None
    if all(choice.text.startswith("<think>") or not choice.text for reply in replies for choice in reply.choices):
        raise UserError(
            f"llm.model={model} returns no answer within llm.max_tokens={bodies.settings.max_tokens}: raise it, "
            f"llm.max_tokens={8 * bodies.settings.max_tokens}, or turn off the model's reasoning."
        )
    if sampling.temperature:  # identical choices are not samples, even if calls differ
        several = several and any(len(contents([reply])) > 1 for reply in replies)
    schema = False
    if structured != "never":
        with suppress(FailedError):  # some servers break on a schema
            reply = await ask(QUESTION, len(replies), temperature=sampling.temperature, response_format=response_format(template))
            schema = matches_schema(reply.choices[0].text, template)
    capabilities = ServerCapabilities(
        several, len(contents(replies)) > 1, schema, log_probabilities=bool(replies[1].choices[0].tokens),
        seconds=min(reply.seconds for reply in replies),
    )  # fmt: skip
    words = {True: "yes", False: "no"}
    log.info(
        "%s: n %s, schema %s, log-probabilities %s, sampling %s%s", server.address, words[several],
        words[schema] if structured != "never" else "not probed", words[capabilities.log_probabilities],
        words[capabilities.sampling] if sampling.temperature else "not probed",
        f"; calls omit {', '.join(sorted(bodies.unsupported))}, which it refuses" if bodies.unsupported else "",
    )  # fmt: skip
    return capabilities
