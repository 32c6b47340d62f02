"""`stage=fewshot`: each test row is requested once, equivalent jobs give equal results, and a sweep loads the model once."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from findistill.core.job import Job, artifacts_read
from findistill.data.text_key import text_key
from findistill.errors import UserError
from findistill.methods import rows as reading
from findistill.methods.fewshot import responses
from findistill.models import embeddings
from findistill.models.weights import locate
from tests.conftest import Command
from tests.fixtures.composing import composed
from tests.fixtures.jobs import run_job
from tests.llm.servers import KEY, LoopbackServer, Reply, chat, is_probe

SMALL = (
    "stage=fewshot",
    "data.labelled=60",
    "fewshot.limit=12",
    "evaluate.resamples=20",
    "evaluate.latency=false",
    "logger=none",
)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random Llama with SmolLM2's tokenizer."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, set_seed

    folder = tmp_path_factory.mktemp("llm")
    tokenizer = AutoTokenizer.from_pretrained(locate("embedded:smollm2"))
    tokenizer.save_pretrained(folder)
    set_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        initializer_range=0.5, eos_token_id=tokenizer.eos_token_id, pad_token_id=2,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture
def run_fewshot(tiny: Path, tmp_path: Path) -> Callable[..., Job]:
    """Run the stage in this process, like the jobs of a sweep."""
    responses._LAST.clear()

    def run(*overrides: str, llm: tuple[str, ...] = (f"llm.model={tiny}", "llm.dtype=float32")) -> Job:
        config: Any = composed(*SMALL, *llm, *overrides)
        return run_job(config, tmp_path, tmp_path / "-".join(overrides).replace("/", "_"))

    return run


def predictions(job: Job, name: str = "predictions") -> pd.DataFrame:
    return pd.read_parquet(job.folder / f"{name}.parquet")


def answers(folder: Path) -> int:
    return sum(len(path.read_text().splitlines()) for path in folder.glob("**/responses/*.jsonl"))


def test_a_sweep_loads_the_model_once_embeds_the_pool_once_and_asks_nothing_twice(
    run_fewshot: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoModelForCausalLM

    loads, embedded = [], []
    load, embed = AutoModelForCausalLM.from_pretrained, embeddings.embed
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", lambda *a, **k: (loads.append(a), load(*a, **k))[1])
    monkeypatch.setattr(embeddings, "embed", lambda texts: (embedded.append(len(texts)), embed(texts))[1])
    embeddings._embedded.cache_clear()
    by_seed: dict[str, list[pd.DataFrame]] = {}
    keys = set()
    jobs = [
        (k, choice, seed) for k, choice in ((0, "random"), (0, "nearest"), (2, "nearest"), (4, "balanced")) for seed in (0, 1)
    ]
    for k, selection, seed in [*jobs, (3, "nearest", 0)]:
        job = run_fewshot(f"shots.k={k}", f"shots.selection={selection}", f"seed={seed}")
        keys.add(artifacts_read(job.step, job.store)["annotate"])
        by_seed.setdefault(f"{k} {selection}", []).append(predictions(job))
    assert len(loads) == 1
    assert embedded.count(60) == 1 and embedded.count(12) == 1  # the pool, the test texts
    assert len(keys) == 1 + 2 + 2  # no shots; the nearest, at two k; two random draws
    equal = {name: frames[0].equals(frames[1]) for name, frames in by_seed.items() if len(frames) > 1}
    assert equal == {"0 random": True, "0 nearest": True, "2 nearest": True, "4 balanced": False}
    assert by_seed["0 random"][0].equals(by_seed["0 nearest"][0])
    assert answers(job.store.root) == 12 * 5


def test_what_a_job_leaves(run_fewshot: Callable[..., Job]) -> None:
    job = run_fewshot("shots.k=2", "evaluate.also=['demo rows=900']", "evaluate.usd_per_hour=3.6", "evaluate.latency=true")
    frame = predictions(job)
    assert len(frame) == 12 and frame["id"].is_unique and frame["label"].value_counts().min() >= 3  # stratified
    assert frame[["p_negative", "p_neutral", "p_positive"]].sum(axis=1).round(6).eq(1).all()
    assert (frame["predicted"] == frame[["p_negative", "p_neutral", "p_positive"]].idxmax(axis=1).str[2:]).all()
    assert len(predictions(job, "predictions_demo")) == 12
    metrics = job.metrics
    assert metrics["test/n"] == 12 and metrics["test/accuracy_lo"] <= metrics["test/accuracy"] <= metrics["test/accuracy_hi"]
    assert metrics["demo/n"] == 12 and metrics["data/shots_dropped"] == 0
    assert metrics["cost/usd_per_1000_texts"] == pytest.approx(1 / metrics["throughput/texts_per_s"])
    assert metrics["latency/p50_ms"] > 0 and metrics["model/parameters"] > 1e6
    assert {path.stem for path in (job.folder / "figures").iterdir()} == {"confusion_matrix", "precision_recall"}
    larger = predictions(run_fewshot("shots.k=2", "fewshot.limit=20"))
    assert set(frame["id"]) < set(larger["id"])


def test_no_test_text_is_ever_a_demonstration(run_fewshot: Callable[..., Job], monkeypatch: pytest.MonkeyPatch) -> None:
    pools = []
    ask = responses.annotate_with

    def recording(work: Any, llm: Any, rows: pd.DataFrame, pool: pd.DataFrame, *rest: Any, **options: Any) -> None:
        pools.append((reading.dataset(work), pool))
        ask(work, llm, rows, pool, *rest, **options)

    monkeypatch.setattr(responses, "annotate_with", recording)
    run_fewshot("shots.k=2", "data.rows=900", "shots.source='demo rows=700 labelled=80'")
    data, pool = pools[0]
    tested = set(data.split("test")["text"].map(text_key))
    assert len(pool) and not tested & set(pool["text"].map(text_key))


def test_demonstrations_that_do_not_fit_are_counted(run_fewshot: Callable[..., Job], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        job = run_fewshot("shots.k=10", "llm.max_prompt_tokens=150")
    rows = [json.loads(line) for line in next(job.store.root.glob("annotate-*/samples.jsonl")).read_text().splitlines()]
    assert job.metrics["data/shots_dropped"] == sum(row["dropped"] or 0 for row in rows) > 12
    assert all(row["tokens_in"] <= 150 for row in rows) and "did not fit into their prompts" in caplog.text


def test_generation_counts_answers_without_a_label_as_wrong(run_fewshot: Callable[..., Job]) -> None:
    job = run_fewshot("fewshot.scoring=generation", "prompt=cot", "shots.k=0")
    frame = predictions(job)
    silent = frame["predicted"].isna()
    assert silent.any()  # a random model rarely names a label
    assert job.metrics["test/coverage"] == pytest.approx(1 - silent.mean())
    assert job.metrics["test/accuracy"] == pytest.approx((frame["predicted"] == frame["label"]).mean())


def test_a_server_is_read_by_its_text(run_fewshot: Callable[..., Job], monkeypatch: pytest.MonkeyPatch) -> None:
    def behave(body: dict) -> Reply:
        silent = "a" in body["messages"][-1]["content"][:9]
        return chat(["12" if is_probe(body) else "I would rather not say." if silent else "neutral"])

    server = LoopbackServer(behave)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    price = ("llm.price.per_million_in=1", "llm.price.per_million_out=2")
    llm = ("llm=endpoint", "llm.model=m", f"llm.base_url={server.url}", "llm.structured=never", *price)
    try:
        job = run_fewshot("shots.k=2", llm=llm)
    finally:
        server.stop()
    metrics, frame = job.metrics, predictions(job)
    assert 0 < metrics["test/coverage"] < 1 and metrics["test/coverage"] == pytest.approx(frame["predicted"].notna().mean())
    assert metrics["cost/usd_per_1000_texts"] == pytest.approx(1000 * (7 * 1 + 2 * 2) / 1e6)
    assert "latency/p50_ms" not in metrics and metrics["throughput/texts_per_s"] > 0


def test_what_cannot_fit_is_told_before_it_is_loaded(run_fewshot: Callable[..., Job]) -> None:
    with pytest.raises(UserError, match=r"llm=flan_t5_xl needs about"):
        run_fewshot("trainer.max_memory=4", llm=("llm=flan_t5_xl",))


@pytest.mark.slow
def test_a_study_beside_a_fine_tuned_model(findistill: Command, tmp_path: Path) -> None:
    teacher = findistill(
        "stage=teacher", "data.labelled=60", "study=s", "logger=none", "trainer.max_epochs=1", "evaluate.resamples=20"
    )
    assert teacher.returncode == 0, teacher.stderr
    result = findistill(
        "-m", *SMALL, "study=s", "shots.k=0,2", "shots.selection=random,nearest", "seed=0,1", "report.resamples=50"
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("smollm2: 135 M parameters") == 1
    table = pd.read_csv(tmp_path / "runs" / "s" / "table.csv").set_index("method")
    assert (table["test_rows"] == 12).all()  # the teacher too is scored on the sample
    assert table.loc["smollm2 direct k=2 random", "n_seeds"] == 2 and table.loc["smollm2 direct k=0", "n_seeds"] == 1
    assert "nearest-neighbour vote (k=2)" in table.index and "minilm_l6 on 54 human labels" in table.index
    figures = {path.stem for path in (tmp_path / "runs" / "s" / "figures").iterdir()}
    assert {"shots", "tuned_and_shots", "cost", "comparison"} <= figures
