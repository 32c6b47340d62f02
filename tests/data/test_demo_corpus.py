"""The demo corpus and the grammar behind its generated rows: labels, offsets, dates, no duplicates, reproducible output."""

import datetime
import itertools
import re
from collections import Counter
from typing import Any

import pytest
from benchmarks import demo_corpus as grammar
from benchmarks.demo_corpus import generate
from hypothesis import given, settings
from hypothesis import strategies as st

from findistill.data.demo import CORPUS, ROWS, read_corpus

LABELS = {"negative", "neutral", "positive"}
FIELDS = {"id", "kind", "text", "label", "companies", "date", "difficulty"}


def words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", text.lower()))


def check_row(row: dict[str, Any]) -> None:
    """Check what holds for a row of either origin."""
    assert set(row) - {"rationale"} == FIELDS
    assert row["label"] in LABELS
    assert row["kind"] in {"headline", "post"}
    assert row["difficulty"] in {"easy", "hard"}
    assert datetime.date(2016, 1, 1) <= datetime.date.fromisoformat(row["date"]) <= datetime.date(2025, 12, 31)
    assert row["text"] == " ".join(row["text"].split())
    assert not set("[]{}|") & set(row["text"])
    end_before = 0
    for start, end in row["companies"]:
        assert end_before <= start < end <= len(row["text"])
        name = row["text"][start:end]
        assert name == name.strip()
        assert name[0].isupper() or re.fullmatch(r"\$[A-Z]{3,5}", name)
        assert not row["text"][end : end + 1].isalpha()
        assert not row["text"][start - 1 : start].isalpha() or start == 0
        end_before = end


@pytest.fixture(scope="module")
def corpus() -> list[dict[str, Any]]:
    return list(read_corpus())


@pytest.fixture(scope="module")
def generated() -> list[dict[str, Any]]:
    return list(generate(20_000, seed=1))


def test_the_script_writes_the_file_byte_for_byte() -> None:
    assert grammar.corpus().encode() == CORPUS.read_bytes()
    assert len(list(read_corpus(ROWS))) == len(CORPUS.read_text(encoding="utf-8").splitlines()) == 1_400


def test_fewer_rows_are_the_start_of_the_file(corpus: list[dict[str, Any]]) -> None:
    assert list(read_corpus(20)) == corpus[:20]
    assert list(read_corpus(900))[: len(corpus)] == corpus and not any(
        "rationale" in row for row in [*read_corpus(900)][len(corpus) :]
    )


def test_corpus_rows_are_valid(corpus: list[dict[str, Any]]) -> None:
    for row in corpus:
        check_row(row)
        assert row["id"][0] == row["kind"][0]


def test_rationales_are_sentences_of_all_labels_and_kinds_that_name_no_label(corpus: list[dict[str, Any]]) -> None:
    explained = [row for row in corpus if "rationale" in row]
    assert set(Counter((row["label"], row["kind"]) for row in explained).values()) == {6}
    for row in explained:
        assert re.fullmatch(r"[A-Z][^\n]{20,100}\.", row["rationale"])
        assert not words(row["rationale"]) & LABELS


def test_corpus_is_large_balanced_and_varied(corpus: list[dict[str, Any]]) -> None:
    kinds = Counter(row["kind"] for row in corpus)
    assert kinds["headline"] >= 400
    assert kinds["post"] >= 220
    assert all(0.30 <= count / len(corpus) <= 0.37 for count in Counter(row["label"] for row in corpus).values())
    assert 0.25 <= sum(row["difficulty"] == "hard" for row in corpus) / len(corpus) <= 0.40
    assert {row["date"][:4] for row in corpus} == {str(year) for year in range(2016, 2026)}
    lengths = [len(row["text"].split()) for row in corpus]
    assert min(lengths) == 4
    assert 35 <= max(lengths) <= 45
    assert {0, 1, 2, 3} == {len(row["companies"]) for row in corpus}
    assert sum(not row["text"].isascii() for row in corpus) > 30


def test_corpus_has_no_duplicates(corpus: list[dict[str, Any]]) -> None:
    assert len({row["id"] for row in corpus}) == len(corpus)
    bags = [(row["id"], words(row["text"])) for row in corpus]
    near = [(a, b) for (a, x), (b, y) in itertools.combinations(bags, 2) if len(x & y) >= 0.6 * len(x | y)]
    assert near == []


def test_every_mention_of_a_marked_company_is_marked(corpus: list[dict[str, Any]]) -> None:
    names = {row["text"][start:end] for row in corpus for start, end in row["companies"]}
    any_name = re.compile("|".join(rf"(?<!\w){re.escape(name)}(?!\w)" for name in sorted(names, key=len, reverse=True)))
    for row in corpus:
        assert [list(match.span()) for match in any_name.finditer(row["text"])] == row["companies"], row["text"]


def test_generated_rows_are_valid(generated: list[dict[str, Any]]) -> None:
    for row in generated:
        check_row(row)
    assert [row["id"] for row in generated[:2]] == ["g0000001", "g0000002"]


def test_generated_spans_are_exactly_the_companies(generated: list[dict[str, Any]]) -> None:
    word = "|".join(word for word, _ in grammar.SECTOR_WORDS)
    form = "|".join(re.escape(form) for form in grammar.FORMS if form)
    company = re.compile(rf"\$[A-Z]{{5}}|\w+ (?:{word})\b(?:(?:{form})\b)?")
    for row in generated:
        assert [list(match.span()) for match in company.finditer(row["text"])] == row["companies"], row["text"]


def test_generated_texts_do_not_repeat(generated: list[dict[str, Any]]) -> None:
    assert len({" ".join(re.findall(r"\w+", row["text"].lower())) for row in generated}) == len(generated)


def test_companies_are_told_apart_by_name_and_by_ticker() -> None:
    stems = [first + second for first in grammar.FIRST for second in grammar.SECOND]
    assert len(set(stems)) == len(stems)
    assert len(dict(grammar.SECTOR_WORDS)) == len(grammar.SECTOR_WORDS)
    assert len(set(grammar.FORMS)) == len(grammar.FORMS)
    assert grammar.NAMES >= 1_000_000
    assert grammar.NAMES < 26**5
    step = grammar.NAMES // 5_000
    sample = range(0, grammar.NAMES, step)
    assert len({grammar.company_name(number) for number in sample}) == len(sample)
    assert len({grammar.ticker(number) for number in sample}) == len(sample)


def test_every_pattern_shows_what_makes_its_text_unique() -> None:
    for book, placeholder in ((grammar.HEADLINES, "{name}"), (grammar.POSTS, "{firm}"), (grammar.MARKETS, "{level}")):
        assert len(book) == 6
        for patterns in book.values():
            assert all(placeholder in pattern for pattern in patterns.strip().splitlines())


def test_generated_shares_are_as_promised(generated: list[dict[str, Any]]) -> None:
    def share(field: str, value: str) -> float:
        return sum(bool(row[field] == value) for row in generated) / len(generated)

    assert share("label", "neutral") == pytest.approx(0.36, abs=0.02)
    assert share("label", "positive") == pytest.approx(0.34, abs=0.02)
    assert share("difficulty", "hard") == pytest.approx(0.30, abs=0.02)
    assert share("kind", "post") == pytest.approx(0.33, abs=0.02)
    assert sum(not row["companies"] for row in generated) / len(generated) == pytest.approx(0.04, abs=0.01)


def test_figures_of_a_row_agree_with_its_label(generated: list[dict[str, Any]]) -> None:
    verdicts: Counter[tuple[str, bool]] = Counter()
    for row in generated:
        compared = re.search(r"(climbed|rose|fell|dropped|slid) to (.+?) from (.+?) a year", row["text"])
        if compared:
            now, before = (float(re.sub(r"[^\d.]", "", figure)) for figure in compared.group(2, 3))
            verdicts[row["label"], now > before] += 1
    assert set(verdicts) == {("positive", True), ("negative", False)}


@settings(max_examples=25, deadline=None)
@given(few=st.integers(0, 60), more=st.integers(0, 60), seed=st.integers(0, 2**32))
def test_a_shorter_run_is_the_start_of_a_longer_one(few: int, more: int, seed: int) -> None:
    assert list(generate(few, seed)) == list(generate(few + more, seed))[:few]


def test_another_seed_gives_other_texts() -> None:
    ours, theirs = ({row["text"] for row in generate(500, seed)} for seed in (0, 1))
    assert not ours & theirs


def test_rows_are_made_as_they_are_asked_for() -> None:
    """Generating a billion rows starts at once: nothing is built in advance."""
    assert len(list(itertools.islice(generate(10**9, seed=0), 3))) == 3


@pytest.mark.slow
def test_a_million_rows_do_not_repeat() -> None:
    assert len({hash(row["text"]) for row in generate(1_000_000, seed=0)}) == 1_000_000
