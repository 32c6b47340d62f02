"""`llm=batch_api` against a loopback imitation of files and batches: nothing is requested twice, whatever happens."""

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest

from findistill.config.validate import validate
from findistill.data.labels import LabelSet
from findistill.errors import UserError
from findistill.llm import batch_api, pricing
from findistill.llm import server as calling
from findistill.llm.annotate import annotate
from findistill.llm.batch_api import BatchEngine
from findistill.llm.batch_ledger import Call, Ledger
from findistill.llm.batch_server import BatchServer
from findistill.llm.config import Annotate, BatchLLM, EndpointLLM, Price, Prompt, Shots
from findistill.llm.extract import extract
from findistill.llm.identity import request_identity
from findistill.methods.augment import writing
from tests.config.test_compose import composed
from tests.fixtures.jobs import run_job
from tests.llm.batch_servers import BatchLoopback
from tests.llm.servers import KEY, Reply, after_probes, chat, refusal, sampling
from tests.llm.test_extract import COMPANY, PROMPT, TEXTS, names
from tests.methods.augment.test_writing import NUMBERS, ROWS, author, by_method, config, sections
from tests.strangers import imitations

LABELS = LabelSet(("negative", "neutral", "positive"))
POOL = pd.DataFrame({"id": [], "text": [], "label": []})
HALF = Price(2.0, 4.0, factor=0.5)


def texts(count: int) -> pd.DataFrame:
    return pd.DataFrame({"id": [f"t{i}" for i in range(count)], "text": [f"text {i}" for i in range(count)], "label": None})


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[BatchLoopback]:
    monkeypatch.setenv("TEST_KEY", KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(calling, "FIRST_PAUSE_S", 0.002)
    running = BatchLoopback(sampling)
    yield running
    running.stop()


def llm_at(server: BatchLoopback) -> BatchLLM:
    settings = {"name": "x", "model": "m", "base_url": server.url, "api_key_env": "TEST_KEY", "poll_s": 0.01}
    return BatchLLM(_target_="findistill.llm.batch_api.BatchEngine", **settings)  # type: ignore[arg-type]


class Run:
    """Annotation runs in one folder against one server."""

    def __init__(self, server: BatchLoopback, folder: Path, **settings: object) -> None:
        self.server, self.folder, self.settings = server, folder, settings

    def __call__(
        self, count: int = 20, *, engine: type = BatchLLM, annotating: dict | None = None, **changed: object
    ) -> pd.DataFrame:
        values = {
            "base_url": self.server.url,
            "api_key_env": "TEST_KEY",
            "poll_s": 0.01,
            "price": HALF,
            **self.settings,
            **changed,
        }
        target = "batch_api.BatchEngine" if engine is BatchLLM else "endpoint.EndpointEngine"
        values = {name: value for name, value in values.items() if name in engine.__dataclass_fields__}
        llm = engine(_target_=f"findistill.llm.{target}", name="x", model="m", **values)
        sections = (
            llm,
            Prompt(name="direct", instruction="Classify."),
            Shots(k=0),
            Annotate(**{"samples": 4, **(annotating or {})}),
        )
        annotate(texts(count), POOL, LABELS, *sections, self.folder / "out", cache=self.folder / "cache")
        return pd.read_parquet(self.folder / "out" / "annotations.parquet")

    @property
    def under_way(self) -> list[str]:
        return sorted(path.suffix for path in (self.folder / "cache").glob("*.batches/*"))

    def file_contents(self) -> str:
        return "".join(path.read_text() for path in self.folder.rglob("*") if path.is_file() and path.suffix != ".parquet")


@pytest.fixture
def run(server: BatchLoopback, tmp_path: Path) -> Run:
    return Run(server, tmp_path)


def test_texts_are_answered_whatever_the_order_and_at_half_the_price(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="findistill")
    frame = run(50)
    assert (frame["n_valid"] == 4).all() and frame["text"].tolist() == [f"text {i}" for i in range(50)]
    [batch] = run.server.batches.values()
    assert len(batch["lines"]) == 49 and {line["body"]["n"] for line in batch["lines"]} == {4}
    answers = {body["messages"][-1]["content"]: body for body in map(json.loads, run.server.contents)}
    assert set(answers) == {f"text {i}" for i in range(50)}
    summary = json.loads((run.folder / "out" / "summary.json").read_text())
    assert summary["cost_usd"] == pytest.approx(50 * (7 * 2 + 2 * 4) / 1e6 / 2)
    assert "submitted batch_1: 49 requests" in caplog.text and "completed, 49 of 49 requests" in caplog.text
    assert run.under_way == [] and KEY not in run.file_contents() + caplog.text


def test_the_cache_is_that_of_single_calls(run: Run) -> None:
    run(10)
    before = len(run.server.bodies)
    run(10, engine=EndpointLLM)
    assert all(len(body["messages"]) == 1 for body in run.server.bodies[before:])  # probes
    run(14, engine=EndpointLLM)
    run(16)
    assert run.server.sizes == [9, 1]
    settings = {"name": "x", "model": "m", "base_url": "http://127.0.0.1/v1"}
    assert request_identity(BatchLLM(**settings)) == request_identity(EndpointLLM(**settings))


def test_a_call_is_the_one_that_a_single_call_makes(run: Run, tmp_path: Path) -> None:
    run(3)
    Run(run.server, tmp_path / "other")(3, engine=EndpointLLM)
    assert sorted(run.server.contents.values()) == [2, 2, 2]


STEPS = ["upload", "create", "_ended", "_collect"]


def killed_at(step: str, monkeypatch: pytest.MonkeyPatch, *, before: bool) -> None:
    """Die at a step of the driver, before it starts or just before it returns."""
    home = BatchServer if step in ("upload", "create") else batch_api.Batches
    original = getattr(home, step)

    async def dying(self: object, *arguments: object) -> object:
        if not before:
            await original(self, *arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(home, step, dying)


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("step", STEPS)
def test_killed_at_any_step_nothing_is_requested_twice(step: str, before: bool, run: Run) -> None:
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        killed_at(step, patch, before=before)
        run(20, max_requests=8)
    frame = run(20, max_requests=8)
    assert (frame["n_valid"] == 4).all()
    assert set(run.server.contents.values()) == {1} and len(run.server.contents) == 20
    assert run.under_way == []


def test_killed_for_real_between_submission_and_collection(run: Run) -> None:
    kill_and_resume(run, 200)


@pytest.mark.slow
def test_ten_thousand_requests_killed_between_submission_and_collection(run: Run) -> None:
    kill_and_resume(run, 10_000)


def kill_and_resume(run: Run, count: int) -> None:
    """SIGKILL a process while its batches are in progress; another collects them."""
    run.server.hold.set()
    code = (
        "import os, signal, sys; from pathlib import Path; from types import SimpleNamespace\n"
        "from findistill.llm import batch_api; from tests.llm.test_batch_api import Run\n"
        "async def die(self): os.kill(os.getpid(), signal.SIGKILL)\n"
        "batch_api.Batches._ended = die\n"
        "Run(SimpleNamespace(url=sys.argv[1]), Path(sys.argv[2]))(int(sys.argv[3]), max_requests=int(sys.argv[3]) // 4)\n"
    )
    command = [sys.executable, "-c", code, run.server.url, str(run.folder), str(count)]
    root = str(Path(__file__).parents[2])
    env = {**os.environ, "PYTHONPATH": f"{root}/src:{root}"}
    assert subprocess.run(command, cwd=root, env=env, timeout=300, capture_output=True).returncode == -9
    assert len(run.server.batches) == 4 and len(run.server.contents) == 1
    run.server.hold.clear()
    frame = run(count, max_requests=count // 4)
    assert len(run.server.batches) == 4 and (frame["n_valid"] == 4).all()
    assert set(run.server.answer_counts.values()) == {1} and len(run.server.answer_counts) == count - 1
    assert set(run.server.contents.values()) == {1} and len(run.server.contents) == count


def test_what_the_first_text_shows_is_left_out_of_the_batch(run: Run) -> None:
    def behave(body: dict) -> Reply:
        return refusal(400, "'system' role is not supported") if body["messages"][0]["role"] == "system" else sampling(body)

    run.server.behave = behave
    assert (run(5)["n_valid"] == 4).all() and run.server.sizes == [4]


def test_what_the_first_text_does_not_show_goes_into_a_further_batch(run: Run) -> None:
    def behave(body: dict) -> Reply:
        late = len(run.server.batches) and body["messages"][0]["role"] == "system"
        return refusal(400, "'system' role is not supported") if late else sampling(body)

    run.server.behave = behave
    assert (run(5)["n_valid"] == 4).all() and run.server.sizes == [4, 4]


def test_a_batch_whose_creation_got_no_reply_is_not_created_again(run: Run) -> None:
    for number in range(3):  # other batches of the account, so that there are several pages
        run.server.batches[f"other{number}"] = {"id": f"other{number}", "status": "completed", "metadata": None, "lines": []}
    run.server.late = {"POST batches": [502]}
    run(5)
    assert len(run.server.batches) == 4 and run.server.calls["POST batches"] == 1


@pytest.mark.parametrize("name", ["POST files", "POST batches", "GET batches", "GET content", "GET list"])
def test_a_rate_limit_and_a_broken_server_are_waited_for(name: str, run: Run) -> None:
    run.server.refuses = {name: [429, 503, 429]}
    assert (run(5)["n_valid"] == 4).all() and len(run.server.batches) == 1


def test_a_revoked_key_stops_the_run_and_a_valid_one_goes_on(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run.server.refuses = {"GET batches": [401]}
    with pytest.raises(UserError, match="refuses the key"):
        run(5)
    assert run.under_way == [".json", ".jsonl"]
    run(5)
    assert len(run.server.batches) == 1 and KEY not in run.file_contents()


def first_half(lines: list[dict]) -> list[dict]:
    return lines[: len(lines) // 2]


@pytest.mark.parametrize("status", ["completed", "expired", "cancelled"])
def test_what_a_batch_did_not_answer_is_requested_again(status: str, run: Run) -> None:
    run.server.ends = lambda number: status if number == 1 else "completed"
    run.server.answers = lambda lines: first_half(lines) if len(run.server.batches) == 1 else lines
    assert (run(21)["n_valid"] == 4).all()
    assert run.server.sizes == [20, 10]
    assert set(run.server.contents.values()) == {1}


def test_a_batch_that_never_answers_ends_in_failures(run: Run) -> None:
    run.server.answers = lambda lines: []
    with pytest.raises(UserError, match="missing from the output"):
        run(4, resubmit=2)
    assert len(run.server.batches) == 3 and run.under_way == []


def of_text(text: str, reply: Callable[[], Reply]) -> Callable[[dict], Reply]:
    return after_probes(lambda body: reply() if body["messages"][-1]["content"] == text else sampling(body))


def test_one_text_that_is_refused_is_its_own_failure(run: Run) -> None:
    run.server.behave = of_text("text 3", lambda: refusal(400, "violates our usage policy (content_filter)"))
    frame = run(20, annotating={"max_failed": 0.1})
    assert frame["n_valid"].tolist() == [4 * (i != 3) for i in range(20)]
    assert len(run.server.batches) == 1


def test_errors_of_single_requests_are_sent_again(run: Run) -> None:
    replies = iter([refusal(500, "The server had an error"), refusal(429, "slow down")])
    run.server.behave = of_text("text 3", lambda: next(replies, None) or chat(["positive"] * 4))
    assert (run(20)["n_valid"] == 4).all() and len(run.server.batches) == 3


def test_unreadable_responses_are_requested_again_and_their_tokens_counted(run: Run) -> None:
    replies = iter([chat(["positive", "hm", "negative", "who knows"])])
    run.server.behave = of_text("text 3", lambda: next(replies, None) or chat(["neutral"]))
    assert (run(5)["n_valid"] == 4).all()
    follow_up = list(run.server.batches.values())[1]["lines"]
    assert [Call.named(line["custom_id"]).attempt for line in follow_up] == [1, 1]
    lines = [json.loads(line) for line in (run.folder / "out" / "samples.jsonl").read_text().splitlines()]
    mine = [line for line in lines if line["text"] == "text 3"]
    assert sum(line["attempts"] for line in mine) == 3 and sum(line["tokens_in"] for line in mine) == 21


def test_early_stopping_takes_further_batches(run: Run) -> None:
    run.server.behave = after_probes(lambda body: chat(["positive"] * body["n"]))
    frame = run(6, annotating={"stop_at": 3})
    assert (frame["n_samples"] == 3).all()


def test_a_server_without_n_gets_a_call_a_sample(run: Run) -> None:
    run.server.behave = lambda body: sampling({**body, "n": 1})
    assert (run(5)["n_valid"] == 4).all()
    assert run.server.sizes == [16]


def test_batches_are_split_by_requests_and_by_size(run: Run) -> None:
    run(21, max_requests=8)
    assert run.server.sizes == [8, 8, 4]
    run(40, max_mb=0.003)
    assert all(len(content) <= 3000 for name, content in list(run.server.files.items())[6:] if b'"POST"' in content)
    assert sum(run.server.contents.values()) == 40


def test_a_limit_of_tokens_in_the_queue_makes_batches_smaller(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="findistill")
    run.server.failure = ("token_limit_exceeded", "Enqueued token limit reached for m")
    run.server.ends = lambda number: "failed" if len(list(run.server.batches.values())[number - 1]["lines"]) > 5 else "completed"
    assert (run(16)["n_valid"] == 4).all()
    assert set(run.server.contents.values()) == {1} and "Enqueued token limit" in caplog.text and run.under_way == []


def test_a_batch_that_is_refused_says_why_and_is_not_under_way(run: Run) -> None:
    run.server.failure, run.server.ends = ("model_not_found", f"no model m for {KEY}"), lambda number: "failed"
    with pytest.raises(UserError, match=r"llm.model=m .* rejected the batch batch_1: no model m for \*\*\*"):
        run(4)
    assert run.under_way == []


def test_waiting_is_bounded_and_the_same_command_goes_on(run: Run) -> None:
    run.server.hold.set()
    with pytest.raises(UserError, match=r"(?s)llm.wait_h=0: 0 of 19 requests in 1 batches .* no request is sent twice"):
        run(20, wait_h=0)
    run.server.hold.clear()
    run(20, wait_h=0)
    assert len(run.server.batches) == 1


def test_answers_that_nobody_requests_any_more_are_kept(run: Run) -> None:
    run.server.hold.set()
    with pytest.raises(UserError):
        run(20, wait_h=0)
    run.server.hold.clear()
    run(5)
    assert run.under_way == []
    run(20)
    assert len(run.server.batches) == 1 and set(run.server.answer_counts.values()) == {1}


def test_a_batch_that_the_server_does_not_know_names_its_file(run: Run) -> None:
    run.server.hold.set()
    with pytest.raises(UserError):
        run(5, wait_h=0)
    run.server.batches.clear()
    run.server.hold.clear()
    with pytest.raises(UserError, match=r"does not know batch_1, .*\n.*delete (\S+\.jsonl): its 4 requests") as error:
        run(5)
    Path(str(error.value).split("delete ")[1].split(": its")[0]).unlink()
    assert (run(5)["n_valid"] == 4).all() and run.under_way == []


def test_a_budget_is_kept_before_anything_is_submitted(run: Run) -> None:
    with pytest.raises(UserError, match="max_cost_usd"):
        run(20, annotating={"max_cost_usd": 0.0001})
    assert not run.server.batches


def test_rows_with_the_same_prompt_share_a_call(run: Run) -> None:
    same = texts(4).assign(text="text 0")
    sections = (llm_at(run.server), Prompt(name="direct", instruction="Classify."), Shots(k=0), Annotate(samples=4))
    annotate(same, POOL, LABELS, *sections, run.folder / "out", cache=run.folder / "cache")
    frame = pd.read_parquet(run.folder / "out" / "annotations.parquet")
    assert (frame["n_valid"] == 4).all() and len(run.server.contents) == 2  # the first text is a single call


def test_a_server_without_batches_says_so(run: Run) -> None:
    run.server.refuses = {"POST files": [404]}
    with pytest.raises(UserError, match="does not accept batches: 404"):
        run(4)


def test_a_file_without_a_state_was_never_sent(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "x.batches")
    batch = ledger.write([(Call(1, 0, 4), "{}", None)])
    (tmp_path / "x.batches" / f"{batch.name}.json").unlink()
    assert ledger.load() == [] and not list((tmp_path / "x.batches").iterdir())


def test_custom_ids_are_short_and_read_back() -> None:
    call = Call(2**64 - 1, 127, 128, 2, 3, 24)
    assert len(call.custom_id) <= 64 and Call.named(call.custom_id) == call


def test_the_engine_is_one_for_the_whole_run() -> None:
    assert BatchEngine.__mro__[1] is BatchLLM and pricing.cost(HALF, 1_000_000, 0) == 1.0


# -- callers of the engines --------------------------------------------------------------------------------------------


def test_entities_by_the_batch(run: Run) -> None:
    run.server.behave = after_probes(names)
    for _ in range(2):
        sections = (llm_at(run.server), PROMPT, Shots(k=0), Annotate(samples=3))
        extract(TEXTS, TEXTS.head(0), COMPANY, *sections, run.folder / "out", cache=run.folder / "cache")
    frame = pd.read_parquet(run.folder / "out" / "annotations.parquet")
    assert (frame["n_valid"] == 3).all() and frame["spans"].map(len).sum()
    assert set(run.server.contents.values()) == {1} and len(run.server.contents) == len(TEXTS)


def test_new_texts_by_the_batch(run: Run) -> None:
    run.server.behave = author
    settings = config()
    orders = writing.orders(by_method("rephrase"), ROWS, NUMBERS, LABELS, *sections(settings))
    for _ in range(2):
        result = writing.write(orders, llm_at(run.server), settings.augment, settings.annotate, cache=run.folder / "cache")
        assert result.rows and all(row["text"] for row in result.rows)
    assert set(run.server.contents.values()) == {1} and run.under_way == []


@pytest.mark.parametrize("preset", ["batch_api", "gpt4o_batch", "gpt5_batch"])
def test_a_preset_labels_a_file_and_answers_a_test_set(preset: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    run.server.behave = imitations.o1_mini if preset == "gpt5_batch" else imitations.openai
    pd.DataFrame({"text": ["Sales rose", "Sales fell, again", "The board meets"]}).to_csv(run.folder / "own.csv", index=False)
    at = [f"llm={preset}", f"llm.base_url={run.server.url}", "llm.poll_s=0.01", "shots.selection=random", "shots.k=2"]
    at += ["llm.model=m", "llm.price.per_million_in=2", "llm.price.per_million_out=8"] if preset == "batch_api" else []
    shots = ["annotate.samples=3", "shots.source='demo rows=300'"]  # several messages: a single one would pass for a probe
    settings = composed("stage=annotate", "data=csv", f"data.path={run.folder / 'own.csv'}", *at, *shots)
    validate(settings)
    job = run_job(settings, run.folder / "annotate")
    assert (pd.read_parquet(job.parents["annotations"] / "annotations.parquet")["n_valid"] == 3).all()
    assert job.metrics["cost/usd"] > 0
    if preset == "batch_api":
        few = composed("stage=fewshot", "data=demo", "fewshot.limit=6", "annotate.samples=1", *at)
        batches = len(run.server.batches)
        assert "test/accuracy" in run_job(few, run.folder / "fewshot").metrics and len(run.server.batches) == batches + 1
