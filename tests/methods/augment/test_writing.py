"""New texts from an LLM: what is requested, how responses are parsed, and that no request is repeated."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pandas as pd
import pytest
from hydra import compose

from findistill.data.labels import LabelSet
from findistill.errors import UserError
from findistill.methods.augment import writing
from findistill.schema import Config
from tests.fixtures.composing import shipped
from tests.llm.servers import KEY, LoopbackServer, Reply, chat, is_probe, refusal

LABELS = LabelSet(("negative", "neutral", "positive"))
ROWS = pd.DataFrame(
    [
        (f"r{number}", f"Company {number} {verb} its {thing} in the {quarter} quarter", label, predicted)
        for number, (verb, label, predicted) in enumerate(
            [("raises", "positive", "neutral"), ("cuts", "negative", "neutral"), ("files", "neutral", "neutral")] * 10
        )
        for thing, quarter in [(("dividend", "outlook", "report")[number % 3 - number // 15], ("first", "last")[number % 2])]
    ],
    columns=["id", "text", "label", "predicted"],
)
NUMBERS = {"generate": 2, "rephrase": 2, "vary": 2, "similar": 2}


def config(server: LoopbackServer | None = None, *overrides: str) -> Config:
    at = ("llm=endpoint", "llm.model=m", "llm.api_key_env=TEST_KEY", f"llm.base_url={server.url}") if server else ()
    with shipped():
        return cast(Config, compose("config", overrides=["stage=augment", "augment=tinyfinbert", *at, *overrides]))


def sections(settings: Config) -> tuple:
    return settings.prompt, settings.augment


def write_texts(orders: list[writing.Order], settings: Config, cache: Path) -> writing.Written:
    return writing.write(orders, settings.llm, settings.augment, settings.annotate, cache=cache)


def by_method(*methods: str) -> dict[str, pd.DataFrame]:
    wrong = ROWS[ROWS["label"] != ROWS["predicted"]]
    return {method: ROWS if method == "vary" else wrong for method in methods}


def author(body: dict) -> Reply:
    """Writes a new text for each choice, as the prompt asks."""
    contents = [f"New text: Unheard-of news {random.random()} of the week\nSentiment: positive" for _ in range(body.get("n", 1))]
    return chat([str(random.random()) for _ in contents] if is_probe(body) else contents)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackServer]:
    monkeypatch.setenv("TEST_KEY", KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    running = LoopbackServer(author)
    yield running
    running.stop()


def test_each_method_asks_for_what_it_needs() -> None:
    orders = writing.orders(by_method("generate", "rephrase", "vary", "similar"), ROWS, NUMBERS, LABELS, *sections(config()))
    kinds = [(order.method, order.label, len(order.sources)) for order in orders]
    assert kinds == [
        ("generate", "negative", 10), ("generate", "positive", 10),
        ("rephrase", "negative", 10), ("rephrase", "positive", 10),
        ("vary", "negative", 10), ("vary", "neutral", 10), ("vary", "positive", 10),
        ("similar", None, 20),
    ]  # fmt: skip
    first = orders[0].template.task()
    assert "are negative for an investor although a reader may take them for neutral" in first
    assert "must be negative" in first and "at most 50 words" in first
    assert len({order.prompt for order in orders}) == len(orders)
    market = writing.orders(by_method("generate"), ROWS, NUMBERS, LABELS, *sections(config(None, "prompt.wording=market")))
    assert "must be bearish" in market[0].template.task()


@pytest.mark.parametrize("method", ["generate", "rephrase", "vary", "similar"])
def test_examples_are_of_the_kind_asked_for_and_show_the_source_nowhere(method: str) -> None:
    for order in writing.orders(by_method(method), ROWS, NUMBERS, LABELS, *sections(config())):
        label_of = dict(zip(ROWS["text"], ROWS["label"], strict=True))
        for row, text in enumerate(order.sources["text"]):
            examples = order.examples.of(row)
            assert examples
            for each in examples:
                assert each.rationale is not None and text not in (each.text, *each.rationale)
                assert order.label in (None, each.label)
                if method != "rephrase":
                    assert label_of[each.rationale[0]] == each.label and each.text != each.rationale[0]
            messages = order.template.messages(examples, text)
            assert messages[-1] == {"role": "user", "content": text}
            assert messages[2]["content"].startswith("New text: ")


def test_few_rows_of_a_kind_are_no_examples() -> None:
    few = ROWS.head(3)
    [order, *_] = writing.orders({"vary": few}, few, NUMBERS, LABELS, *sections(config()))
    assert order.examples.of(0) == ()


def test_answers_become_rows_and_are_not_asked_for_again(server: LoopbackServer, tmp_path: Path) -> None:
    settings = config(server, "llm.price.per_million_in=1", "llm.price.per_million_out=1")
    orders = writing.orders(by_method("rephrase", "similar"), ROWS, NUMBERS, LABELS, *sections(settings))
    first = write_texts(orders[:2], settings, tmp_path)
    requests = len(server.requests)
    frame = pd.DataFrame(first.rows)
    assert len(frame) == 40 and frame["text"].is_unique and frame["text"].str.startswith("Unheard-of news").all()
    assert frame.groupby("source_id").size().eq(2).all() and set(frame["label"]) == {"negative", "positive"}
    assert set(frame["writer_label"]) == {"positive"} and set(frame["prompt"]) == set(first.prompts)
    assert first.totals["requests"] == requests and first.cost_usd == pytest.approx(requests * 9e-6)

    again = write_texts(orders, settings, tmp_path)
    assert again.rows[:40] == first.rows and len(again.rows) == 80
    assert len(server.requests) == 2 * requests
    assert {row["label"] for row in again.rows[40:]} == {None}


def test_a_cut_run_goes_on_and_a_budget_stops_it(server: LoopbackServer, tmp_path: Path) -> None:
    replies = iter(range(10**6))

    def breaks(body: dict) -> Reply:
        return author(body) if is_probe(body) or next(replies) < 7 else refusal(500, "broken")

    once = ("annotate.concurrency=1", "llm.max_retries=0", "llm.give_up_s=1")
    settings = config(server, *once)
    orders = writing.orders(by_method("rephrase"), ROWS, NUMBERS, LABELS, *sections(settings))
    server.behave = breaks
    with pytest.raises(UserError):
        write_texts(orders, settings, tmp_path)
    [file] = tmp_path.glob("*.jsonl")
    n_lines = len(file.read_text().splitlines())
    server.behave, before = author, len(server.requests)
    assert len(write_texts(orders, settings, tmp_path).rows) == 40
    assert n_lines >= 14 and len(server.requests) - before == 20 - 7

    paid = config(server, *once, "annotate.max_cost_usd=0.0005", "llm.price.per_million_in=1", "llm.price.per_million_out=1")
    with pytest.raises(UserError, match=r"annotate\.max_cost_usd=0\.0005"):
        write_texts(orders, paid, tmp_path / "other")


@pytest.mark.parametrize(
    ("text", "echo"),
    [
        ("Profits of the bakery doubled, and investor sentiment improved", False),
        ("Analysts are not sure where the shares will go", False),
        ("Sure! Profits of the bakery doubled", True),
        ("Here is a text about profits", True),
        ("<the new text, one line>", True),
        ("The sentiment must stay negative", True),
        ("the figures, in the LAST quarter", True),  # a part of its source
    ],
)
def test_what_repeats_the_prompt_or_talks_about_it_is_an_echo(text: str, echo: bool) -> None:
    [order] = writing.orders({"rephrase": ROWS.iloc[[1]]}, ROWS, NUMBERS, LABELS, *sections(config()))
    assert writing.echoes(text, order.template, ["Company 1 raises the figures in the last quarter"]) == echo
