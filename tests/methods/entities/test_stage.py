"""`stage=entities` as a user runs it: trained on each source of spans, scored and reported; and common mistakes."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hydra import compose

from findistill.config.compose import plain
from findistill.config.expand import expand
from findistill.core.files import read_json, write_json
from findistill.core.job import run
from findistill.core.step import Step
from findistill.data.serialization import read_folder
from findistill.data.span_counts import validation_scores
from findistill.data.spans import Span, to_cell
from findistill.errors import UserError
from findistill.methods.datasets import own
from findistill.methods.entities import models
from findistill.methods.entities.report import PART
from findistill.methods.entities.stage import per_label
from findistill.methods.report.stage import make
from findistill.methods.stage import stage_of
from findistill.report.config import Report
from findistill.stats.spans import evaluate
from tests.fixtures.composing import shipped
from tests.fixtures.spans import NAMES, draw, surfaces, write_jsonl
from tests.methods.cards import scores, valid_model_card

FAST = (
    "stage=entities", "entities.token.epochs=2", "entities.token.min_steps=null", "entities.token.max_length=32", "trainer=cpu",
    "entities.token.learning_rate=1e-2", "logger=none", "evaluate.resamples=50", "evaluate.latency=false", "callbacks=none",
)  # fmt: skip


@pytest.fixture(scope="module")
def hydra() -> Iterator[None]:
    with shipped():
        yield


@pytest.fixture(scope="module")
def settings(tiny: Path, hydra: None, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    path = write_jsonl(tmp_path_factory.mktemp("data") / "news.jsonl", draw(100))
    data = ("data=jsonl", f"data.path={path}", "data.spans_column=spans", "data.labels=[company]")
    return [*FAST, *data, f"entities.token.encoder={tiny}"]


def run_job(settings: list[str], root: Path, *more: str, folder: str = "job") -> Path:
    config: Any = expand(compose("config", [*settings, *more, f"runs_dir={root}", "study=names"]))
    place = root / "names" / folder
    run(config, stage_of(config), place)
    return place


@pytest.fixture(scope="module")
def study(settings: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seeds on human labels, and one on fewer texts with another logger."""
    root = tmp_path_factory.mktemp("runs")
    for number, more in enumerate((["seed=0"], ["seed=1"], ["seed=0", "data.limit=20", "logger=csv"])):
        run_job(settings, root, *more, folder=f"job-{number}")
    return root


def test_a_run_leaves_what_the_contract_names(study: Path) -> None:
    job = study / "names" / "job-0"
    metrics, frame = read_json(job / "metrics.json"), pd.read_parquet(job / "predictions.parquet")
    assert frame.columns.tolist() == ["id", "text", "spans", "predicted"] and len(frame) == metrics["test/n"] == 20
    assert metrics["test/f1_lo"] <= metrics["test/f1"] <= metrics["test/f1_hi"] and metrics["test/overlap_f1"] > 0.8
    assert {"test/precision", "test/recall", "val/f1", "time/train_s", "model/parameters", "data/kept"} <= set(metrics)
    marked = [[Span(**each) for each in cell] for cell in frame["predicted"]]
    assert any(name in own for own in surfaces(frame["text"].tolist(), marked) for name in NAMES)
    assert scores(valid_model_card(job / "model"))["Exact F1 of spans"] == metrics["test/f1"]
    card = (job / "model" / "README.md").read_text()
    assert "token-classification" in card and "| spans from | human annotators |" in card and "72 of jsonl" in card


def test_wandb_has_the_scores_of_each_type_by_split(settings: list[str], tmp_path: Path) -> None:
    offline = ("logger=wandb", "logger.wandb.mode=offline", "logger.wandb.artifacts=none")
    job = run_job(settings, tmp_path, *offline, "data.limit=20", "entities.token.epochs=1")
    metrics = read_json(job / "metrics.json")
    for split in ("val", "test"):
        tables = job.glob(f"wandb/offline-run-*/files/media/table/{split}/per_label_*.json")
        [table] = [read_json(path) for path in tables if "f1" not in path.name]
        assert table["columns"] == ["label", "precision", "recall", "f1", "spans"]
        assert table["data"] == [["company", *(metrics[f"{split}/{name}"] for name in table["columns"][1:])]]


def test_several_types_each_have_their_scores_in_every_split() -> None:
    gold, predicted = [[Span(0, 3, "company"), Span(5, 7, "place")]], [[Span(0, 3, "company"), Span(8, 9, "company")]]
    types = ("company", "place")
    metrics = evaluate(gold, predicted, types, resamples=10) | validation_scores(gold, predicted, types)
    frames = per_label(metrics, {"val": types, "test": types, "other": types})
    assert set(frames) == {"val", "test"}  # what was not measured is not shown
    for frame in frames.values():
        assert frame.to_dict("list") == {
            "label": ["company", "place"], "precision": [0.5, 0.0], "recall": [1.0, 0.0],
            "f1": [pytest.approx(2 / 3), 0.0], "spans": [1.0, 1.0],
        }  # fmt: skip


def test_a_report_has_models_seeds_and_the_curve(study: Path) -> None:
    make(study, "names", Report())
    table, by_seed = (pd.read_csv(study / "names" / f"{name}.csv") for name in ("entities", "entities_by_seed"))
    assert table["n_seeds"].tolist() == [2, 1] and table["labels_used"].tolist() == [72, 20] and len(by_seed) == 3
    page, words = (study / "names" / "report.html").read_text(), (study / "names" / "table.md").read_text()
    assert "Exact F1 by the number of labelled texts" in page and "token classifier on 72 texts, human labels" in words
    assert {path.stem for path in (study / "names" / "figures").glob("*.svg")} == {"entities", "entities_by_texts"}
    assert "again again" not in page  # no text of the data


def test_a_model_validated_on_human_labels_goes_before_one_that_agrees_with_its_annotator(study: Path, tmp_path: Path) -> None:
    shutil.copytree(study / "names", tmp_path / "names", ignore=shutil.ignore_patterns("scored"))
    other = tmp_path / "names" / "job-2"
    config = (other / "config.yaml").read_text()
    (other / "config.yaml").write_text(config.replace("source: human", "source: company_list"))
    write_json(other / "metrics.json", read_json(other / "metrics.json") | {"val/f1": 1.0})
    make(tmp_path, "names", Report())
    page = (tmp_path / "names" / "report.html").read_text()
    assert "20 texts, the company list" in page and "Best model: token classifier on 72 texts, human labels" in page


def test_a_report_compares_sources_on_as_many_texts(study: Path, tmp_path: Path) -> None:
    """Two seeds on human labels that find every span, and two on other labels that miss the spans of one text."""
    shutil.copytree(study / "names", tmp_path / "names", ignore=shutil.ignore_patterns("scored", "job-2"))
    for number in (0, 1):
        path = tmp_path / "names" / f"job-{number}" / "predictions.parquet"
        frame = pd.read_parquet(path)
        frame.assign(predicted=frame["spans"]).to_parquet(path)
        job = shutil.copytree(path.parent, tmp_path / "names" / f"other-{number}")
        config = (job / "config.yaml").read_text()
        (job / "config.yaml").write_text(config.replace("source: human", "source: company_list"))
        last = frame.index[frame["spans"].map(len) > 0][-1]
        frame.assign(predicted=[[] if at == last else cell for at, cell in frame["spans"].items()]).to_parquet(job / path.name)
    make(tmp_path, "names", Report())
    rows = pd.read_csv(tmp_path / "names" / "entities_sources.csv")
    assert rows["against"].tolist() == ["token classifier on 72 texts, human labels"]
    f1 = pd.read_csv(tmp_path / "names" / "entities.csv").set_index("source")["f1"]
    assert rows["difference"].tolist() == [pytest.approx(f1["company_list"] - 1)] and f1["company_list"] < f1["human"] == 1


def test_a_report_prices_what_was_timed_here_without_a_price(study: Path, tmp_path: Path) -> None:
    shutil.copytree(study / "names", tmp_path / "names", ignore=shutil.ignore_patterns("scored"))
    timed = {"job-0": {"throughput/texts_per_s": 100.0, "latency/p50_ms": 1.0}, "job-2": {"throughput/texts_per_s": 100.0}}
    for job, speed in timed.items():
        path = tmp_path / "names" / job / "metrics.json"
        write_json(path, read_json(path) | speed)
    make(tmp_path, "names", Report(usd_per_hour=0.36))
    table = pd.read_csv(tmp_path / "names" / "entities.csv")
    assert table["usd_per_1000_texts"].tolist() == [pytest.approx(0.001), pytest.approx(float("nan"), nan_ok=True)]


def test_an_llm_stands_beside_the_models_with_what_each_costs(settings: list[str], tmp_path: Path) -> None:
    job = run_job(settings, tmp_path, "evaluate.latency=true", "evaluate.usd_per_hour=0.1", "entities.token.epochs=1", folder="a")
    gold = pd.read_parquet(job / "predictions.parquet")
    with (tmp_path / "answers.jsonl").open("w") as file:  # right about all but the first text
        for at, (text, cell) in enumerate(zip(gold["text"], gold["spans"], strict=True)):
            answer = {"result": [text[each["start"] : each["end"]] for each in cell if at]}
            file.write(json.dumps({"text": text, "answer": json.dumps(answer), "tokens_in": 300, "tokens_out": 20}) + "\n")
    answers = (
        "entities.step=label", "extract.rows=test", "llm=recorded", f"llm.path={tmp_path / 'answers.jsonl'}", "shots.k=0",
        "llm.tokens_in_column=tokens_in", "llm.tokens_out_column=tokens_out", "llm.price.per_million_in=2",
        "llm.price.per_million_out=10", "annotate.samples=1", "annotate.temperature=0",
    )  # fmt: skip
    run_job(settings, tmp_path, *answers, folder="b")
    make(tmp_path, "names", Report())
    table = pd.read_csv(tmp_path / "names" / "entities.csv").set_index("method")
    [llm] = [name for name in table.index if not name.startswith("token")]
    assert table.loc[llm, "f1"] > 0.9 and table.loc[llm, "usd_per_1000_texts"] == pytest.approx(0.8)
    assert table["usd_per_1000_texts"].notna().all()
    assert (tmp_path / "names" / "figures" / "entities_cost.svg").exists()
    page = (tmp_path / "names" / "report.html").read_text()
    assert f"Selected on the validation split. {llm} scores higher on these texts" in page


def test_a_trained_model_is_scored_as_it_is(study: Path, settings: list[str]) -> None:
    model = f"entities.token.model={study / 'names' / 'job-0'}"
    job = run_job(settings, study, "entities.source=none", model, folder="scored")
    before, metrics = (read_json(each / "metrics.json") for each in (study / "names" / "job-0", job))
    assert metrics["test/f1"] == before["test/f1"] and "data/kept" not in metrics and not (job / "model").exists()


def test_a_key_depends_on_the_chosen_model_alone(settings: list[str]) -> None:
    def key(*more: str) -> str:
        return stage_of(compose("config", [*settings, *more])).key

    assert key() == key("entities.gliner.epochs=9", "entities.spacy.types=[GPE]")
    changed = ("entities.token.epochs=3", "entities.source=spacy", "entities.model=spacy", "seed=1")
    assert len({key(), *(key(each) for each in changed)}) == 5
    assert key("entities.source=spacy", "entities.spacy.types=[GPE]") != key("entities.source=spacy")


def test_runs_that_differ_in_the_recipe_of_another_model_are_repeats_of_one_method(settings: list[str]) -> None:
    """Happens when a study's later runs use a version in which another model has a new setting."""

    def method(*more: str) -> Any:
        return PART.identity(plain(expand(compose("config", [*settings, *more]))))[1]

    assert method() == method("entities.gliner.epochs=9", "entities.spacy.types=[GPE]", "entities.span_marker.min_steps=7")
    assert method() != method("entities.token.epochs=3") and method("entities.source=spacy") != method()


# Sources


class Answers(Step):
    """Replaces a language model's answers: half of the texts are annotated wrongly, with fewer votes."""

    name = "extractions"

    def __init__(self, config: Any, rows: str) -> None:
        super().__init__(config)

    def parents(self) -> dict[str, Step]:
        return own(self._config)


def answer(work: Any) -> None:
    rows = []
    for number, row in enumerate(read_folder(work.parents["data"]).split("train", "validation").itertuples()):
        sure = number % 2 == 0
        spans = row.spans if sure else to_cell([Span(0, len(row.text.split()[0]), "company")])
        cell = [{**each, "votes": 8 if sure else 5} for each in spans]
        rows.append({"id": row.id, "text": row.text, "spans": cell, "candidates": cell, "n_valid": 8, "n_samples": 8})
    pd.DataFrame(rows).to_parquet(work.folder / "annotations.parquet")


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Answers, "implementation", f"{__name__}:answer", raising=False)
    monkeypatch.setattr("findistill.methods.entities.steps.extractions", Answers)


@pytest.mark.parametrize(
    ("settings_of", "n_rows", "human"),
    [(["llm", "0.5"], 72, None), (["llm", "0.9"], 36, None), (["mixed", "0.9"], 72, 0.5)],
)
def test_answers_are_learnt_from_where_they_agree_enough(
    settings: list[str], tmp_path: Path, answers: None, settings_of: list[str], n_rows: int, human: float | None
) -> None:
    source, share = settings_of
    job = run_job(settings, tmp_path, f"entities.source={source}", f"entities.min_agreement={share}", "trainer.max_epochs=1")
    metrics = read_json(job / "metrics.json")
    assert metrics["data/kept"] == pytest.approx(n_rows, abs=10)
    assert metrics.get("data/human_share") == (None if human is None else pytest.approx(human, abs=0.15))


class Upper:
    def spans(self, texts: list[str]) -> list[list[Span]]:
        return [[Span(0, len(text.split()[0]), "company")] for text in texts]


def test_an_untrained_model_labels_the_texts(settings: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = models._part
    monkeypatch.setattr(models, "_part", lambda name, what: (lambda *_: Upper()) if name == "spacy" else known(name, what))
    job = run_job(settings, tmp_path, "entities.source=spacy", "trainer.max_epochs=1")
    assert read_json(job / "metrics.json")["data/spans"] == read_json(job / "metrics.json")["data/kept"] == 72


# Mistakes


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["data=demo"], r"needs human-annotated spans to score on; data=demo has none: use data=sentfin"),
        (["data.spans_column=null"], r"has none: set data.spans_column=COLUMN, or use"),
        (["entities.source=none"], r"set entities.token.model to a folder or hub id"),
        (["entities.model=spacy", "entities.source=llm"], r"entities.model=spacy is not trained"),
        (["entities.min_agreement=0.9"], r"needs entities.source=llm or entities.source=mixed"),
        (["entities.model=gliner", "trainer.layer_decay=0.9"], r"do not work with a GLiNER"),
        (["entities.model=glinre"], r"choose one of token, gliner.*did you mean gliner"),
    ],
)
def test_mistakes_are_refused_before_anything_is_loaded(settings: list[str], words: list[str], message: str) -> None:
    base = [each for each in settings if not (words[0] == "data=demo" and each.startswith("data"))]
    with pytest.raises(UserError, match=message):
        stage_of(compose("config", [*base, *words]))


def test_a_library_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(target: str) -> Any:
        raise ModuleNotFoundError("No module named 'gliner'", name="gliner.config")

    monkeypatch.setattr(models, "load", missing)
    remedy = r"entities.model=gliner needs the package gliner.\nInstall it: pip install 'findistill\[gliner\]'"
    with pytest.raises(UserError, match=remedy):
        models.open_model("gliner", {}, ["company"])


def test_no_span_at_all_is_nothing_to_learn(settings: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = models._part
    nothing = type("Nothing", (), {"spans": lambda self, texts: [[] for _ in texts]})
    monkeypatch.setattr(models, "_part", lambda name, what: (lambda *_: nothing()) if name == "spacy" else known(name, what))
    with pytest.raises(UserError, match=r"entities.source=spacy: none of the 72 training texts"):
        run_job(settings, tmp_path, "entities.source=spacy")
