"""Runs become methods: seeds are grouped, rows get one order, test sets are kept separate."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from findistill.errors import UserError
from findistill.methods.distil.students import objective, threshold
from findistill.report.comparisons import best, compare
from findistill.report.methods import Run, gather


def test_seeds_are_gathered_and_rows_line_up(new_student: Callable[..., Run]) -> None:
    first, second = new_student("cls", 5, 1, 1.0), new_student("cls", 5, 0, 1.0)
    shuffled = replace(second, predictions=second.predictions.sample(frac=1, random_state=0))
    (method,) = gather([first, shuffled])
    assert [run.seed for run in method.runs] == [0, 1]
    assert list(method.ids) == sorted(method.ids)
    (plain,) = gather([first, second])
    np.testing.assert_array_equal(method.predicted, plain.predicted)
    assert (objective(method), threshold(method), method.test_set) == ("CLS", 5, "made_up")
    assert method.correct.mean() == pytest.approx(
        np.mean([(run.predictions["label"] == run.predictions["predicted"]).mean() for run in (first, second)])
    )


def test_labels_are_taken_by_name_not_by_position(new_student: Callable[..., Run]) -> None:
    run = new_student("cls", 5, 0, 1.0)
    predictions = run.predictions[["id", "label", "predicted", "p_positive", "p_negative", "p_neutral"]]
    (method,) = gather([run, replace(run, seed=1, predictions=predictions)])
    np.testing.assert_array_equal(method.probabilities[0], method.probabilities[1])


def test_seeds_on_other_rows_are_refused(new_student: Callable[..., Run]) -> None:
    with pytest.raises(UserError, match="different rows"):
        gather([new_student("cls", 5, 0, 1.0), new_student("cls", 5, 1, 1.0, n=299)])


def test_a_seed_twice_is_refused(new_student: Callable[..., Run]) -> None:
    with pytest.raises(UserError, match="seed 0 was run twice"):
        gather([new_student("cls", 5, 0, 1.0), new_student("cls", 5, 0, 1.0)])


@pytest.mark.parametrize(("column", "message"), [("predicted", "no column predicted"), ("id", "no column id")])
def test_missing_columns_are_named(new_student: Callable[..., Run], column: str, message: str) -> None:
    run = new_student("cls", 5, 0, 1.0)
    with pytest.raises(UserError, match=message):
        gather([replace(run, predictions=run.predictions.drop(columns=column))])


def test_repeated_ids_are_refused(new_student: Callable[..., Run]) -> None:
    run = new_student("cls", 5, 0, 1.0)
    with pytest.raises(UserError, match="'row-0001' occurs twice"):
        gather([replace(run, predictions=run.predictions.assign(id=run.predictions["id"].replace("row-0000", "row-0001")))])


def test_other_rows_are_another_test_set(new_student: Callable[..., Run]) -> None:
    methods = gather([new_student("cls", 5, 0, 1.0), new_student("reg", 5, 0, 1.0, n=200)])
    assert [method.test_set for method in methods] == ["made_up", "made_up #2"]
    assert compare(methods) == []


def test_same_name_other_settings_are_told_apart(new_student: Callable[..., Run]) -> None:
    run = new_student("cls", 5, 0, 1.0)
    other = replace(run, config={**run.config, "student": {"name": "big"}})
    assert [method.name for method in gather([run, other])] == [
        "CLS ≥5 (student.name=tiny)",
        "CLS ≥5 (student.name=big)",
    ]


def test_lists_in_names_are_without_what_their_elements_share(new_student: Callable[..., Run]) -> None:
    run = new_student("cls", 5, 0, 1.0)
    for lists, names in (
        (
            (["llm.where={model:gpt-4}"], ["llm.where={model:gpt-4}", "llm.where={model:gpt-3.5}"]),
            ("[gpt-4]", "[gpt-4, gpt-3.5]"),
        ),
        ((["llm=gpt", "llm=gpt prompt=cot"], []), ("[gpt, gpt prompt=cot]", "none")),
        ((["a", "b"], ["a"]), ("[a, b]", "[a]")),
        ((["neighbours"], ["tfidf"]), ("[neighbours]", "[tfidf]")),
    ):
        settings = [{**run.config, "annotate": {**run.config["annotate"], "ensemble": each}} for each in lists]
        methods = gather([replace(run, config=one) for one in settings])
        assert [method.name for method in methods] == [f"CLS ≥5 (annotate.ensemble={name})" for name in names]


def test_how_a_job_is_run_is_not_another_method(new_student: Callable[..., Run]) -> None:
    first, second = new_student("cls", 5, 0, 1.0), new_student("cls", 5, 1, 1.0)
    moved = replace(second, config={**second.config, "logger": {"name": "csv"}, "study": "other", "runs_dir": "/x"})
    assert len(gather([first, moved])) == 1


def test_best_is_chosen_on_validation_and_says_when_it_cannot(new_student: Callable[..., Run]) -> None:
    weak, strong = new_student("cls", 5, 0, 0.5), new_student("cls", 8, 0, 3.0)
    weak.metrics["val/macro_f1"] = 0.99
    methods = gather([weak, strong])
    assert best(methods) == (methods[0], True)
    del weak.metrics["val/macro_f1"]
    assert best(methods) == (methods[1], False)
    assert best([]) == (None, True)


def test_families_of_comparisons(runs: list[Run]) -> None:
    comparisons = compare(gather(runs), resamples=200)
    pairs = [(one.family, one.a, one.b, one.main) for one in comparisons]
    assert pairs == [
        ("CLS against REG", "CLS ≥8", "REG ≥5", True),
        ("CLS against REG", "CLS ≥5", "REG ≥5", False),
        ("CLS against REG", "CLS ≥8", "REG ≥8", False),
        ("best student against the rest", "REG ≥5", "teacher", False),
        ("best student against the rest", "REG ≥5", "annotator (llm, 8 samples)", False),
        ("strictest threshold against loosest", "CLS ≥8", "CLS ≥5", False),
        ("strictest threshold against loosest", "REG ≥8", "REG ≥5", False),
    ]
    assert all(one.p_holm >= (one.accuracy.p or 0) for one in comparisons)
    assert comparisons[0].accuracy.high < 0 and comparisons[0].p_holm < 0.01
