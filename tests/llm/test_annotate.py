import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from findistill.data.labels import LabelSet
from findistill.errors import UserError
from findistill.llm.annotate import annotate, response_cache
from findistill.llm.config import Annotate, EndpointLLM, InProcessLLM, Price, Prompt, Shots
from findistill.llm.engine import Engine, Request, Response, Sampling
from findistill.llm.identity import request_identity
from findistill.llm.prompts import Template
from findistill.llm.votes import draw_labels, needed
from findistill.schema import Config
from tests.llm.servers import LoopbackServer, after_probes, chat

LABELS = LabelSet(("negative", "neutral", "positive"))
TEXTS = pd.DataFrame(
    {"id": [f"t{i}" for i in range(10)], "text": [f"text {i}" for i in range(10)], "label": ["neutral", None] * 5}
)
POOL = TEXTS.iloc[:0]
SCORES = {"negative": -2.0, "neutral": -1.0, "positive": -0.7}


def config(steps: int = 0, price: float | None = None, **settings: object) -> Config:
    return Config(
        llm=EndpointLLM(name="fake", model="fake", price=Price(price, price), max_tokens=2),
        prompt=Prompt(name="direct", instruction="Classify.", steps=["Opinion:"][:steps]),
        shots=Shots(k=0),
        annotate=Annotate(**settings),  # type: ignore[arg-type]
    )


class FakeEngine(Engine):
    """Responds in batches of two, with early stopping as in real engines; is interrupted after `lasts` batches."""

    labels: tuple[str | None, ...] = ("positive", "neutral", "positive", None)

    def __init__(self, exact: bool = False, lasts: int = 999, fails: Iterable[tuple[str, int]] = ()) -> None:
        self._exact, self.lasts, self.fails, self.n_calls = exact, lasts, set(fails), 0
        self.tasks: list[Request] = []

    def exact(self, template: Template) -> bool:
        return self._exact

    def prepare(self, template: Template, sampling: Sampling) -> Template:
        return template

    def answer(self, task: Request, sample: int, template: Template) -> Response:
        if (task.id, sample) in self.fails:
            return Response(task.id, sample, error="timeout")
        label = template.known_label or self.labels[sample % len(self.labels)]
        return Response(task.id, sample, raw="x", label=label, rationale=(f"why {sample}",), tokens_in=3, tokens_out=1)

    def responses(self, tasks: Iterable[Request], template: Template, sampling: Sampling) -> Iterator[list[Response]]:
        batch: list[Response] = []
        for task in tasks:
            self.tasks.append(task)
            votes, samples = dict(task.votes), list(task.samples)
            while now := needed(votes, len(samples), sampling.stop_at):
                for sample in samples[:now]:
                    self.n_calls += 1
                    reply = Response(task.id, 0, log_probabilities=SCORES) if self._exact else self.answer(task, sample, template)
                    batch.append(reply)
                    if reply.label:
                        votes[reply.label] = votes.get(reply.label, 0) + 1
                samples = samples[now:]
            while len(batch) > 1:
                if self.lasts == 0:
                    raise KeyboardInterrupt
                self.lasts -= 1
                yield batch[:2]
                batch = batch[2:]
        if batch:
            yield batch


def run(
    texts: pd.DataFrame, pool: pd.DataFrame, settings: Config, folder: Path, engine: FakeEngine, cache: Path | None = None
) -> pd.DataFrame:
    sections = (settings.llm, settings.prompt, settings.shots, settings.annotate)
    annotate(texts, pool, LABELS, *sections, folder, cache=cache or folder / "cache", engine=engine)
    return pd.read_parquet(folder / "annotations.parquet")


@pytest.mark.parametrize("exact", [True, False])
def test_a_killed_run_goes_on_and_ends_in_the_same_files(exact: bool, tmp_path: Path) -> None:
    settings = config(samples=4)
    straight = run(TEXTS, POOL, settings, tmp_path / "straight", FakeEngine(exact))
    with pytest.raises(KeyboardInterrupt):
        run(TEXTS, POOL, settings, tmp_path / "cut", FakeEngine(exact, lasts=3))
    [file] = (tmp_path / "cut" / "cache").glob("*.jsonl")
    file.write_bytes(file.read_bytes()[:-9])  # truncate the last line
    assert not (tmp_path / "cut" / "annotations.parquet").exists()
    engine = FakeEngine(exact)
    resumed = run(TEXTS, POOL, settings, tmp_path / "cut", engine)
    assert engine.n_calls == (10 if exact else 40) - 5
    pd.testing.assert_frame_equal(resumed, straight)
    assert (tmp_path / "cut" / "samples.jsonl").read_text() == (tmp_path / "straight" / "samples.jsonl").read_text()
    again = FakeEngine(exact)
    run(TEXTS, POOL, settings, tmp_path / "cut", again)
    assert again.n_calls == 0


def test_nothing_is_asked_twice_for_a_larger_limit_or_more_samples(tmp_path: Path) -> None:
    shared = {"cache": tmp_path / "cache"}
    for exact, more in ((False, 7 * 4 + 10 * 2), (True, 7)):
        run(TEXTS.head(3), POOL, config(samples=4), tmp_path / "few", FakeEngine(exact), **shared)
        engine = FakeEngine(exact)
        frame = run(TEXTS, POOL, config(samples=6), tmp_path / "all", engine, **shared)
        assert engine.n_calls == more and frame["n_samples"].tolist() == [6] * 10
    # Another prompt, temperature or seed means new requests; calibration, for exact scores, does not.
    edited = config(samples=4)
    edited.prompt.instruction = "Classify it."
    for exact, settings, calls in [
        (False, edited, 40), (False, config(samples=4, temperature=0.7), 40), (False, config(samples=4, seed=1), 40),
        (True, config(samples=4, temperature=0.7, calibration="batch", seed=1), 0),
    ]:  # fmt: skip
        engine = FakeEngine(exact)
        run(TEXTS, POOL, settings, tmp_path / "other", engine, **shared)
        assert engine.n_calls == calls


def test_columns_of_sampled_answers(tmp_path: Path) -> None:
    frame = run(TEXTS, POOL, config(samples=4), tmp_path, FakeEngine())
    assert list(frame.columns) == [
        "id", "text", "label", "gold", "agreement", "n_valid", "n_samples",
        "soft_negative", "soft_neutral", "soft_positive", "rationale", "confidence",
    ]  # fmt: skip
    row = frame.iloc[0]
    assert (row["label"], row["gold"], row["agreement"], row["n_valid"], row["n_samples"]) == ("positive", "neutral", 2, 3, 4)
    assert row["rationale"] == "why 0"
    assert frame["gold"].isna().sum() == 5
    rows = [json.loads(line) for line in (tmp_path / "samples.jsonl").read_text().splitlines()]
    assert len(rows) == 40 and rows[1]["text"] == "text 0" and rows[3]["label"] is None
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert (summary["requests"], summary["valid"], summary["tokens_in"], summary["cost_usd"]) == (40, 30, 120, None)


def test_exact_distributions_are_kept(tmp_path: Path) -> None:
    frame = run(TEXTS, POOL, config(samples=8), tmp_path, FakeEngine(exact=True))
    assert frame[["p_negative", "p_neutral", "p_positive"]].sum(axis=1).tolist() == pytest.approx([1] * 10)
    assert frame["p_positive"][0] == pytest.approx(0.4967, abs=1e-3)
    assert frame["agreement"].nunique() > 1  # samples are drawn, not copied
    other = run(TEXTS, POOL, config(samples=8, seed=1), tmp_path, FakeEngine(exact=True))
    assert other["agreement"].tolist() != frame["agreement"].tolist()


def test_failed_calls_are_told_and_asked_again(tmp_path: Path) -> None:
    failures = [(f"t{i}", 1) for i in range(5)]
    with pytest.raises(UserError, match="5 of 20 responses failed, mostly with: timeout"):
        run(TEXTS, POOL, config(samples=2), tmp_path, FakeEngine(fails=failures))
    engine = FakeEngine()
    assert run(TEXTS, POOL, config(samples=2), tmp_path, engine)["n_valid"].tolist() == [2] * 10
    assert engine.n_calls == 5
    thin = run(TEXTS, POOL, config(samples=2, max_failed=0.5), tmp_path / "thin", FakeEngine(fails=failures))
    assert thin["n_valid"].tolist() == [1] * 5 + [2] * 5 and set(thin["n_samples"]) == {2}


def test_early_stopping_leaves_the_rows_of_a_threshold_as_they_are(tmp_path: Path) -> None:
    class Varied(FakeEngine):
        def answer(self, task: Request, sample: int, template: Template) -> Response:
            number = int(task.id[1:])
            label = "positive" if sample % (2 + number % 4) else "neutral"
            return Response(task.id, sample, raw=label, label=label)

    every = run(TEXTS, POOL, config(samples=8), tmp_path / "all", Varied())
    engine = Varied()
    early = run(TEXTS, POOL, config(samples=8, stop_at=5), tmp_path / "early", engine)
    assert engine.n_calls == early["n_samples"].sum() < 80
    pd.testing.assert_series_equal(early["label"], every["label"])
    assert ((early["agreement"] >= 5) == (every["agreement"] >= 5)).all()
    # Interrupted anywhere and resumed, it stops at the same samples.
    for lasts in (1, 5, 20):
        with pytest.raises(KeyboardInterrupt):
            run(TEXTS, POOL, config(samples=8, stop_at=5), tmp_path / f"cut{lasts}", engine := Varied(lasts=lasts))
        again = run(TEXTS, POOL, config(samples=8, stop_at=5), tmp_path / f"cut{lasts}", Varied())
        pd.testing.assert_frame_equal(again, early)


def test_a_budget_stops_before_it_is_passed_and_can_be_raised(tmp_path: Path) -> None:
    price = 1e6 / 1000  # 0.001 $ a token: each answer costs 0.004 $, a text of four samples 0.016 $
    with pytest.raises(UserError, match=r"max_cost_usd=0.1: \$0\.0\d+ is spent, and \d of 10 texts are done"):
        run(TEXTS, POOL, config(samples=4, price=price, max_cost_usd=0.1), tmp_path, first := FakeEngine())
    assert 0 < first.n_calls < 40 and first.n_calls * 0.004 <= 0.1
    with pytest.raises(UserError, match=r"max_cost_usd=0.1"):
        run(TEXTS, POOL, config(samples=4, price=price, max_cost_usd=0.1), tmp_path, again := FakeEngine())
    assert again.n_calls == 0  # earlier spending counts
    run(TEXTS, POOL, config(samples=4, price=price, max_cost_usd=1.0), tmp_path, second := FakeEngine())
    assert first.n_calls + second.n_calls == 40
    assert json.loads((tmp_path / "summary.json").read_text())["cost_usd"] == pytest.approx(0.16)


def test_the_llm_explains_demonstrations(tmp_path: Path) -> None:
    pool = pd.DataFrame({"id": range(30), "text": [f"pool text {i}" for i in range(30)], "label": [*LABELS.names] * 10})
    settings = config(steps=1, samples=2)
    settings.shots = Shots(k=3, selection="balanced", rationales="llm")
    engine = FakeEngine()
    run(TEXTS, pool, settings, tmp_path, engine)
    explained = [task for task in engine.tasks if task.id.startswith("shot:")]
    assert len(explained) == 3
    for task in explained:  # hand-written examples of the label show what a rationale is
        assert len(task.demonstrations) == 4 and all(each.rationale for each in task.demonstrations)
        assert len({each.label for each in task.demonstrations}) == 1
    demonstrations = next(task for task in engine.tasks if task.id == "t0").demonstrations
    assert [each.rationale for each in demonstrations] == [("why 0",)] * 3
    # Their rationales have a separate cache, whatever the order of the demonstrations and the texts.
    settings.shots.order_seed = 2
    run(TEXTS.head(2), pool, settings, tmp_path, other := FakeEngine(), tmp_path / "cache")
    assert {task.id for task in other.tasks} == {"t0", "t1"}
    settings.prompt.steps = []  # then there is nothing to explain
    run(TEXTS, pool, settings, tmp_path / "direct", direct := FakeEngine())
    assert not [task for task in direct.tasks if task.id.startswith("shot:")]


def test_jobs_that_may_ask_the_same_share_a_cache_and_others_run_beside_them() -> None:
    pools = {name: pd.DataFrame({"text": [f"{name} {i}" for i in range(3)]}) for name in ("tfns", "phrasebank")}

    def name(data: str = "tfns", model: str = "m", **shots: Any) -> str:
        settings = config()
        settings.llm.model = model
        return response_cache(Path(), settings.llm, settings.prompt, Shots(**shots), pools[data]).path.name

    assert name(k=0, selection="random", seed=1) == name(k=0, selection="nearest")
    assert name(k=4, selection="nearest", seed=1) == name(k=4, selection="nearest", seed=2)
    apart = [name(k=4, seed=seed, selection="random", data=data) for seed in (1, 2) for data in ("tfns", "phrasebank")]
    apart += [name(k=3, seed=1, selection="random"), name(k=4, seed=1, selection="random", model="n"), name(k=0)]
    assert len(set(apart)) == 7


def test_contextual_calibration(tmp_path: Path) -> None:
    class Biased(FakeEngine):
        def responses(self, tasks: Iterable[Request], template: Template, sampling: Sampling) -> Iterator[list[Response]]:
            for task in tasks:
                self.n_calls += 1
                content = {"t0": 1.0}.get(task.id, 0.0)
                yield [Response(task.id, 0, log_probabilities=SCORES | {"negative": SCORES["negative"] + content})]

    frame = run(TEXTS, POOL, config(samples=1, calibration="contextual"), tmp_path, engine := Biased(exact=True))
    assert engine.n_calls == 10 + 3
    # Scores that every text gets are bias; those that only t0 gets are not.
    assert frame["p_neutral"][1] == pytest.approx(1 / 3)
    assert frame["p_negative"][0] == pytest.approx(2.718 / 4.718, abs=1e-3)


def test_draws_follow_the_distribution_and_depend_on_the_seed_only() -> None:
    labels = draw_labels(SCORES, 0.5, "seed\0id", 20_000)
    assert labels.count("positive") / 20_000 == pytest.approx(0.6162, abs=0.015)  # e^-1.4 / (e^-4 + e^-2 + e^-1.4)
    assert draw_labels(SCORES, 0.5, "seed\0id", 8) == labels[:8]
    assert draw_labels(SCORES, 0.5, "seed\0other", 64) != labels[:64]
    assert set(draw_labels(SCORES, 0, "seed\0id", 8)) == {"positive"}


def test_calibration_on_held_out_pool_rows(tmp_path: Path) -> None:
    pool = pd.DataFrame(
        {"id": range(80), "text": [f"pool text {i}" for i in range(80)], "label": ["negative"] * 60 + ["neutral"] * 20}
    )
    settings = config(samples=8, calibration="pool")
    settings.shots = Shots(k=4, selection="random")
    engine = FakeEngine(exact=True)
    frame = run(TEXTS, pool, settings, tmp_path, engine)
    assert engine.n_calls == 10 + 40
    assert list(frame["id"]) == list(TEXTS["id"])
    # The model scores all texts alike, so the result is about the roots of the label shares in the held-out rows,
    # sqrt(3) : 1 : 0, plus the little that the prior gives the label without any rows.
    assert frame["p_negative"][0] == pytest.approx(0.6, abs=0.07)
    assert json.loads((tmp_path / "calibration.json").read_text())["rows"] == 40
    # Held-out rows get the same demonstrations as the texts, and are not among them.
    assert len({task.demonstrations for task in engine.tasks}) == 1
    texts = {task.text for task in engine.tasks if task.id.startswith("pool:")}
    assert len(texts) == 40 and not texts & {each.text for each in engine.tasks[0].demonstrations}
    again = FakeEngine(exact=True)
    pd.testing.assert_frame_equal(run(TEXTS, pool, settings, tmp_path, again), frame)
    assert again.n_calls == 0


def test_auto_calibrates_where_it_can(tmp_path: Path) -> None:
    pool = pd.DataFrame({"text": [f"pool text {i}" for i in range(50)], "label": ["negative"] * 50})
    for name, engine, rows, calls in [
        ("exact", FakeEngine(exact=True), pool, 35),
        ("few", FakeEngine(exact=True), pool.head(49), 10),
        ("sampled", FakeEngine(exact=False), pool, 20),
    ]:
        run(TEXTS, rows, config(samples=2, calibration="auto"), tmp_path / name, engine)
        assert engine.n_calls == calls


def test_what_changes_no_response_is_no_part_of_the_annotator() -> None:
    one = config().llm
    fast = EndpointLLM(name="other", model="fake", price=Price(1, 1), max_tokens=2, timeout_s=1, max_retries=0)
    assert request_identity(fast) == request_identity(one) != request_identity(EndpointLLM(model="fake"))
    endpoint = EndpointLLM(model="m", base_url="https://me:secret@host/v1")
    assert request_identity(endpoint)["base_url"] == "https://host/v1"


def test_an_adapter_is_known_by_its_weights(tmp_path: Path) -> None:
    for name, weights in (("one", b"a"), ("copy", b"a"), ("other", b"b")):
        (tmp_path / name / "model").mkdir(parents=True)
        (tmp_path / name / "model" / "adapter_model.safetensors").write_bytes(weights)
    one, copy, other = (
        request_identity(InProcessLLM(model="m", adapter=str(tmp_path / name))) for name in ("one", "copy", "other")
    )
    assert one == copy != other
    assert request_identity(InProcessLLM(model="m", adapter="hub/id"))["adapter"] == "hub/id"


def test_a_local_model_is_known_by_its_files_and_not_by_its_place(tmp_path: Path) -> None:
    """Responses of weights that were overwritten must not be served for the new ones."""
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(b"a")

    def identity(name: str) -> dict[str, object]:
        return request_identity(InProcessLLM(model=str(tmp_path / name)))

    assert identity("here") == identity("there")
    (tmp_path / "there" / "model.safetensors").write_bytes(b"other")
    assert identity("here") != identity("there")
    assert request_identity(InProcessLLM(model="org/model"))["model"] == "org/model"


def test_mistakes(tmp_path: Path) -> None:
    for settings, message in [
        ({"calibration": "batch"}, "needs label probabilities"),
    ]:
        with pytest.raises(UserError, match=message):
            run(TEXTS, POOL, config(**settings), tmp_path / "x", FakeEngine(exact=False))
    with pytest.raises(UserError, match="no texts"):
        run(TEXTS.head(0), POOL, config(), tmp_path / "x", FakeEngine())
    with pytest.raises(UserError, match="column id"):
        run(pd.concat([TEXTS, TEXTS]), POOL, config(), tmp_path / "x", FakeEngine())


def test_cached_responses_are_parsed_anew_and_not_paid_for_again(
    server: LoopbackServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.behave = after_probes(lambda body: chat(["Opinion: it fell.\nSentiment: not positive, negative"] * body.get("n", 1)))
    settings = config(steps=1, samples=2)
    settings.llm = EndpointLLM(
        "findistill.llm.endpoint.EndpointEngine", name="endpoint", model="m", base_url=server.url, api_key_env="TEST_KEY"
    )

    def run(name: str) -> pd.DataFrame:
        annotate(
            TEXTS, POOL, LABELS, settings.llm, settings.prompt, settings.shots, settings.annotate, tmp_path / name,
            cache=tmp_path / "cache",
        )  # fmt: skip
        return pd.read_parquet(tmp_path / name / "annotations.parquet")

    with monkeypatch.context() as older:  # an earlier version's parser
        older.setattr(Template, "parse", lambda *_, **__: "positive")
        older.setattr(Template, "rationale", lambda *_: ("nothing",))
        assert set(run("before")["label"]) == {"positive"}
    requests = len(server.requests)
    now = run("now")
    assert set(now["label"]) == {"negative"} and set(now["rationale"]) == {"it fell."}
    assert (now["n_valid"] == 2).all() and len(server.requests) == requests
    lines = [json.loads(line) for line in (tmp_path / "now" / "samples.jsonl").read_text().splitlines()]
    assert {line["label"] for line in lines} == {"negative"}
