"""`stage=augment`: where new texts come from, which are kept, and which models train on them."""

import itertools
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
from hydra import compose
from hypothesis import given, settings
from hypothesis import strategies as st
from rapidfuzz import fuzz

from findistill.config.validate import validate
from findistill.core.job import artifacts_read, ephemeral
from findistill.core.step import Step, load
from findistill.core.store import Store, Work
from findistill.data.texts import COLUMNS
from findistill.errors import UserError
from findistill.inference.predict import Prediction
from findistill.llm.curve import CostCurve
from findistill.methods import rows as reading
from findistill.methods.annotate.annotations import cost_curve
from findistill.methods.annotate.steps import Annotations
from findistill.methods.augment import making
from findistill.methods.augment.screening import Screening
from findistill.methods.augment.steps import OF_ERRORS, Augmented
from findistill.methods.augment.teacher import Teacher
from findistill.methods.stage import stage_of
from findistill.models import embeddings
from findistill.models.weights import locate
from findistill.schema import Config
from tests.fixtures.composing import shipped
from tests.fixtures.jobs import run_job
from tests.llm.servers import KEY, LoopbackServer, Reply, chat, is_probe, seeded


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random one-layer BERT."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertModel

    folder = tmp_path_factory.mktemp("tiny")
    torch.manual_seed(0)
    BertModel(BertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)).save_pretrained(
        folder
    )
    AutoTokenizer.from_pretrained(locate("embedded:minilm_l6")).save_pretrained(folder)
    return folder


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackServer]:
    monkeypatch.setenv("TEST_KEY", KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    running = LoopbackServer()
    yield running
    running.stop()


def configured(*overrides: str) -> Config:
    with shipped():
        return cast(Config, compose("config", overrides=["logger=none", "evaluate.latency=false", *overrides]))


@pytest.fixture
def settings_of(tiny: Path, tmp_path: Path) -> Callable[..., Config]:
    def make(*overrides: str) -> Config:
        base = (
            "data.labelled=0",
            "teacher=folder",
            f"teacher.model={tiny}",
            "teacher.name=tiny",
            "teacher.epochs=1",
            "teacher.min_steps=100",
        )
        config = configured(*base, "evaluate.resamples=10", f"runs_dir={tmp_path}", *overrides)
        validate(config)
        return config

    return make


def work_of(config: Config, root: Path) -> Work:
    """The work that creates new texts, without its parents."""
    step = Augmented(config)
    return Work(step, step.config, root, {}, Store(root / ".artifacts"))


PRICED = ("llm.price.per_million_in=1", "llm.price.per_million_out=1")


def endpoint(server: LoopbackServer) -> tuple[str, ...]:
    return ("llm=endpoint", "llm.model=author", "llm.api_key_env=TEST_KEY", f"llm.base_url={server.url}")


LETTERS = ["".join(letters) for letters in itertools.permutations("aeinrst", 5)]


def close(texts: list[str], others: list[str]) -> float:
    return max((fuzz.ratio(text, other) for text in texts for other in others), default=0.0)


# -- the complete stage --------------------------------------------------------------------------------------------------


def test_new_texts_with_their_provenance_and_none_near_a_held_out_text(
    server: LoopbackServer,
    settings_of: Callable[..., Config],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(embeddings, "embed", lambda texts: np.array([[len(text), 1.0] for text in texts]))
    methods = ("stage=augment", "augment=tinyfinbert", "augment.methods=[generate,rephrase,vary,similar,words]")
    numbers = (
        "augment.per_text.generate=2",
        "augment.per_text.vary=2",
        "augment.per_text.similar=2",
        "augment.limit=9",
    )
    settings = (*methods, *numbers, "augment.relabel=none", "annotate.retries=0", "data.limit=110", *endpoint(server), *PRICED)
    config = settings_of(*settings)
    store = Store(tmp_path / ".artifacts")
    data = reading.dataset(store.at(Augmented(config).inputs["teacher"], tmp_path))
    split_texts = {name: data.split(name)["text"].tolist() for name in ("test", "validation", "train")}
    places, invent = iter(range(10**6)), random.Random(0)

    def writes(number: int) -> str:
        """One text of every kind that must be dropped, and one that may be kept."""
        of_test, of_validation = split_texts["test"][number % 50], split_texts["validation"][number % 50]
        content = [
            of_test.upper() + "!!", f"{of_validation}, too", split_texts["train"][number], "Sure, here it is", "Too short",
            " ".join(invent.choices(LETTERS, k=8)), " ".join(invent.choices(LETTERS, k=9)),
            "The same mill makes the same boards in every answer",
        ][number % 8]  # fmt: skip
        return f"New text: {content}\nSentiment: neutral" if number % 11 else "I would rather not."

    def author(body: dict) -> Reply:
        n = body.get("n", 1)
        return chat([str(next(places)) if is_probe(body) else writes(next(places)) for _ in range(n)])

    server.behave = author
    points: list[dict[str, float]] = []
    logger = SimpleNamespace(log_metrics=lambda point, step: points.append(point))
    job = run_job(config, tmp_path, loggers=[logger])
    [folder] = (tmp_path / ".artifacts").glob("augment-*[!k]")
    new, dropped = (pd.read_parquet(folder / f"{name}.parquet") for name in ("augmented", "dropped"))

    train = data.split("train").set_index("id")
    assert set(new["method"]) == {"generate", "rephrase", "vary", "similar", "words"} and new["id"].is_unique
    assert set(new["split"]) == {"train"} and set(new["source"]) == {"augment"} and new["source_id"].isin(train.index).all()
    assert new.loc[new["method"] == "similar", "label"].isna().all()
    labelled = new[new["method"] != "similar"]
    assert (labelled["label"].to_numpy() == train.loc[labelled["source_id"], "label"].to_numpy()).all()
    rows = new[new["method"] != "words"]
    assert set(rows["model"]) == {"author"} and set(rows["writer_label"]) == {"neutral"}
    assert set(rows["prompt"]) <= set(json.loads((folder / "prompts.json").read_text()))
    errors = pd.read_parquet(next((tmp_path / ".artifacts").glob("folds-*[!k]")) / "out_of_fold.parquet").set_index("id")
    wrong = errors.loc[new.loc[new["method"].isin(OF_ERRORS), "source_id"]]
    assert len(wrong) and (wrong["predicted"] != wrong["label"]).all()

    assert close(new["text"].tolist(), split_texts["test"] + split_texts["validation"]) < 90
    assert close(new["text"].tolist(), split_texts["train"]) < 90
    for name in ("test", "validation"):
        best = [close([text], split_texts[name]) for text in new["text"][:20]]
        assert (new[f"similarity_{name}"][:20] >= np.array(best) - 1e-3).all()
    reasons = ["unreadable", "echo of the prompt", "length", "close to a test text", "close to a validation text"]
    assert set(dropped["reason"]) >= {*reasons, "close to a training text", "close to another new text"}
    metrics = job.metrics
    assert metrics["augment/made"] == len(new) + len(dropped) and metrics["augment/kept"] == len(new)
    assert metrics["augment/labelled"] == len(labelled) and metrics["augment/unlabelled"] == len(new) - len(labelled)
    assert metrics["augment/dropped_close_to_a_test_text"] == (dropped["reason"] == "close to a test text").sum()
    assert metrics["augment/made_generate"] == 18 and metrics["augment/errors"] == (errors["predicted"] != errors["label"]).sum()

    # One curve over all prompts: each point has the running totals.
    responses = [point["annotation/responses"] for point in points]
    assert responses == sorted(set(responses)) and responses[-1] == metrics["augment/made"] - metrics["augment/made_words"]
    assert points[-1]["annotation/usd"] == pytest.approx(metrics["cost/usd"]) and points[-1]["annotation/usd"] > 0

    requests = len(server.requests)
    preview = settings_of(*settings, "annotate.dry_run=true", "annotate.show_prompt=true")
    with ephemeral(stage_of(preview), preview) as preview_job:
        load(stage_of(preview).preview or "")(preview_job)
    text = capsys.readouterr().out
    count = metrics["augment/made"] - metrics["augment/made_words"]
    assert f"{count:,.0f} texts to write, {count:,.0f} of them in the cache\n0 prompts" in text
    assert text.count("[system]") == len(json.loads((folder / "prompts.json").read_text())) and len(server.requests) == requests
    folder.rename(tmp_path / "aside")  # as if interrupted: the responses are cached, and the folds exist
    run_job(config, tmp_path, loggers=[logger])
    assert len(points) == len(responses)  # what is cached costs nothing
    assert len(server.requests) == requests and pd.read_parquet(folder / "augmented.parquet").equals(new)


# -- filters -------------------------------------------------------------------------------------------------------------

WORDS = ["profit", "rose", "fell", "in", "the", "third", "quarter", "EUR 5 mn", "sales", "of", "Nordic", "ships"]
SENTENCE = st.lists(st.sampled_from(WORDS), min_size=4, max_size=9).map(" ".join)


@settings(max_examples=50, deadline=None)
@given(st.lists(SENTENCE, max_size=25), st.lists(SENTENCE, min_size=1, max_size=6), st.lists(SENTENCE, max_size=4))
def test_nothing_that_passes_is_close_to_what_it_must_not_be_close_to(new: list[str], test: list[str], train: list[str]) -> None:
    edited = new + [text[:3] + text[4:] for text in test] + [text.title() + " !" for text in test]
    rows = {"id": [str(i) for i in range(len(edited))], "text": edited, "method": "vary", "source_id": "s", "echo": False}
    screening = Screening(pd.DataFrame(rows))
    screening.well_formed(2, 50)
    screening.far_from({"test": test})
    screening.new({"s": "a source"}, train, 90)
    assert len(screening.rows) + sum(map(len, screening.dropped)) == len(edited)
    texts = screening.texts
    for number, text in enumerate(texts):
        assert close([text], test) < 90 and close([text], train) < 90 and close([text], texts[:number]) < 90
        assert screening.rows["similarity_test"][number] >= close([text], test) - 1e-3


# -- relabelling ---------------------------------------------------------------------------------------------------------


def candidates(*labels: str | None) -> Screening:
    ids = [f"n{number}" for number in range(len(labels))]
    texts = [f"text {number}" for number in ids]
    return Screening(pd.DataFrame({"id": ids, "text": texts, "label": labels, "source_id": ["a", "b", "c", "d"][: len(labels)]}))


def test_only_models_that_know_the_source_relabel_and_each_round_asks_another(
    settings_of: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[str, str]] = []

    def predict(model: str, texts: list[str], trainer: Any) -> Prediction:
        calls.extend((model, text) for text in texts)
        # The model trained without fold 2 disagrees with the others.
        name = "negative" if model == "without 2" else "positive"
        shares = np.tile([0.9, 0.1] if name == "negative" else [0.2, 0.8], (len(texts), 1))
        return Prediction(shares, ("negative", "positive"), [name] * len(texts))

    monkeypatch.setattr(making, "predict", predict)
    rows = pd.DataFrame({"id": ["a", "b", "c", "d"], "fold": [0, 1, 2, 2]})
    models = Teacher(rows, ["without 0", "without 1", "without 2"])
    screening = candidates("positive", "positive", "positive", None)
    lost = making._relabel(work_of(settings_of("stage=augment"), tmp_path), cast(Any, None), screening, rows, models)
    assert {(model, text) for model, text in calls if text == "text n2"} == {("without 0", "text n2"), ("without 1", "text n2")}
    assert not {("without 0", "text n0"), ("without 1", "text n1")} & set(calls)
    assert screening.rows["id"].tolist() == ["n2", "n3"] and sum(lost.values()) == 2
    assert screening.rows["relabels"].tolist() == [2, 0]
    assert screening.rows["agreement"][0] == pytest.approx(0.8) and np.isnan(screening.rows["agreement"][1])


def test_the_llm_must_give_the_label_in_every_round(
    settings_of: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    curves: list[CostCurve] = []
    votes = {0: ["positive", "negative", "positive"], 1: ["positive", "negative"]}

    def annotate_with(work: Work, llm: Any, rows: pd.DataFrame, pool: Any, labels: Any, folder: Path) -> None:
        curves.append(cost_curve(work))
        folder.mkdir(parents=True)
        labelled = rows.assign(label=votes[work.config.annotate.seed], soft_positive=[0.75] * len(rows), soft_negative=0.25)
        labelled.to_parquet(folder / "annotations.parquet")

    monkeypatch.setattr(making, "annotate_with", annotate_with)
    monkeypatch.setattr(making.reading, "demonstration_pool", lambda work: None)
    work = work_of(settings_of("stage=augment", "augment.relabel=llm"), tmp_path)
    screening = candidates("positive", "positive", "positive")
    lost = making._relabel(work, SimpleNamespace(labels=None), screening, pd.DataFrame(), None)  # type: ignore[arg-type]
    assert screening.rows["id"].tolist() == ["n0"] and screening.rows["agreement"].tolist() == [0.75]
    assert lost == {"augment/relabel_1_dropped": 1, "augment/relabel_2_dropped": 1}
    assert work.config.annotate.seed == 0 and all(curve is cost_curve(work) for curve in curves) and len(curves) == 2


# -- use -----------------------------------------------------------------------------------------------------------------


def test_a_named_teacher_and_a_teacher_that_trains_on_the_new_texts(settings_of: Callable[..., Config], tmp_path: Path) -> None:
    plain = run_job(settings_of("stage=teacher", "data.limit=40"), tmp_path)
    assert plain.metrics["data/augmented"] == 0 and "augment" not in artifacts_read(plain.step, plain.store)
    words = ("data.limit=40", "augment.per_text.words=2", "augment.rounds=5")
    first = run_job(settings_of("stage=augment", *words, f"augment.teacher={plain.folder}"), tmp_path, tmp_path / "augment")
    assert "folds" not in artifacts_read(first.step, first.store) and first.metrics["augment/relabel_1_dropped"] > 0
    assert "augment/relabel_2_dropped" not in first.metrics  # a single model cannot disagree
    (tmp_path / "run").rename(tmp_path / "first")
    more = run_job(settings_of("stage=teacher", *words, "augment.use=true", f"augment.teacher={tmp_path / 'first'}"), tmp_path)
    assert (
        artifacts_read(more.step, more.store)["augment"] == artifacts_read(first.step, first.store)["augment"]
    )  # a teacher is identified by its weights, not by their location
    assert more.metrics["data/augmented"] > 0
    assert more.metrics["data/kept"] == plain.metrics["data/kept"] + more.metrics["data/augmented"]


def test_the_teachers_models_are_not_trained_again_for_another_memory_limit(settings_of: Callable[..., Config]) -> None:
    keys = {Augmented(settings_of("stage=augment", f"trainer.max_memory={limit}")).key for limit in ("8", "16")}
    assert len(keys) == 1


def test_annotations_include_new_texts_without_their_labels(
    server: LoopbackServer, settings_of: Callable[..., Config], tmp_path: Path
) -> None:
    server.behave = seeded
    config = settings_of("stage=annotate", "annotate.limit=20", "annotate.samples=3", "shots.k=0", *endpoint(server))

    class Two(Step):
        name = "augment"

        def run(self, work: Work) -> None:
            texts = ["Something new here", "And more news"]
            rows = {"id": ["w:1", "w:2"], "text": texts, "label": ["positive", None], "split": "train"}
            frame = pd.DataFrame({**dict.fromkeys(COLUMNS), **rows}, dtype=object)
            frame.to_parquet(work.folder / "augmented.parquet")

    store = Store(tmp_path / ".artifacts")
    votes = pd.read_parquet(store.build(Annotations(config, extra=Two(None))) / "annotations.parquet").set_index("id")
    assert len(votes) == 22 and votes.loc[["w:1", "w:2"], "label"].notna().all()
    assert votes.loc[["w:1", "w:2"], "gold"].isna().all()
    assert len(pd.read_parquet(store.build(Annotations(config)) / "annotations.parquet")) == 20


@pytest.mark.parametrize("stage", ["teacher", "student"])
def test_new_texts_are_part_of_a_job_only_where_they_are_used(stage: str) -> None:
    assert "augment" not in stage_of(configured(f"stage={stage}")).sections_read
    assert "augment" in stage_of(configured(f"stage={stage}", "augment.use=true")).sections_read


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["augment.methods=[invent]"], r"augment\.methods=\[invent\]: choose one or more of generate"),
        (["augment.methods=[]"], "choose one or more"),
        (["augment=llm", "augment.temperature=0"], r"augment\.temperature=0 makes all augment\.per_text\.rephrase=3"),
        (["augment.min_words=90"], "no text would pass"),
        (["augment.similarity=0"], "edit similarity"),
        (["augment.replace=1.5"], "probability"),
        (["augment.folds=1"], "at least 2"),
        (["augment.relabel=me"], "choose one of teacher, llm, none"),
        (["augment=llm", "llm=endpoint"], r"llm\.model is not set"),
        (["teacher=folder"], r"teacher\.model is not set"),
        (["data=reddit"], "human labels"),
        (["stage=student", "augment.use=true", "distill.source=human", "data=phrasebank"], "nobody voted"),
    ],
)
def test_mistakes(overrides: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        validate(configured("stage=augment", *overrides))
