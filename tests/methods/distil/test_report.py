"""The report of a study of distillation from a teacher model: made-up runs with known effects."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from findistill.methods.distil import report as students_report
from findistill.methods.distil import students
from findistill.methods.distil.report import AGAINST_LABELS, DIFFER_IN
from findistill.methods.finetune.report import DIFFER_IN as TEACHERS_DIFFER_IN
from findistill.report.comparisons import best, compare, contrasts_table
from findistill.report.methods import Method, Run, gather
from findistill.report.page import build_report
from findistill.report.parts import BASELINE
from findistill.stats.intervals import accuracy_share, seed_means
from tests.fixtures.studies import make_run

TERMS = {"kl": 0.0, "soft_ce": 0.0, "hidden": 0.0, "hard": 0.0}
SIZES = {"small": 4e6, "middle": 17e6, "teacher": 23e6}
DATA = {"data": {"name": "made_up"}}


def student(
    name: str, seed: int, skill: float, pool: int = 20000, recipe: str = "fixed", layers: str = "uniform", **terms: float
) -> Run:
    """One job of stage=student with distill=logit or tinybert, as collected by the report."""
    distill = {
        "objective": "logit", "source": "teacher", "min_agreement": None, "recipe": recipe, "layers": layers,
        "unlabelled": f"headlines limit={pool}" if pool else "", "terms": TERMS | terms,
        "temperature": 2.0 if "kl" in terms else 1.0,
    }  # fmt: skip
    config = {"seed": seed, **DATA, "student": {"name": name, "model": f"of {name}"}, "distill": distill}
    metrics = {"model/parameters": SIZES[name], "data/unlabelled": float(pool), "data/kept": 3000.0, "val/macro_f1": skill / 9}
    return make_run(
        f"{name}: {students.terms_name(distill['terms'])}", "student", seed, skill=skill, config=config, metrics=metrics
    )


def teacher(seed: int, skill: float, schedule: str = "linear", source: str | None = None, use: bool = False) -> Run:
    config = {
        "seed": seed, **DATA, "teacher": {"name": "teacher", "pretrain": {"source": source}}, "augment": {"use": use},
        "trainer": {"schedule": schedule, "layer_decay": 1.0 if schedule == "linear" else 0.8},
    }  # fmt: skip
    metrics = {"model/parameters": SIZES["teacher"], "val/macro_f1": skill / 9}
    return make_run("teacher on 3,000 human labels", "teacher", seed, skill=skill, config=config, metrics=metrics)


def study() -> list[Run]:
    runs = []
    for name, better in (("small", 0.0), ("middle", 1.0)):
        for seed in (0, 1):
            runs += [student(name, seed, 1.2 + better, pool, kl=1.0) for pool in (0, 5000)]
            runs.append(student(name, seed, 1.5 + better, kl=1.0))
            runs.append(student(name, seed, 1.4 + better, soft_ce=1.0, hidden=1.0))
            runs.append(student(name, seed, 0.2 + better, pool=0, hard=1.0))
    return [*runs, teacher(0, 3.5), teacher(1, 3.5)]


@pytest.fixture(scope="module")
def methods() -> list[Method]:
    return gather(study())


def estimates(methods: list[Method]) -> dict[str, Any]:
    return {m.name: seed_means(m.gold, m.predicted, 3, resamples=50) for m in methods}


def families(methods: list[Method]) -> dict[str, set[tuple[str, str]]]:
    results = compare(methods, resamples=50)
    return {family: {(one.a, one.b) for one in results if one.family == family} for family in {one.family for one in results}}


def test_names_tell_what_differs_and_no_more(methods: list[Method]) -> None:
    names = [method.name for method in methods if method.kind == "student"]
    assert len(set(names)) == 10
    assert "small: kl (distill.unlabelled=headlines limit=5000)" in names and "small: hidden + soft_ce" not in names
    assert {"small: soft_ce + hidden", "middle: labels alone", "middle: kl (distill.unlabelled=none)"} <= set(names)


def test_each_student_is_compared_with_itself_on_labels_alone(methods: list[Method]) -> None:
    pairs = families(methods)[AGAINST_LABELS]
    assert len(pairs) == 8
    assert all(a.split(":")[0] == b.split(":")[0] and b.endswith("labels alone") and not a.endswith("alone") for a, b in pairs)


def test_pairs_differ_in_one_setting_or_in_one_group_of_settings(methods: list[Method]) -> None:
    by_family = families(methods)
    assert f"{DIFFER_IN}distill.temperature" not in by_family  # it changes together with the terms
    terms = by_family[f"{DIFFER_IN}distill.terms"]
    assert {pair[0].split(":")[0] for pair in terms} == {"small", "middle"} and len(terms) == 2
    assert len(by_family[f"{DIFFER_IN}distill.unlabelled"]) == 6
    assert len(by_family[f"{DIFFER_IN}student"]) == 4
    assert not any("labels alone" in name for family, pairs in by_family.items() if family.startswith(DIFFER_IN)
                   for pair in pairs for name in pair)  # fmt: skip


def test_faults_are_compared_with_the_recipe_without() -> None:
    runs = [student("small", 0, skill, recipe=recipe, kl=1.0)
            for skill, recipe in ((1.5, "fixed"), (0.5, "schedule"), (1.4, "mean"), (0.4, "faithful"))]  # fmt: skip
    pairs = families(gather(runs))[f"{DIFFER_IN}distill.recipe"]
    assert len(pairs) == 3 and {b for _, b in pairs} == {"small: kl (distill.recipe=fixed)"}


def test_teachers_steps_are_families_of_their_own() -> None:
    steps = [teacher(0, 2.0), teacher(0, 2.4, "slanted"), teacher(0, 2.6, source="headlines"), teacher(0, 3.0, use=True)]
    pairs = families(gather(steps))
    assert {family.removeprefix(TEACHERS_DIFFER_IN) for family in pairs} == {"trainer", "teacher.pretrain.source", "augment.use"}
    [(richer, plain)] = pairs[f"{TEACHERS_DIFFER_IN}augment.use"]
    assert "augment.use=True" in richer and "augment.use=False" in plain
    [(richer, plain)] = pairs[f"{TEACHERS_DIFFER_IN}teacher.pretrain.source"]
    assert "source=headlines" in richer and "source=none" in plain


def test_the_share_of_the_teacher_has_its_interval() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.random((3, 500)) < 0.7, rng.random((2, 500)) < 0.8
    share, low, high = accuracy_share(a, b)
    assert share == pytest.approx(a.mean() / b.mean()) and low < share < high < low + 0.2
    assert accuracy_share(b, b)[0] == 1.0 and accuracy_share(a, np.zeros_like(a))[0] > 1  # no division by 0


def test_the_tables_hold_what_each_student_keeps_of_its_teacher(methods: list[Method]) -> None:
    name, teacher_name = "small: kl (distill.unlabelled=headlines limit=20000)", "teacher on 3,000 human labels"
    shares = students_report.teacher_shares(methods).set_index("method")
    by_name = {method.name: method for method in methods}
    row = shares.loc[name]
    assert row["share"] == pytest.approx(by_name[name].correct.mean() / by_name[teacher_name].correct.mean())
    assert row["teacher"] == teacher_name and row["share_lo"] < row["share"] < row["share_hi"]
    assert row["parameters"] == pytest.approx(4 / 23)
    tests = compare(methods, resamples=50)
    assert any(one.family == AGAINST_LABELS and one.b == "middle: labels alone" and one.accuracy.difference > 0 for one in tests)
    changes = contrasts_table([one for one in tests if one.family == f"{DIFFER_IN}distill.unlabelled"])
    assert changes["Pairs"].astype(int).sum() == 6
    assert "middle: labels alone" in shares.index  # compared with the only teacher
    several = [*methods, *gather([replace(teacher(0, 2.0), method="another teacher")])]
    assert "middle: labels alone" not in students_report.teacher_shares(several)["method"].tolist()
    assert students_report.PART.notes(methods) == []
    alone = [method for method in methods if method.kind == "student"]
    assert not len(students_report.teacher_shares(alone))
    assert "The teacher is not in the report" in students_report.PART.notes(alone)[0]


def test_a_student_is_measured_by_the_teacher_that_it_had() -> None:
    had = replace(teacher(0, 2.0), seed=None, method="the students' teacher", status={"teacher": "teacher-1"})
    taught = [replace(student("small", seed, 1.5, kl=1.0), status={"teacher": "teacher-1"}) for seed in (0, 1)]
    other = [replace(student("middle", 0, 1.5, kl=1.0), status={"teacher": "teacher-2"})]
    methods = gather([*taught, *other, teacher(0, 3.5), had])
    assert students_report.teacher_of(methods).name == "the students' teacher"  # type: ignore[union-attr]
    by_name = {method.name: method for method in methods}
    assert students_report.teacher_of(methods, by_name["small: kl"]) is by_name["the students' teacher"]
    # A student whose teacher is not in the study is compared with the best one that is.
    best = students_report.teacher_of(methods, by_name["middle: kl"])
    assert best is not None and best.runs[0].metrics.get("val/macro_f1") == 3.5 / 9


def test_a_line_over_pools_has_one_source_and_nothing_else_that_differs() -> None:
    def other(run: Run, **distill: Any) -> Run:
        return replace(run, config=run.config | {"distill": run.config["distill"] | distill})

    runs = [student("small", 0, 1.5, pool, kl=1.0) for pool in (0, 5000, 20000)]
    runs += [other(student("small", 0, 1.5, pool, kl=1.0), unlabelled=f"tfns limit={pool}") for pool in (3000, 9000)]
    runs.append(other(student("small", 0, 1.5, 50000, kl=1.0), temperature=9.0))
    lines = students.unlabelled_series(gather(runs))
    assert [[member.mean_metric("data/unlabelled") for member in line] for line in lines] == [[0, 5000, 20000], [0, 3000, 9000]]


def test_a_line_over_thresholds_is_named_by_the_part_of_a_list_that_differs() -> None:
    def of_votes(threshold: int, annotators: list[str]) -> Run:
        config = {
            **DATA, "annotate": {"ensemble": [f"llm=recorded llm.where={each}" for each in annotators]},
            "distill": {"objective": "reg", "source": "annotator", "min_agreement": threshold},
        }  # fmt: skip
        return make_run("REG", "student", 0, skill=1.0, config=config)

    runs = [of_votes(threshold, names) for threshold in (1, 3) for names in (["gpt-4"], ["gpt-4", "llama"])]
    series = students.threshold_series(gather(runs))
    assert {name: [students.threshold(one) for one in line] for name, line in series.items()} == {
        "REG, ensemble=[gpt-4]": [1, 3],
        "REG, ensemble=[gpt-4, llama]": [1, 3],
    }
    [(name, _)] = students.threshold_series(gather([of_votes(threshold, ["gpt-4"]) for threshold in (1, 3)])).items()
    assert name == "REG"


def test_students_are_drawn_with_one_pool_even_where_another_did_better() -> None:
    runs = [student("small", 0, 1.9, 5000, kl=1.0), student("small", 0, 1.5, kl=1.0), student("middle", 0, 1.5, kl=1.0)]
    runs += [student("small", 0, 1.2, pool=0, hard=1.0), student("middle", 0, 1.6, 1000, soft_ce=1.0)]
    points = students_report.one_of_each(gather(runs))
    pools = {
        (students.size_name(one), students.terms_name(students.terms(one))): one.mean_metric("data/unlabelled") for one in points
    }
    assert pools == {("small", "kl"): 20000, ("middle", "kl"): 20000, ("small", "labels alone"): 0, ("middle", "soft_ce"): 1000}


def test_figures_are_drawn_where_there_are_grounds(tmp_path: Path, methods: list[Method]) -> None:
    own = students_report.PART.own(methods)
    assert students.sizes(own) == ["small", "middle"]
    lines = students.unlabelled_series(own)
    assert {(students.size_name(line[0]), students.terms_name(students.terms(line[0]))) for line in lines} == {
        ("small", "kl"),
        ("middle", "kl"),
    }
    [small] = [line for line in lines if students.size_name(line[0]) == "small"]
    assert [member.mean_metric("data/unlabelled") for member in small] == [0, 5000, 20000]
    files = build_report("taught", study(), [], tmp_path, resamples=50)
    assert {"students", "unlabelled", "comparison"} <= {path.stem for path in files.figures}
    assert "Of parameters" in files.html.read_text(encoding="utf-8")
    alone = build_report("one", study()[2:3], [], tmp_path / "one", resamples=50)
    assert {"students", "unlabelled"}.isdisjoint(path.stem for path in alone.figures)


def test_at_each_number_of_labels_students_stand_against_the_baselines_of_that_number() -> None:
    def with_labels(run: Run, labels: int) -> Run:
        return replace(run, config=run.config | {"data": {**run.config["data"], "labelled": labels}})

    def baseline(seed: int, labels: int) -> Run:
        return with_labels(make_run("TF-IDF", BASELINE, seed, skill=0.5, config=DATA), labels)

    taught = [with_labels(student("small", seed, 2.0, kl=1.0), labels) for labels in (100, 500) for seed in (0, 1)]
    methods = gather([*taught, *(baseline(seed, labels) for labels in (100, 500) for seed in (0, 1))])
    own = [one for one in compare(methods, resamples=50) if one.family == students_report.SAME_LABELS]
    assert [(one.a[-4:], one.b[-4:], one.contrast) for one in own] == [
        ("100)", "100)", "small: kl against TF-IDF"), ("500)", "500)", "small: kl against TF-IDF"),
    ]  # fmt: skip
    assert all(one.accuracy.over == "seeds and rows" and one.accuracy.difference > 0 for one in own)
    one_number = [method for method in methods if method.config["data"]["labelled"] == 100]
    assert not [one for one in compare(one_number, resamples=50) if one.family == students_report.SAME_LABELS]


def voted(annotators: list[str], combine: str, seed: int, skill: float, validation: float) -> Run:
    """A student of the combined votes of several annotators."""
    config = {
        "seed": seed, **DATA, "annotate": {"ensemble": annotators, "combine": combine}, "llm": {"name": "recorded"},
        "distill": {"objective": "cls", "source": "annotator", "min_agreement": 1},
    }  # fmt: skip
    return make_run("CLS ≥1", "student", seed, skill=skill, config=config, metrics={"val/macro_f1": validation})


def test_students_of_other_annotators_are_tested_against_each_other_and_none_is_chosen_on_votes(tmp_path: Path) -> None:
    good, poor = ["llm.where={model:gpt-4}"], ["llm.where={model:gpt-4}", "llm.where={model:dolly}"]
    kinds = ((good, "majority", 3.0, 0.6), (poor, "majority", 1.0, 0.9), (poor, "dawid_skene", 2.0, 0.7))
    runs = [voted(who, combine, seed, skill, validation) for who, combine, skill, validation in kinds for seed in (0, 1)]
    methods = gather(runs)
    tests = [test for test in compare(methods, resamples=20) if test.family == "students of votes that differ in annotators"]
    short = [" | ".join(name[name.index("[") :] for name in (test.a, test.b)) for test in tests]
    majority, both = "annotate.combine=majority)", "[gpt-4, dolly], "
    assert short == [
        f"[gpt-4], {majority} | {both}{majority}", f"[gpt-4], {majority} | {both}annotate.combine=dawid_skene)",
        f"{both}{majority} | {both}annotate.combine=dawid_skene)",
    ]  # fmt: skip
    page = build_report("moon", runs, [], tmp_path, resamples=20).html.read_text()
    assert "Best student: CLS ≥1 (annotate.ensemble=[gpt-4]" in page, "votes of a poor annotator are easily met"
    assert "Selected on the rows that it is scored on, which favours it." in page

    same = [run for run in runs if run.config["annotate"]["ensemble"] == poor and run.config["annotate"]["combine"] == "majority"]
    strict = [replace(run, method="CLS ≥2", metrics={"val/macro_f1": 0.5}) for run in same]
    strict = [replace(run, config=run.config | {"distill": run.config["distill"] | {"min_agreement": 2}}) for run in strict]
    top, fair = best(gather([*same, *strict]))
    assert top is not None and (top.name, fair) == ("CLS ≥1", True), "thresholds share their votes"


def test_validation_on_votes_and_on_human_labels_do_not_compare() -> None:
    def of(seed: int, skill: float, validation: float, **distill: Any) -> Run:
        run = voted([], "majority", seed, skill, validation)
        return replace(run, method=str(distill), config=run.config | {"distill": run.config["distill"] | distill})

    votes = of(0, 1.0, 0.95)
    gold, human = of(0, 3.0, 0.75, gold=True), of(0, 2.0, 0.6, source="human")
    folder, elsewhere = (of(0, 2.0, 0.9, source="folder", annotations=place) for place in ("a", "b"))
    top, fair = best(gather([votes, gold]))
    assert top is not None and (top.runs[0].method, fair) == (gold.method, False)
    for one, other, fair in ((gold, human, True), (votes, folder, False), (folder, elsewhere, False), (human, folder, False)):
        assert best(gather([one, other]))[1] == fair
