"""Extraction through the engines, the cache and the budget: its output, and what is not requested twice."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from findistill.errors import UserError
from findistill.llm import extract as extracting
from findistill.llm.config import Annotate, EndpointLLM, Extract, Price, RecordedLLM, Shots
from findistill.llm.endpoint import EndpointEngine
from findistill.llm.extract import estimate, extract
from findistill.llm.extraction import template
from findistill.llm.recorded import RecordedEngine
from findistill.llm.span_votes import SpanVotes
from tests.llm.servers import LoopbackServer, Reply, after_probes, chat, is_probe, refusal

COMPANY = ("company",)
PROMPT = Extract(name="companies", instruction="List the companies.", text_header="Headline:")
ROWS = [
    ("a", "Acme and Bolt rise as Acme beats", [{"start": 0, "end": 4, "label": "company"}]),
    ("b", "Oil slips", []),
    ("c", "🚀 Nestle\u0301 & Macy’s", None),
]
TEXTS = pd.DataFrame(ROWS, columns=["id", "text", "spans"])


def write_answers(answers: list[dict[str, Any]], folder: Path) -> Path:
    path = folder / "answers.jsonl"
    path.write_text("\n".join(map(json.dumps, answers)))
    return path


def recorded(
    answers: list[dict[str, Any]], folder: Path, types: tuple[str, ...] = COMPANY, prompt: Extract = PROMPT,
    texts: pd.DataFrame = TEXTS, **settings: Any,
) -> pd.DataFrame:  # fmt: skip
    values = {"name": "recorded", "model": "recorded", "path": str(write_answers(answers, folder)), **settings}
    sections = (RecordedLLM(**values), prompt, Shots(k=4), Annotate(samples=8, min_readable=0.0))
    engine = RecordedEngine(**values)
    extract(texts, texts.head(0), types, *sections, folder / "out", cache=folder / "cache", engine=engine)
    return pd.read_parquet(folder / "out" / "annotations.parquet")


def forms(row: Any) -> list[tuple[str, int]]:
    return [(row.text[each["start"] : each["end"]], each["votes"]) for each in row.spans]


def answer_rows(text: str, *responses: Any) -> list[dict[str, Any]]:
    return [{"text": text, "answer": each} for each in responses]


def test_spans_are_what_most_of_the_readable_samples_contain(tmp_path: Path) -> None:
    answers = [
        *answer_rows(
            ROWS[0][1], '{"result": ["Acme"], "normalized_result": ["Acme Inc"]}', '["Acme", "Bolt"]', '["Acme and Bolt"]', "?"
        ),
        *answer_rows(ROWS[1][1], "[]", '["Shell"]'),
        *answer_rows(ROWS[2][1], "{'result': ['Nestlé', 'Macy's'], 'normalized_result': ['Nestlé', 'Macy's Inc']}"),
    ]
    a, b, c = recorded(answers, tmp_path).itertuples()
    assert (a.n_valid, a.n_samples) == (3, 4)
    assert forms(a) == [("Acme", 2), ("Acme", 2)] and list(a.normalized) == ["Acme Inc", "Acme Inc"]  # every mention of the form
    assert [each["votes"] for each in a.candidates] == [2, 1, 1, 2]
    assert forms(b) == [] and list(b.missing) == ["Shell"] and b.n_valid == 2
    assert forms(c) == [("Nestle\u0301", 1), ("Macy’s", 1)] and list(c.normalized) == ["Nestlé", "Macy's Inc"]
    assert list(a.gold) == ROWS[0][2] and list(b.gold) == [] and c.gold is None
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["missing"] == 1 and summary["repeated"] == 2 and summary["unreadable"] == 1 and summary["texts"] == 3


def test_a_text_without_a_readable_response_has_no_spans_rather_than_none(tmp_path: Path) -> None:
    answers = [*answer_rows(ROWS[0][1], '{"result": ["Ac'), *answer_rows(ROWS[1][1], "[]"), *answer_rows(ROWS[2][1], "Nothing.")]
    a, b, c = recorded(answers, tmp_path).itertuples()
    assert a.spans is None and a.normalized is None and list(b.spans) == [] and c.spans is None
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (summary["cut"], summary["unreadable"]) == (1, 1)


@pytest.mark.parametrize(
    "answer",
    [
        ["Acme", "Bolt"],
        [{"name": "Acme"}, {"name": "Bolt"}],
        {"result": ["Acme", "Bolt"]},
        '["Acme", "Bolt"]',
        ['["Acme", "Bolt"]', '["Acme", "Bolt"]'],  # two samples
    ],
)
def test_cells_of_a_file(answer: Any, tmp_path: Path) -> None:
    frame = recorded([*answer_rows(ROWS[0][1], answer)], tmp_path, texts=TEXTS.head(1))
    assert [form for form, _ in forms(next(frame.itertuples()))] == ["Acme", "Bolt", "Acme"]
    assert frame["n_samples"][0] == (2 if answer == ['["Acme", "Bolt"]'] * 2 else 1)


def test_tagged_tokens_of_one_model_of_a_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="findistill")
    tokens = ["Ann", "of", "Acme", "&", "Co", "speaks"]
    texts = pd.DataFrame({"id": ["x"], "text": [" ".join(tokens)], "spans": [None]})
    lines = ["Ann:Person_B", "of:Other", "Acme:Organisation_B", "Co:Organisation_I", "speaks:Other"]
    rows = [{"tokens": tokens, "model": "big", "answer": "\n".join(lines)}, {"tokens": tokens, "model": "small", "answer": "Hm."}]
    options = {"text_column": "tokens", "where": {"model": "big"}}
    [row] = recorded(
        rows, tmp_path, ("PER", "ORG"), Extract(name="entities", instruction="{types}"), texts, **options
    ).itertuples()
    assert [(row.text[s["start"] : s["end"]], s["label"]) for s in row.spans] == [("Ann", "PER"), ("Acme & Co", "ORG")]
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (summary["tokens"], summary["aligned"]) == (5, 5)
    assert not len(next(recorded(rows, tmp_path, COMPANY, PROMPT, texts, **options).itertuples()).spans)
    assert "'extract.label_map={person: company}'" in caplog.text or "{organisation: company}" in caplog.text
    prompt = Extract(name="x", instruction="x", label_map={"Organisation": "company"})
    [row] = recorded(rows, tmp_path, COMPANY, prompt, texts, **options).itertuples()
    assert forms(row) == [("Acme & Co", 1)]


# -- a server ----------------------------------------------------------------------------------------------------------


def endpoint(
    server: LoopbackServer, folder: Path, price: float | None = None, pool: pd.DataFrame | None = None, **settings: Any
) -> pd.DataFrame:
    values = {"name": "m", "model": "m", "base_url": server.url, "api_key_env": "TEST_KEY", "price": Price(price, price)}
    shots = Shots(k=settings.pop("k", 0), selection="random")
    sections = (EndpointLLM(**values), PROMPT, shots, Annotate(**{"samples": 3, **settings}))  # type: ignore[arg-type]
    engine = EndpointEngine(**values)  # type: ignore[arg-type]
    rows = TEXTS.head(0) if pool is None else pool
    extract(TEXTS, rows, COMPANY, *sections, folder / "out", cache=folder / "cache", engine=engine)
    return pd.read_parquet(folder / "out" / "annotations.parquet")


def names(body: dict) -> Reply:
    text = body["messages"][-1]["content"]
    matches = [name for name in ("Acme", "Bolt", "Nestlé") if name in text]
    return chat([json.dumps({"result": matches, "normalized_result": matches})] * body.get("n", 1))


def test_a_server_is_asked_by_schema_and_only_once(server: LoopbackServer, tmp_path: Path) -> None:
    def behave(body: dict) -> Reply:
        if "response_format" in body:
            assert body["response_format"]["json_schema"]["schema"]["required"] == ["result", "normalized_result"]
            return names(body)
        return after_probes(names)(body)

    server.behave = behave
    frame = endpoint(server, tmp_path)
    assert forms(next(frame.itertuples())) == [("Acme", 3), ("Bolt", 3), ("Acme", 3)]
    assert all("response_format" in body for body in server.requests) and len(server.requests) in (3, 9)
    server.bodies.clear()
    assert endpoint(server, tmp_path).equals(frame) and not server.requests
    server.bodies.clear()
    endpoint(server, tmp_path, samples=4)
    assert len(server.requests) == 3  # one more sample per text


def test_what_is_cut_or_no_list_is_requested_again(server: LoopbackServer, tmp_path: Path) -> None:
    counts: dict[str, int] = {}

    def behave(body: dict) -> Reply:
        text = body["messages"][-1]["content"]
        counts[text] = counts.get(text, 0) + 1
        if counts[text] == 1:
            return chat(['{"result": ["Acme'], finish_reason="length")
        return names(body)

    server.behave = after_probes(behave)
    frame = endpoint(server, tmp_path, samples=1, retries=1)
    assert list(frame["n_valid"]) == [1, 1, 1] and set(counts.values()) == {2}


def test_few_lists_stop_the_run_and_show_one(server: LoopbackServer, tmp_path: Path) -> None:
    server.behave = after_probes(lambda body: chat(["No idea."] * body.get("n", 1)))
    with pytest.raises(UserError, match=r"0 of 9 responses name entities as JSON \(company\); this one does not: 'No idea.'"):
        endpoint(server, tmp_path, retries=0)


def test_agreement_stops_early_and_is_the_same(server: LoopbackServer, tmp_path: Path) -> None:
    server.behave = after_probes(names)
    frame = endpoint(server, tmp_path, samples=8, stop_at=2)
    assert list(frame["n_samples"]) == [2, 2, 2] and forms(next(frame.itertuples()))[0] == ("Acme", 2)
    server.bodies.clear()
    assert endpoint(server, tmp_path, samples=8, stop_at=2).equals(frame) and not server.requests


def test_a_budget_stops_before_it_is_spent(server: LoopbackServer, tmp_path: Path) -> None:
    server.behave = after_probes(names)
    with pytest.raises(UserError, match=r"annotate.max_cost_usd=0.0001"):
        endpoint(server, tmp_path, price=1.0, max_cost_usd=0.0001)
    assert not server.requests


def test_a_refused_text_has_no_spans(server: LoopbackServer, tmp_path: Path) -> None:
    def behave(body: dict) -> Reply:
        if "Oil" in body["messages"][-1]["content"]:
            return refusal(400, "The prompt violates our content policy")
        return names(body)

    server.behave = after_probes(behave)
    frame = endpoint(server, tmp_path, max_failed=0.5)
    assert frame["spans"].isna().tolist() == [False, True, False]


def test_labelled_rows_are_demonstrations(server: LoopbackServer, tmp_path: Path) -> None:
    server.behave = after_probes(names)
    spans = [{"start": start, "end": start + 4, "label": "company"} for start in (10, 0, 16)]
    pool = pd.DataFrame({"text": ["Bolt buys Acme; Bolt rises", "Gold dips", "?"], "spans": [spans, [], None]})
    endpoint(server, tmp_path, k=2, samples=1, pool=pool)
    answers = {each["content"] for each in server.requests[0]["messages"] if each["role"] == "assistant"}
    assert answers == {
        '{"result": ["Bolt", "Acme"], "normalized_result": ["Bolt", "Acme"]}', '{"result": [], "normalized_result": []}'
    }  # fmt: skip
    with pytest.raises(UserError, match=r"shots.k=3: only 2 labelled texts"):
        endpoint(server, tmp_path, k=3, samples=1, pool=pool)


def test_a_dry_run_measures_what_is_cached(server: LoopbackServer, tmp_path: Path) -> None:
    llm = EndpointLLM(name="m", model="m", base_url=server.url, api_key_env="TEST_KEY", price=Price(1.0, 2.0))
    more = pd.DataFrame({"id": [f"n{i}" for i in range(9)], "text": [f"Acme gains {i}" for i in range(9)]})
    settings = Annotate(samples=3)
    blind = estimate(more, more.head(0), COMPANY, llm, PROMPT, Shots(k=0), settings, cache=tmp_path / "cache")
    assert blind.requests == 9 and blind.tokens_in > 9 * 50 and blind.tokens_out == 27 * 44 and blind.cost_usd
    assert not is_probe({"messages": [1, 2]}) and not server.bodies
    assert (
        extracting.estimate(more, more, COMPANY, RecordedLLM(path="x"), PROMPT, Shots(), settings, cache=tmp_path).requests == 0
    )


# -- votes and prompts -------------------------------------------------------------------------------------------------


def test_of_overlapping_spans_the_one_with_most_votes_is_kept() -> None:
    form = template(PROMPT, COMPANY)
    text = "Bank of Oslo Group falls"
    answers = ["Bank of Oslo", "Bank of Oslo", "Bank of Oslo Group", "Oslo Group", "Oslo Group", "Oslo Group"]
    votes = SpanVotes.count(text, [form.extract(json.dumps([name]), text) for name in answers])
    assert votes.agreed() == []  # no span has a majority
    assert [text[span.start : span.end] for span in votes.agreed(0.2)] == ["Oslo Group"]
    tie = SpanVotes.count(text, [form.extract(json.dumps([name]), text) for name in answers[:1] + answers[2:4]])
    assert [text[span.start : span.end] for span in tie.agreed(0.2)] == ["Bank of Oslo Group"]  # the longest


def test_examples_of_a_prompt_are_checked() -> None:
    def prompt(**example: Any) -> Extract:
        return Extract(name="mine", instruction="x", examples=[example])

    good = template(prompt(text="Acme falls", result=["Acme"], normalized_result=["Acme Inc"]), COMPANY)
    assert 'Text: Acme falls\n{"result": ["Acme"], "normalized_result": ["Acme Inc"]}' in good.task()
    for example in (
        {"text": "x", "result": ["x"], "normalized_result": []},
        {"text": "Bolt", "result": ["Acme"]},
        {"result": []},
    ):
        with pytest.raises(UserError, match=r"extract.examples of extract=mine, number 1"):
            template(prompt(**example), COMPANY)
    with pytest.raises(UserError, match=r"extract=entities"):
        template(prompt(text="Acme", result=["Acme"]), ("person", "company"))
    with pytest.raises(UserError, match=r"extract.label_map: firm"):
        template(Extract(name="x", instruction="x", label_map={"Organisation": "firm"}), COMPANY)


def test_several_types_have_a_list_each() -> None:
    form = template(Extract(name="entities", instruction="Find each {types}."), ("PER", "ORG"))
    assert "Find each person and organization." in form.task() and '{"person": ["..."], "organization": ["..."]}' in form.task()
    assert form.schema["required"] == ["person", "organization"]
    assert form.parse('{"organization": ["Acme"], "person": []}') == form.parse('{"person": [], "organization": ["Acme"]}')
