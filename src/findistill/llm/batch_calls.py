"""Which calls the texts of a run need, and how the lines of a batch's output settle them."""

import json
from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from findistill.errors import UserError
from findistill.llm import chat, refusals
from findistill.llm.batch_ledger import Batch, Call
from findistill.llm.endpoint import EndpointRun
from findistill.llm.engine import Request, Response
from findistill.llm.refusals import TOO_LONG
from findistill.llm.replies import MOST_CHOICES, Reply, read_choices, usage
from findistill.llm.server import FailedError, RefusedError, estimated_usage
from findistill.llm.votes import needed

Line = tuple[Call, str, Response | None]  # a call, its body as JSON, and the usage of earlier attempts


@dataclass
class Prompt:
    """What rows with the same prompt still need."""

    requests: list[Request]
    votes: Counter[str]
    missing: list[int]  # samples without a final response


class BatchRun(EndpointRun):
    """The texts of one call to `responses`; calls to be submitted wait in `again` and `fresh`."""

    resubmit = 0  # how often a failed call goes into another batch
    again: deque[Line]  # follow-ups of calls that a batch did not settle
    fresh: deque[Line]

    def start(self, resubmit: int) -> "BatchRun":
        self.resubmit, self.again, self.fresh = resubmit, deque(), deque()
        self._prompts: dict[int, Prompt] = {}
        self._under_way: defaultdict[int, list[Call]] = defaultdict(list)  # by key: queued and submitted calls
        return self

    def expect(self, batch: Batch) -> None:
        """Register the calls of a batch that an earlier run submitted."""
        for call in batch.calls:
            self._under_way[call.key].append(call)

    def add(self, request: Request) -> None:
        """Queue the calls that a request needs, except those already under way."""
        if request.key in self._prompts:
            self._prompts[request.key].requests.append(request)
        else:
            self._prompts[request.key] = Prompt([request], Counter(request.votes), list(request.samples))
            self._call_missing(request.key)

    def is_under_way(self, request: Request) -> bool:
        return bool(self._under_way.get(request.key))

    def wanted(self, call: Call) -> bool:
        return call.key in self._prompts

    def settle(self, call: Call, line: Mapping[str, Any] | None, reason: str, earlier: Response | None) -> list[Response]:
        """The final responses from the line for a call, each for every row with its prompt; the rest is queued again.

        Args:
            line: of the output or error file; None: missing, for `reason`.
            earlier: the usage of earlier attempts.

        Returns:
            The responses; those to requests of an earlier run that are not requested now have no id.
        """
        if call in self._under_way[call.key]:
            self._under_way[call.key].remove(call)
        prompt = self._prompts.get(call.key)
        responses = self._read_line(call, line, reason, earlier)
        if prompt is None:
            self._under_way.pop(call.key)
            return [each for each in responses if each.label is not None]
        final = []
        for response in responses:
            if response.label is None and response.error is None and call.attempt < self.sampling.retries:
                self._queue(Call(call.key, response.sample, 1, call.attempt + 1, dropped=call.dropped), response)
            elif response.sample in prompt.missing:
                prompt.missing.remove(response.sample)
                prompt.votes.update([] if response.label is None else [response.label])
                final.append(response)
        self._call_missing(call.key)
        first, *others = [request.id for request in prompt.requests]
        copies = [replace(each.for_sample(each.sample), id=other) for other in others for each in final]
        return [replace(each, id=first) for each in final] + copies

    # -- calls -------------------------------------------------------------------------------------------------------

    def _call_missing(self, key: int) -> None:
        """Queue the calls that a prompt needs besides those under way; a prompt that needs none is done."""
        prompt, under_way = self._prompts[key], self._under_way[key]
        covered = {sample for call in under_way for sample in call.samples}
        free = [sample for sample in prompt.missing if sample not in covered]
        waits = len(free) < len(prompt.missing)
        if not (waits and self.sampling.stop_at is not None):  # else those under way may settle it
            count = needed(prompt.votes, len(prompt.missing), self.sampling.stop_at) - (len(prompt.missing) - len(free))
            for samples in self._together(free[: max(0, count)]):
                self._queue(Call(key, samples[0], len(samples)), None)
        if not under_way:
            del self._prompts[key], self._under_way[key]

    def _together(self, samples: Sequence[int]) -> Iterator[list[int]]:
        """Runs of consecutive samples that one call can draw."""
        most = MOST_CHOICES if self.several else 1
        run: list[int] = []
        for sample in samples:
            if run and (sample != run[-1] + 1 or len(run) == most):
                yield run
                run = []
            run.append(sample)
        if run:
            yield run

    def _queue(self, call: Call, earlier: Response | None) -> None:
        if call in self._under_way[call.key]:  # an earlier run has submitted it
            return
        self._under_way[call.key].append(call)
        follows = call.attempt or call.failures or call.dropped
        (self.again if follows else self.fresh).append((call, json.dumps(self._body(call, self.bodies)), earlier))

    def _body(self, call: Call, bodies: chat.BodyBuilder) -> dict[str, Any]:
        request = self._prompts[call.key].requests[0]
        examples, text = self._shortened(request)
        messages = self.template.messages(examples[call.dropped :], text)
        return bodies.body(**self._fields(messages, request.id, call.samples, call.attempt))

    # -- lines -------------------------------------------------------------------------------------------------------

    def _read_line(
        self, call: Call, line: Mapping[str, Any] | None, reason: str, earlier: Response | None
    ) -> list[Response]:  # fmt: skip
        """A response for each sample that the line settles; none where the call has been queued again."""
        prompt = self._prompts.get(call.key)
        try:
            if line is None:
                raise FailedError(reason)
            reply = self._reply(call, line)
        except RefusedError as refusal:
            if prompt and TOO_LONG.search(str(refusal)) and call.dropped < len(prompt.requests[0].demonstrations):
                self._queue(replace(call, dropped=call.dropped + 1), earlier)
                return []
            if refusal.parameter == "n" and call.count > 1:  # one call per sample from here on
                self.several = False
                return []
            if not refusal.parameter:
                return self._failures(call, refusal, earlier)
            self._omit([refusal.parameter], refusal)
            return self._fail(call, refusal, earlier)
        except (FailedError, UserError) as failure:  # a wrong key or address will show at the next submission
            return self._fail(call, failure, earlier)
        pairs = zip(call.samples, reply.choices, strict=False)
        first, *others = [self._read("", sample, choice, reply) for sample, choice in pairs]
        responses = [first.after(earlier) if earlier else first, *(each.for_sample(each.sample) for each in others)]
        return [replace(each, dropped=call.dropped or None) for each in responses]

    def _reply(self, call: Call, line: Mapping[str, Any]) -> Reply:
        response = line.get("response")
        response = response if isinstance(response, dict) else {}
        body, status = response.get("body"), response.get("status_code")
        # Including fields that have been omitted since it was sent: a refusal may name one.
        sent = self._body(call, chat.BodyBuilder(self.bodies.settings)) if self.wanted(call) else {"messages": []}
        choices = read_choices(body) if status in (200, None) else None
        if choices is not None:
            counts = usage(body or {})
            return Reply(choices, counts or estimated_usage(sent, choices), 1, 0.0, counts is None)
        refusal = refusals.read(line.get("error") or body or "no response")
        self.server.raise_for(status if status != 200 else None, {}, refusal, sent)
        raise AssertionError

    def _fail(self, call: Call, failure: Exception, earlier: Response | None) -> list[Response]:
        """Queue a failed call again, up to `resubmit` times."""
        if call.failures >= self.resubmit:
            return self._failures(call, failure, earlier)
        if self.wanted(call):
            self._queue(call.failed(), earlier)
        return []

    def _failures(self, call: Call, failure: Exception, earlier: Response | None) -> list[Response]:
        first = Response("", call.first, error=str(failure))
        return [first.after(earlier) if earlier else first, *map(first.for_sample, call.samples[1:])]
