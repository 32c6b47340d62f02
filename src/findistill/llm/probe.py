"""A few calls that tell what a chat server supports.

Servers differ silently: some ignore `n`, some the schema, and some ignore the temperature and give one greedy response for
every sample, which would look like perfect agreement.
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
SAMPLING_CALLS = 4  # alike in all of these, responses are taken to be greedy


@dataclass(frozen=True)
class ServerCapabilities:
    """What a server was observed to do."""

    several: bool  # gives n different choices for `n`
    sampling: bool  # its responses to the same question differ
    schema: bool  # keeps to a JSON schema
    log_probabilities: bool  # of the tokens it writes
    seconds: float  # that its fastest response took

    def check(self, sampling: Sampling, structured: str) -> None:
        """Raise UserError where samples would be copies, or the schema that `llm.structured=always` needs is ignored."""
        if sampling.temperature and not self.sampling:
            raise UserError(
                f"The server ignores annotate.temperature={sampling.temperature:g}: all its responses are one and the same, and "
                "agreement would mean nothing.\nConfigure sampling at the server (its own fields: llm.extra_body={...}), "
                "or choose annotate.samples=1 annotate.temperature=0."
            )
        if structured == "always" and not self.schema:
            raise UserError(
                "llm.structured=always: the server does not keep to a JSON schema.\n"
                "Choose llm.structured=auto, which asks for lines of text instead."
            )


async def probe(server: Server, bodies: BodyBuilder, template: Template, sampling: Sampling) -> ServerCapabilities:
    """Ask for random digits with and without `n`, and for JSON by the template's schema that no words ask for.

    Raises:
        UserError: the server refuses the calls or fails them, or gives empty responses.
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

    # Warm enough for digits to differ; whether the server heeds any temperature is the question here.
    temperature = max(sampling.temperature, 1.0) if sampling.temperature else 0.0
    try:
        replies = [await ask(DIGITS, 0, temperature=temperature, n=2)]
        several = len(replies[0].choices) > 1
        replies.append(await ask(DIGITS, 1, temperature=temperature, n=2 if several else None, logprobs=True))
        while sampling.temperature and len(contents(replies)) < 2 and len(replies) < SAMPLING_CALLS:
            replies.append(await ask(DIGITS, len(replies), temperature=temperature))
    except FailedError as failure:
        raise UserError(f"llm.base_url={server.address} gives no usable response: {failure}") from None
    if all(choice.text.startswith("<think>") or not choice.text for reply in replies for choice in reply.choices):
        raise UserError(
            f"llm.model={model} answers nothing within llm.max_tokens={bodies.settings.max_tokens}: raise it, "
            f"llm.max_tokens={8 * bodies.settings.max_tokens}, or switch off what the model thinks before it answers."
        )
    if sampling.temperature:  # choices that are copies of each other are no samples, whatever other calls give
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
        f"; it refuses {', '.join(sorted(bodies.unsupported))}, so calls omit them" if bodies.unsupported else "",
    )  # fmt: skip
    return capabilities
