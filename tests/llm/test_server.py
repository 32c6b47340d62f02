import json
import random
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from findistill.errors import UserError
from findistill.llm import server as calling
from findistill.llm.chat import request_seed
from findistill.llm.engine import Request, Sampling
from findistill.llm.prompts import Demonstration
from tests.llm.calls import TEMPLATE, ask, engine, requests
from tests.llm.servers import KEY, LoopbackServer, Reply, after_probes, chat, is_probe, refusal, sampling, seeded

FAULTS = {
    "500": refusal(500, "kaboom"),
    "503": refusal(503, "overloaded"),
    "429": refusal(429, "slow down"),
    "408": refusal(408),
    "409": refusal(409),
    "425": refusal(425),
    "hang": Reply(after_s=30.0),
    "cut": Reply(cut=0),
    "cut in the body": Reply(body=chat(["positive"]).body, cut=40),
    "half a JSON": Reply(body=chat(["positive"]).body[:60]),
    "HTML": Reply(body="<html><body>Bad gateway</body></html>", headers={"Content-Type": "text/html"}),
    "nothing": Reply(),
    "no choices": Reply(body='{"choices": []}'),
    "choices missing": Reply(body='{"error": {"message": "upstream"}}'),
    "no message": Reply(body='{"choices": [{"index": 0}]}'),
    "a list": Reply(body="[1, 2]"),
    "not UTF-8": Reply(body="\x00\x01"),
    "deep": Reply(body="[" * 100_000),
    "strange encoding": Reply(body="x", headers={"Content-Encoding": "gzip"}),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_passing_trouble_is_retried_and_lasting_trouble_recorded(server: LoopbackServer, fault: str) -> None:
    texts: set[str] = set()

    def behave(body: dict) -> Reply:
        text = body["messages"][-1]["content"]
        if text == "text 2" or (text == "text 1" and text not in texts):
            texts.add(text)
            return FAULTS[fault]
        return sampling(body)

    server.behave = after_probes(behave)
    # No shorter timeout: a machine that is busy for a second must not look like a failing server.
    answers = ask(server, tasks=4, max_retries=2, timeout_s=1.5 if fault == "hang" else 30.0)
    assert len(answers) == 16
    failed = [a for a in answers if a.error]
    assert {a.id for a in failed} == {"t2"} and len(failed) == 4
    assert {(a.label, a.raw) for a in failed} == {(None, None)}
    # Four samples share a call, whose attempts are recorded on the first.
    assert [[a.attempts for a in answers if a.id == i] for i in ("t0", "t1", "t2")] == [[1, 0, 0, 0], [2, 0, 0, 0], [3, 0, 0, 0]]
    assert all(a.error and len(a.error) < 400 and "\n" not in a.error for a in failed)


def test_a_refused_text_is_recorded_without_the_key(server: LoopbackServer) -> None:
    def behave(body: dict) -> Reply:
        text = body["messages"][-1]["content"]
        return refusal(400, "x" * 290 + f" {KEY}") if text == "text 2" else sampling(body)

    server.behave = behave
    answers = ask(server)
    failed = [a for a in answers if a.error]
    assert {a.id for a in failed} == {"t2"} and len(failed) == 4
    assert "sk-" not in str(answers) and (failed[0].error or "").startswith("400: xxx")
    assert failed[0].label is None and failed[0].raw is None
    assert len([body for body in server.requests if body["messages"][-1]["content"] == "text 2"]) == 2


def test_a_prompt_that_is_too_long_for_the_server_loses_whole_demonstrations(server: LoopbackServer) -> None:
    def behave(body: dict) -> Reply:
        examples = sum(message["role"] == "assistant" for message in body["messages"])
        error = "This model's maximum context length is 64 tokens. However, your messages resulted in 80 tokens."
        return refusal(400, error) if examples > 1 else sampling(body)

    server.behave = after_probes(behave)
    demonstrations = tuple(Demonstration(f"Example {place}.", "neutral") for place in range(3))
    tasks = [Request("a", "Sales rose.", demonstrations, (0, 1))]
    responses = [answer for batch in engine(server).responses(tasks, TEMPLATE, Sampling(0.5, 0)) for answer in batch]
    assert [answer.error for answer in responses] == [None, None] and {answer.dropped for answer in responses} == {2}
    contents = [message["content"] for message in server.requests[-1]["messages"] if message["role"] == "user"]
    assert contents == ["Example 2.", "Sales rose."]  # the nearest comes last


def test_a_refused_text_is_asked_once_where_each_sample_is_a_call(server: LoopbackServer) -> None:
    server.behave = lambda body: refusal(400) if body["messages"][-1]["content"] == "text 2" else seeded(body)
    answers = ask(server)
    assert [a.sample for a in answers if a.error] == [0, 1, 2, 3]
    assert len([body for body in server.requests if body["messages"][-1]["content"] == "text 2"]) == 1


def test_trouble_while_probing_is_retried(server: LoopbackServer) -> None:
    server.behave = lambda body: random.choice([refusal(503), refusal(429), sampling(body), sampling(body)])
    assert len(ask(server, max_retries=30)) == 20


def test_a_server_that_only_fails_is_the_users_mistake(server: LoopbackServer) -> None:
    server.behave = lambda body: FAULTS["HTML"]
    with pytest.raises(UserError, match=r"returns no usable response: the reply is not JSON: <html>"):
        ask(server, max_retries=2)


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_heeded(server: LoopbackServer, status: int) -> None:
    times: list[float] = []

    def behave(body: dict) -> Reply:
        times.append(time.monotonic())
        return refusal(status, Retry_After="0.4") if len(times) == 1 else sampling(body)

    server.behave = after_probes(behave)
    assert len(ask(server, tasks=3, concurrency=1)) == 12
    assert times[1] - times[0] >= 0.4


def test_a_rate_limits_retry_after_holds_for_all_calls(server: LoopbackServer) -> None:
    times: list[float] = []

    def behave(body: dict) -> Reply:
        times.append(time.monotonic())
        return refusal(429, Retry_After="0.5") if len(times) == 5 else sampling(body)

    server.behave = after_probes(behave)
    assert len(ask(server, tasks=40, samples=1, concurrency=4)) == 40
    before = [each for each in times if each < times[4] + 0.45]
    assert len(before) <= 5 + 3  # the calls in flight at the time


def test_retry_after_as_a_date_or_as_nonsense() -> None:
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=60))
    assert calling._seconds(soon) == pytest.approx(60, abs=2)
    assert calling._seconds("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    assert calling._seconds("-5") == 0 and calling._seconds("1e9") == 120
    assert calling._seconds("soon") is None and calling._seconds(None) is None
    assert calling._seconds("Fri, 31 Dec 9999 23:59:59 -1200") in (None, 120)


@pytest.mark.parametrize("usage", [None, {}, [], {"prompt_tokens": -5, "completion_tokens": -(10**9)}, {"prompt_tokens": 1e300}])
def test_impossible_token_counts_are_replaced_by_estimates(
    server: LoopbackServer, log: pytest.LogCaptureFixture, usage: object
) -> None:
    def behave(body: dict) -> Reply:
        reply = sampling(body)
        return Reply(body=json.dumps({**json.loads(reply.body), "usage": usage}))

    server.behave = behave
    responses = ask(server, tasks=2, samples=1)
    assert all(20 < each.tokens_in < 100 and each.tokens_out > 0 for each in responses)
    assert sum("tokens and cost are estimated" in record.message for record in log.records) == 1


def test_an_echoed_key_and_control_characters_are_masked(server: LoopbackServer) -> None:
    server.behave = after_probes(lambda body: chat([f"Your key is {KEY}. positive"]))
    [response] = ask(server, tasks=1, samples=1)
    assert response.raw == "Your key is ***. positive" and response.label == "positive"
    server.behave = after_probes(lambda body: refusal(400, f"\x1b[31mno {KEY}"))
    [response] = ask(server, tasks=1, samples=1)
    assert response.error == "400: no ***"


def test_a_reply_without_end_is_not_read_to_its_end(server: LoopbackServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calling, "LONGEST_BODY", 1 << 20)
    server.behave = after_probes(lambda body: chat(["x" * (2 << 20)]))
    [response] = ask(server, tasks=1, samples=1, max_retries=0)
    assert response.error == "the reply is longer than 1 MB"


def test_calls_in_flight_adapt_to_the_rate_limit(server: LoopbackServer) -> None:
    """The server accepts at most four calls at a time: concurrency falls below that, then recovers."""
    flights: list[int] = []

    def behave(body: dict) -> Reply:
        flights.append(server.in_flight)
        reply = refusal(429) if server.in_flight > 4 else sampling(body)
        reply.after_s = 0.005
        return reply

    server.behave = after_probes(behave)
    answers = ask(server, tasks=600, samples=1, concurrency=32, max_retries=30)
    assert not any(a.error for a in answers) and len(answers) == 600
    settled = flights[len(flights) // 3 :]
    assert max(flights) > 16 and sum(settled) / len(settled) < 8
    assert sum(each > 4 for each in settled) < 0.5 * len(settled)
    assert sum(each >= 3 for each in settled) > 0.3 * len(settled)


def test_calls_in_flight_rise_again_after_a_rate_limit(server: LoopbackServer) -> None:
    def behave(body: dict) -> Reply:
        limited = len(server.requests) < 100
        reply = refusal(429) if limited and server.in_flight > 1 else sampling(body)
        if limited:
            server.most_in_flight = 0
        reply.after_s = 0.01
        return reply

    server.behave = after_probes(behave)
    assert not any(a.error for a in ask(server, tasks=800, samples=1, concurrency=24, max_retries=30))
    assert server.most_in_flight > 16


def test_a_server_that_is_down_is_left_in_peace_until_it_is_back(
    server: LoopbackServer, log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calling, "FIRST_PAUSE_S", 0.02)
    monkeypatch.setattr(calling, "LONGEST_PAUSE_S", 0.1)
    down: list[float] = []

    def behave(body: dict) -> Reply:
        if len(server.requests) > 20 and (not down or time.monotonic() < down[0] + 1.0):
            down.append(time.monotonic())
            return refusal(503, "maintenance")
        return sampling(body)

    server.behave = after_probes(behave)
    answers = ask(server, tasks=60, samples=1, concurrency=8, max_retries=4)
    assert len(answers) == 60 and not any(a.error for a in answers)
    assert 16 <= len(down) < 90  # eight callers that each retried every 0.05 s would make 160
    assert len([r for r in log.records if "keeps failing (503: maintenance)" in r.message]) == 1
    assert len([r for r in log.records if "replies again" in r.message]) == 1


def test_a_server_that_stays_down_is_given_up(server: LoopbackServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calling, "LONGEST_PAUSE_S", 0.1)
    server.behave = after_probes(lambda body: sampling(body) if len(server.requests) < 10 else refusal(500, f"kaboom {KEY}"))
    stream = engine(server, max_retries=6, give_up_s=0.5).responses(requests(50, 1), TEMPLATE, Sampling(0.5, 0, 4))
    responses = []
    with pytest.raises(
        UserError, match=r"no reply for 0.5 s .*500: kaboom \*\*\*\nAll responses so far are cached; run the same"
    ) as error:
        responses += [answer for batch in stream for answer in batch]
    assert KEY not in str(error.value)
    assert len(server.requests) < 200


def test_a_cut_connection_in_the_middle_is_an_outage_too(server: LoopbackServer, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = engine(server, give_up_s=0.3, max_retries=2).responses(requests(5000, 1), TEMPLATE, Sampling(0.5, 0, 4))
    next(stream)
    server.stop()
    with pytest.raises(UserError, match=r"no reply for 0.3 s .*(Connect|Disconnect)"):
        list(stream)
    monkeypatch.setattr(server, "stop", lambda: None)


def test_faults_of_all_kinds_change_no_votes(server: LoopbackServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """5,000 samples from a server that fails 30% of its calls are correct, or missing with a reason."""
    monkeypatch.setattr(calling, "HALVE_EVERY_S", 0.2)
    server.behave = seeded
    clean = ask(server, tasks=1250, concurrency=32, retries=2)
    assert len(clean) == 5000 and all(a.label for a in clean)

    draw = random.Random(0)
    wrong: set[tuple[str, int]] = set()
    quick = [reply for name, reply in FAULTS.items() if name not in ("hang", "deep")]

    def behave(body: dict) -> Reply:
        number = draw.random()
        if number > 0.30:
            return seeded(body)
        if number < 0.002:
            return FAULTS["hang"]
        if number < 0.03 and not is_probe(body):
            wrong.add((body["messages"][-1]["content"], body["seed"]))
            return chat([draw.choice(["bullish", "Sentiment:", "", "positive or negative", "усиление", '{"sentiment": "pos'])])
        return draw.choice(quick)

    server.behave = behave
    responses = ask(server, tasks=1250, concurrency=32, retries=2, timeout_s=0.5, max_retries=4)
    assert [(a.id, a.sample) for a in responses] == [(a.id, a.sample) for a in clean]
    failed = [a for a in responses if a.error]
    assert len(failed) < 50 and all(a.label is None for a in failed)
    again = [(f"text {a.id[1:]}", request_seed(0, a.id, a.sample, 0)) in wrong for a in responses]
    same = [a.label == b.label for a, b, retry in zip(responses, clean, again, strict=True) if not a.error and not retry]
    assert all(same) and len(same) > 4700
    assert 50 < sum(again) < 300
    assert len(server.bodies) > 5000 + 6000
