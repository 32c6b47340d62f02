"""What decisions become: agreed ones are human labels, conflicts are shown and ignored."""

from pathlib import Path

import pandas as pd
import pytest

from findistill.data.spans import Span
from findistill.errors import UserError
from findistill.methods.review import decisions, suggestions
from findistill.methods.review.agreement import agreement
from findistill.methods.review.decisions import Answer, Decision, Question, Suggestion, status

LABELS = Question(("negative", "neutral", "positive"), of_spans=False)
COMPANIES = Question(("company",), of_spans=True)
TEXT = "Acme and Bolt rose, and Cargo fell"
ACME, BOLT = Span(0, 4, "company"), Span(9, 13, "company")


def decided(*answers: Answer | None, text_id: str = "t", text: str = TEXT) -> list[Decision]:
    return [Decision(text_id, text, f"r{number}", answer, 2.0) for number, answer in enumerate(answers)]


@pytest.mark.parametrize(
    ("answers", "adjudicator", "expected"),
    [
        (["positive"], None, ["accepted"]),
        (["positive", "positive"], None, ["accepted", "accepted"]),
        (["positive", "neutral", "positive"], None, ["conflict"] * 3),  # two of three are no agreement
        (["positive", "neutral"], "r1", ["overruled", "accepted"]),
        (["positive", "neutral"], "nobody", ["conflict", "conflict"]),
        (["positive", "neutral", None], "r2", ["conflict", "conflict", "skipped"]),
        (["positive", None], None, ["accepted", "skipped"]),
        ([None, None], "r0", ["skipped", "skipped"]),
        ([(ACME,), (ACME, BOLT)], None, ["conflict", "conflict"]),
        ([(ACME, BOLT), (ACME, BOLT)], None, ["accepted", "accepted"]),
        ([(), ()], None, ["accepted", "accepted"]),
        ([(), (BOLT,)], "r0", ["accepted", "overruled"]),
    ],
)
def test_status(answers: list[Answer | None], adjudicator: str | None, expected: list[str]) -> None:
    assert list(status(decided(*answers), adjudicator)) == expected


def test_what_was_changed_and_how_long_it_took() -> None:
    known = {"t": Suggestion("t", TEXT, "neutral", 0.5)}
    frame = decisions.frame(decided("positive", "neutral", None), known, LABELS, None)
    assert list(frame) == ["id", "text", "label", "reviewer", "seconds", "status", "suggestion", "changed"]
    assert frame["changed"].tolist() == [True, False, None] and frame["seconds"].tolist() == [2.0] * 3


def test_conflicts_show_every_reviewers_answer() -> None:
    known = {"t": Suggestion("t", TEXT, (ACME,), 0.5)}
    answers = [*decided((ACME,), (ACME, BOLT)), *decided((), (), text_id="u")]
    frame = decisions.frame(answers, known, COMPANIES, None)
    table = decisions.conflicts(frame, COMPANIES)
    assert table.to_dict("records") == [
        {"id": "t", "text": TEXT, "r0": "Acme (company)", "r1": "Acme (company) | Bolt (company)"}
    ]
    assert not len(decisions.conflicts(decisions.frame(answers, known, COMPANIES, "r0"), COMPANIES))


def by_reviewer(*columns: str) -> list[Decision]:
    names = {"p": "positive", "n": "negative", "o": "neutral"}
    return [
        Decision(f"t{at}", TEXT, f"r{reviewer}", names[letter])
        for reviewer, column in enumerate(columns)
        for at, letter in enumerate(column)
        if letter != "."
    ]


def test_cohens_kappa_of_two() -> None:
    # 20 and 15 of 50 agree (Wikipedia's example): kappa is 0.4.
    measures = agreement(by_reviewer("p" * 25 + "n" * 25, "p" * 20 + "n" * 5 + "p" * 10 + "n" * 15))
    assert measures == {"review/agreed_share": 0.7, "review/kappa": pytest.approx(0.4)}


def test_krippendorffs_alpha_of_three() -> None:
    columns = (".....34121133.3", "1.213343.......", "..21344.21133.4")  # Wikipedia's example: 0.691 for nominal data
    answers = [
        Decision(f"t{at}", TEXT, f"r{coder}", label)
        for coder, column in enumerate(columns)
        for at, label in enumerate(column)
        if label != "."
    ]
    assert agreement(answers)["review/alpha"] == pytest.approx(0.691, abs=5e-4)


def test_agreement_on_spans() -> None:
    measures = agreement([*decided((ACME, BOLT), (ACME,)), *decided((), (), text_id="u")])
    assert measures["review/span_f1"] == pytest.approx(2 / 3) and measures["review/agreed_share"] == 0.5
    assert 0 < measures["review/kappa"] < 1


def test_no_agreement_without_two_reviewers_of_a_text_and_none_beyond_chance_of_one_label() -> None:
    assert agreement(by_reviewer("pp..", "..nn")) == {}
    assert agreement(by_reviewer("pp", "pp")) == {"review/agreed_share": 1.0}


def votes(folder: Path, rows: list[dict]) -> pd.DataFrame:
    pd.DataFrame(rows).to_parquet(folder / "annotations.parquet")
    return suggestions.read(folder)


def test_the_least_certain_labels_come_first_and_labelled_texts_do_not(tmp_path: Path) -> None:
    row = {"text": "t", "label": "positive", "n_valid": 8}
    rows = votes(tmp_path, [
        {**row, "id": "sure", "agreement": 8, "gold": None}, {**row, "id": "unsure", "agreement": 5, "gold": None},
        {**row, "id": "known", "agreement": 1, "gold": "positive"},
        {**row, "id": "unread", "label": None, "agreement": 0, "n_valid": 0, "gold": None},
        {**row, "id": "few", "agreement": 3, "n_valid": 4, "gold": None},
    ])  # fmt: skip
    assert [(each.id, each.certainty) for each in suggestions.ordered(rows)] == [
        ("unread", 0), ("unsure", 0.625), ("few", 0.75), ("sure", 1),
    ]  # fmt: skip


def test_a_texts_least_certain_span_counts_and_so_do_forms_that_do_not_occur(tmp_path: Path) -> None:
    spans = [{"start": 9, "end": 13, "label": "company", "votes": 5}, {"start": 0, "end": 4, "label": "company", "votes": 8}]
    row = {"text": TEXT, "n_valid": 8, "n_samples": 8, "missing": [], "spans": []}
    rows = votes(tmp_path, [
        {**row, "id": "none"}, {**row, "id": "two", "spans": spans}, {**row, "id": "invented", "missing": ["Dyno"]},
        {**row, "id": "unread", "n_valid": 0},
    ])  # fmt: skip
    ordered = suggestions.ordered(rows)
    assert [each.id for each in ordered] == ["unread", "two", "invented", "none"]
    assert ordered[1].answer == (ACME, BOLT) and ordered[1].scores == (1.0, 0.625)


def test_a_span_that_half_of_the_samples_name_makes_a_text_uncertain_though_it_is_not_suggested(tmp_path: Path) -> None:
    half = [{"start": 0, "end": 4, "label": "company", "votes": 4}]
    row = {"text": TEXT, "n_valid": 8, "n_samples": 8, "missing": [], "spans": []}
    rows = votes(tmp_path, [{**row, "id": "sure", "candidates": []}, {**row, "id": "half", "candidates": half}])
    ordered = [(each.id, each.certainty, each.answer) for each in suggestions.ordered(rows)]
    assert ordered == [("half", 0.5, ()), ("sure", 1.0, ())]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"id": "a", "text": "t"}], "has no column label, agreement, n_valid"),
        ([{"id": "a", "text": "t", "label": "x", "agreement": 1, "n_valid": 1}] * 2, "the id 'a' occurs twice"),
    ],
)
def test_files_that_are_no_annotations(tmp_path: Path, rows: list[dict], message: str) -> None:
    with pytest.raises(UserError, match=message):
        votes(tmp_path, rows)


def test_a_file_that_is_cut(tmp_path: Path) -> None:
    (tmp_path / "annotations.parquet").write_bytes(b"PAR1 cut")
    with pytest.raises(UserError, match=r"annotations\.parquet cannot be read"):
        suggestions.read(tmp_path)
