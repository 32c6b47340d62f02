"""`stage=review` from suggestions to human labels, and what it refuses."""

import csv
import json
import os
import signal
from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from findistill.config.fields import declares
from findistill.core.job import Job
from findistill.data.dataset import Dataset
from findistill.data.loading import load
from findistill.errors import UserError
from findistill.methods import rows as reading
from findistill.methods.stage import stage_of
from tests.conftest import Command
from tests.fixtures.composing import composed
from tests.fixtures.jobs import job_of, run_job
from tests.fixtures.preloaded import Preloaded
from tests.methods.review.servers import KEY, LabelStudio, company

VERBS = {"rose": "positive", "fell": "negative", "was": None}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    rows = [f"n{number},Profit {list(VERBS)[number % 3]} {number}% 🚀" for number in range(60)]
    (tmp_path / "news.csv").write_text("\n".join(["id,text", *rows]))


NEWS = ("data=csv", "data.path=news.csv", "data.id_column=id")
RULES = ("llm=rules", "+llm.rules.positive=rose", "+llm.rules.negative=fell")
REVIEW = ("stage=review", *NEWS, *RULES, "review.size=30")


def rows_of(name: str) -> list[dict]:
    return list(csv.DictReader(StringIO(Path(name).read_bytes().decode("utf-8-sig"))))


def decide(name: str, label: str, number: int = 30, reviewer: str = "") -> None:
    rows = rows_of(name)
    for row in rows[:number]:
        row |= {"label": row["label"] or label, "done": "x", "reviewer": reviewer, "seconds": 3}
    pd.DataFrame(rows).to_csv(name, index=False)


def review(tmp_path: Path, *overrides: str) -> Job:
    return run_job(composed(*REVIEW, *overrides), tmp_path / "runs")


def test_a_review_becomes_human_labels(tmp_path: Path) -> None:
    job = review(tmp_path)
    assert job.metrics["review/pushed"] == 30 and job.metrics["review/decided"] == 0
    assert [row["label"] for row in rows_of("review.csv")] == [""] * 20 + ["positive", "negative"] * 5  # least certain first
    decide("review.csv", "neutral", 28)
    job = review(tmp_path)
    assert (job.metrics["review/pushed"], job.metrics["review/accepted"], job.metrics["review/seconds_per_text"]) == (0, 28, 3)
    reviewed = pd.read_parquet(job.folder / "reviewed.parquet")
    assert reviewed["status"].eq("accepted").all() and reviewed["reviewer"].eq("review").all()

    data = load(composed(*NEWS, f"data.reviewed={job.folder}/reviewed.parquet", "data.validation=0").data)
    labels = data.frame.set_index("id")["label"].dropna().to_dict()
    assert labels == {row.id: VERBS[row.text.split()[1]] or "neutral" for row in reviewed.itertuples()}
    assert "human labels of 28 texts from data.reviewed" in data.card.text()
    assert data.labels.names == ("negative", "neutral", "positive")

    # Decisions are the labels that everything trains on, and also human votes.
    votes = data.human_votes("train", "validation")
    assert set(votes["label"]) == set(data.labels.names) and votes["agreement"].eq(8).all()
    assert len(reading.labelled_rows(data)) + len(data.split("test", "validation")) == 28


@pytest.mark.parametrize("stage", ["stage=teacher", "stage=student distill.source=human", "stage=student distill.gold=true"])
def test_stages_that_need_human_labels_take_decisions_for_some(tmp_path: Path, stage: str) -> None:
    review(tmp_path)
    decide("review.csv", "neutral")
    path = review(tmp_path).folder / "reviewed.parquet"
    stage_of(composed(*stage.split(), *NEWS, *RULES, "distill.min_agreement=1", f"data.reviewed={path}"))


def test_what_is_decided_enters_the_key_and_where_it_lies_does_not(tmp_path: Path) -> None:
    frame = pd.DataFrame({"text": ["Profit rose 0% 🚀"], "label": ["positive"], "status": ["accepted"]})
    keys = {}
    for name, label in (("a", "positive"), ("b", "positive"), ("c", "negative")):
        (tmp_path / name).mkdir()
        frame.assign(label=label).to_parquet(tmp_path / name / "reviewed.parquet")
        keys[name] = Dataset(composed(*NEWS, f"data.reviewed={name}/reviewed.parquet").data).key
    assert keys["a"] == keys["b"] != keys["c"] != Dataset(composed(*NEWS).data).key


def test_reviewers_who_disagree_make_no_label_until_one_decides(tmp_path: Path) -> None:
    files = "review.files=[ann.csv,bob.csv]"
    review(tmp_path, files)
    decide("ann.csv", "neutral")
    decide("bob.csv", "positive")
    job = review(tmp_path, files)
    assert (job.metrics["review/conflicts"], job.metrics["review/accepted"]) == (20, 10)
    assert job.metrics["review/kappa"] < 1 and job.metrics["review/agreed_share"] == pytest.approx(1 / 3)
    conflicts = pd.read_csv(job.folder / "conflicts.csv")
    assert list(conflicts) == ["id", "text", "ann", "bob"] and len(conflicts) == 20
    data = load(composed(*NEWS, f"data.reviewed={job.folder}/reviewed.parquet").data)
    assert data.frame["label"].notna().sum() == 10
    job = review(tmp_path, files, "review.adjudicator=bob")
    assert (job.metrics["review/conflicts"], job.metrics["review/accepted"]) == (0, 30)
    data = load(composed(*NEWS, f"data.reviewed={job.folder}/reviewed.parquet").data)
    assert data.frame["label"].value_counts().to_dict() == {"positive": 25, "negative": 5}


def spans_artifact(folder: Path) -> Path:
    """The artifact of an extraction."""
    folder.mkdir()
    text = "🚀 AT&T bought Bolt, and Bolt rose"
    spans = [{"start": 2, "end": 6, "label": "company", "votes": 8}, {"start": 14, "end": 18, "label": "company", "votes": 5}]
    row = {"text": text, "n_valid": 8, "n_samples": 8, "missing": [], "normalized": [None, None], "gold": None}
    rows = [{**row, "id": "n0", "text": f"{text} 0", "spans": spans}, {**row, "id": "n1", "text": f"{text} 1", "spans": []}]
    pd.DataFrame(rows).to_parquet(folder / "annotations.parquet")
    return folder


def test_spans(tmp_path: Path) -> None:
    overrides = ("stage=review", *NEWS, f"review.suggestions={spans_artifact(tmp_path / 'extracted')}")
    run_job(composed(*overrides), tmp_path / "runs")
    rows = rows_of("review.csv")
    assert [(row["id"], row["suggestion"]) for row in rows] == [("n0", "company: AT&T | Bolt #1"), ("n1", "")]
    pd.DataFrame([{**row, "company": "AT&T | Bolt", "done": "x"} for row in rows]).to_csv("review.csv", index=False)
    job = run_job(composed(*overrides), tmp_path / "runs")
    reviewed = pd.read_parquet(job.folder / "reviewed.parquet")
    expected = [{"start": each.start, "end": each.end, "label": "company"} for each in company((2, 6), (14, 18), (24, 28))]
    assert [list(cell) for cell in reviewed["spans"]] == [expected, expected]
    assert reviewed["changed"].tolist() == [True, True]


def test_a_review_of_extractions_becomes_an_entity_data_set(tmp_path: Path) -> None:
    """A language model's recorded answers, corrected in a file, become the human spans of unlabelled texts."""
    (tmp_path / "news.csv").write_text("\n".join(["id,text", *(f"n{n},🚀 Acme {n} bought Bolt & Co. {n}" for n in range(12))]))
    rows = [{"id": f"n{n}", "answer": json.dumps({"result": ["Acme"], "normalized_result": ["Acme Inc"]})} for n in range(12)]
    pd.DataFrame(rows).to_csv("answers.csv", index=False)
    recorded = ("llm=recorded", "llm.path=answers.csv", "llm.id_column=id", "llm.answer_column=answer", "shots.k=0")
    overrides = ("stage=review", *NEWS, *recorded, "review.spans=true", "annotate.calibration=none")
    run_job(composed(*overrides), tmp_path / "runs")
    rows = rows_of("review.csv")
    assert len(rows) == 12 and {row["suggestion"] for row in rows} == {"company: Acme"}
    pd.DataFrame([{**row, "company": "Acme | Bolt & Co.", "done": "x"} for row in rows]).to_csv("review.csv", index=False)
    path = run_job(composed(*overrides), tmp_path / "runs").folder / "reviewed.parquet"
    section = composed(*NEWS, f"data.reviewed={path}").data
    assert declares(section, "has_spans") and not declares(section, "has_labels")
    data = load(section)
    assert data.labels.names == ("company",) and len(data.split("test")) == 2
    for row in data.frame.itertuples():
        assert [row.text[each["start"] : each["end"]] for each in row.spans] == ["Acme", "Bolt & Co."]
    stage_of(composed("stage=entities", *NEWS, f"data.reviewed={path}"))
    with pytest.raises(UserError, match="has mentions of entities instead"):
        stage_of(composed("stage=teacher", *NEWS, f"data.reviewed={path}"))


@pytest.mark.parametrize("name", ["headlines", "reddit"])
def test_decisions_make_an_unlabelled_source_a_labelled_one(name: str) -> None:
    for column in ("label", "spans"):
        pd.DataFrame({"text": ["t"], column: ["positive" if column == "label" else []]}).to_parquet(f"{column}.parquet")
        section = composed(f"data={name}", f"data.reviewed={column}.parquet").data
        assert declares(section, "has_labels") == (column == "label") and declares(section, "has_spans") == (column == "spans")
    assert not declares(composed(f"data={name}").data, "has_labels")


def test_the_command_runs_again_each_time_and_no_key_is_written(findistill: Command, tmp_path: Path) -> None:
    with LabelStudio().running() as server:
        assert isinstance(server, LabelStudio)
        command = (*REVIEW, "logger=none", "review.backend=label_studio", f"review.url={server.url}", "review.size=5")
        environment = {"LABEL_STUDIO_API_KEY": KEY, "NO_PROXY": "127.0.0.1"}
        first = findistill(*command, **environment)
        assert first.returncode == 0, first.stderr
        assert "pushed 5 texts; 5 texts in total, 0 decided" in first.stderr and "next: findistill stage=review" in first.stderr
        for text_id in server.ids()[:3]:
            server.decide(text_id, "ann@example.org", "neutral")
        second = findistill(*command, **environment)
        assert second.returncode == 0, second.stderr
        assert "pushed 0 texts; 5 texts in total, 3 decided" in second.stderr and "ann@example.org: 3 decisions" in second.stderr
        server.revoked = True
        third = findistill(*command, **environment)
        assert third.returncode == 2 and "refuses the key in LABEL_STUDIO_API_KEY (401)" in third.stderr
        [job] = list((tmp_path / "runs" / "default").glob("review-*"))
        assert len(pd.read_parquet(job / "reviewed.parquet")) == 3  # pulled decisions are kept
        assert json.loads((job / "status.json").read_text())["state"] == "failed"
        for path in tmp_path.rglob("*"):
            assert not path.is_file() or KEY.encode() not in path.read_bytes(), path
        assert KEY not in first.stderr + second.stderr + third.stderr


def test_a_command_that_is_killed_while_it_pushes(preloaded: Preloaded, findistill: Command, tmp_path: Path) -> None:
    rows = [f"n{number},Profit rose {number}%" for number in range(250)]
    (tmp_path / "news.csv").write_text("\n".join(["id,text", *rows]))
    with LabelStudio().running() as server:
        assert isinstance(server, LabelStudio)
        plain, imports, running = server.answer, [], []

        def answer(method: str, path: str, query: dict[str, str], body: Any) -> Any:
            if path.endswith("/import"):
                imports.append(path)
                if len(imports) == 2:
                    os.kill(running[0].pid, signal.SIGKILL)
            return plain(method, path, query, body)

        server.answer = answer  # type: ignore[method-assign]
        command = [*REVIEW, "review.size=250", "logger=none", "review.backend=label_studio", f"review.url={server.url}"]
        environment = {**os.environ, "LABEL_STUDIO_API_KEY": KEY, "NO_PROXY": "127.0.0.1"}
        running.append(preloaded.start(["findistill", *command], tmp_path, environment))
        assert running[0].wait(120).returncode == -signal.SIGKILL
        assert len(server.ids()) == 200
        again = findistill(*command, LABEL_STUDIO_API_KEY=KEY, NO_PROXY="127.0.0.1")
        assert again.returncode == 0 and "pushed 50 texts; 250 texts in total" in again.stderr, again.stderr
        assert len(set(server.ids())) == len(server.ids()) == 250


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["review.backend=argilla"], "review.url is not set"),
        (["review.backend=label_studio", "review.url=127.0.0.1:80"], "begins with http"),
        (["review.backend=label_studio", "review.url=http://me:secret@there"], "no user or password"),
        (["review.backend=doccano"], "choose one of file, label_studio, argilla"),
        (["review.files=[]"], "give one or more values"),
        (["review.files=[a.csv,b/a.csv]"], "name a file for each reviewer"),
        (["review.files=[a.xlsx]"], "neither a .csv nor a .jsonl"),
        (["review.files=[.]"], "is a folder"),
        (["review.suggestions=nowhere"], "no annotations.parquet there"),
        (["review.backend=argilla", "review.project=x"], "a name of 3 to 50 letters"),
        (["review.backend=argilla", "study=a+b"], "review.project=findistill-a"),
        (["review.size=0"], "review.size=0"),
        (["data.reviewed=nowhere.parquet"], "data.reviewed=nowhere.parquet: no such file"),
    ],
)
def test_settings_that_cannot_be_met(overrides: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        stage_of(composed(*REVIEW, *overrides))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("n0", "Other words")], "row 2: the id n0 belongs to another text"),
        ([("x0", "Other words"), ("x1", "And more")], "holds 2 texts, none of them among the suggestions"),
    ],
)
def test_a_review_of_other_texts(tmp_path: Path, rows: list[tuple[str, str]], message: str) -> None:
    pd.DataFrame([{"id": i, "text": t, "label": "", "done": ""} for i, t in rows]).to_csv("review.csv", index=False)
    before = Path("review.csv").read_bytes()
    with pytest.raises(UserError, match=message):
        review(tmp_path)
    assert Path("review.csv").read_bytes() == before


def test_a_project_of_other_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", KEY)
    with LabelStudio().running() as server:
        assert isinstance(server, LabelStudio)
        command = ("review.backend=label_studio", f"review.url={server.url}", "review.project=mine")
        review(tmp_path, *command)
        Path("news.csv").write_text("id,text\nn2,Another text\nn3,And one more")
        with pytest.raises(UserError, match=r"the id n2 has a different text there .*review\.project=NAME"):
            review(tmp_path, *command)
        assert len(server.tasks) == 30


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        ({"text": ["t"], "label": ["x"]}, "has no column status"),
        ({"text": ["t"], "label": ["x"], "status": ["conflict"]}, "no decision is accepted yet"),
        ({"text": ["t"], "label": ["up"], "status": ["accepted"]}, "'up' is not one of data.labels"),
        ({"text": ["t"], "label": ["neutral"], "status": ["accepted"]}, "none of its 1 texts is in data=csv"),
        (
            {"text": ["t", "T!"], "label": ["neutral", "positive"], "status": ["accepted"] * 2},
            "two accepted decisions for the same text",
        ),
    ],
)
def test_decisions_that_cannot_be_used(frame: dict[str, Any], message: str) -> None:
    pd.DataFrame(frame).to_parquet("reviewed.parquet")
    with pytest.raises(UserError, match=message):
        load(composed(*NEWS, "data.reviewed=reviewed.parquet", "data.labels=[negative,neutral,positive]").data)


def test_a_review_file_in_place_of_the_decisions() -> None:
    Path("review.csv").write_text("id,text\n")
    with pytest.raises(UserError, match=r"not a reviewed\.parquet from stage=review"):
        load(composed(*NEWS, "data.reviewed=review.csv").data)


def test_decisions_go_before_the_sources_own_labels() -> None:
    Path("news.csv").write_text("id,text,label\n" + "\n".join(f"n{n},Text {n} 🚀,{'up' if n % 2 else 'down'}" for n in range(20)))
    frame = pd.DataFrame({"text": ["text 0 🚀!", "Text 1 🚀"], "label": ["up", "up"], "status": ["accepted"] * 2})
    frame.to_parquet("reviewed.parquet")
    data = load(composed(*NEWS, "data.label_column=label", "data.reviewed=reviewed.parquet").data)
    assert data.frame.set_index("id")["label"].value_counts().to_dict() == {"up": 11, "down": 9}


def test_no_annotator_is_run_for_a_server_that_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", KEY)
    with pytest.raises(UserError, match="cannot be reached"):
        job_of(composed(*REVIEW, "review.backend=label_studio", "review.url=http://127.0.0.1:9"), tmp_path / "runs")
    assert not list(tmp_path.rglob("annotate-*"))
