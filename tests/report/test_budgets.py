from dataclasses import replace
from pathlib import Path

from findistill.report import budgets, style
from findistill.report.methods import Run, gather
from findistill.report.parts import BASELINE
from findistill.stats.intervals import seed_means
from tests.fixtures.studies import make_run


def run(method: str, labels: int, seed: int, skill: float, **more: object) -> Run:
    kind = str(more.pop("kind", "student"))
    return make_run(method, kind, seed, skill=skill, config={"data": {"name": "made", "labelled": labels}, **more})


def test_a_curve_is_of_methods_that_differ_in_the_number_of_labels_alone(tmp_path: Path) -> None:
    runs = [run("kl", labels, seed, labels / 1000) for labels in (500, 100) for seed in (0, 1)]
    runs += [run("kl", labels, 0, 0.5, trainer={"batch_size": 64}) for labels in (100, 500)]
    runs += [run("TF-IDF", labels, 0, 0.3, kind=BASELINE) for labels in (100, 500)]
    runs += [run("once", 100, 0, 0.3)]
    methods = gather(runs)
    curves = budgets.series(methods)
    assert {name: [one.config["data"]["labelled"] for one in members] for name, members in curves.items()} == {
        "kl": [100, 500], "kl #2": [100, 500], "TF-IDF": [100, 500],
    }  # fmt: skip
    estimates = {method.name: seed_means(method.gold, method.predicted, 3, resamples=20) for method in methods}
    left, right = budgets.by_labels(curves, estimates).axes[:2]
    [first, second, baseline] = left.get_lines()
    assert first.get_ydata()[0] == estimates[curves["kl"][0].name]["accuracy"].mean  # type: ignore[index]
    assert (first.get_linestyle(), second.get_linestyle(), baseline.get_linestyle()) == ("-", "-", "--")
    assert [tick.get_text() for tick in right.get_xticklabels()] == ["100", "500"]
    assert not budgets.series([method for method in methods if method.config["data"]["labelled"] == 100])
    style.save(budgets.by_labels(curves, estimates), tmp_path / "labels")


def test_eight_curves_can_be_told_apart() -> None:
    runs = [run(f"method {at}", labels, 0, 0.5) for at in range(8) for labels in (100, 500)]
    methods = gather(runs)
    estimates = {method.name: seed_means(method.gold, method.predicted, 3, resamples=20) for method in methods}
    lines = budgets.by_labels(budgets.series(methods), estimates).axes[0].get_lines()
    assert len({(line.get_color(), line.get_marker()) for line in lines}) == 8


def test_a_curve_whose_first_seed_failed_at_one_number_of_labels_is_complete() -> None:
    runs = [run("kl", labels, seed, 0.5) for labels, seeds in ((100, (0, 1)), (500, (1, 2))) for seed in seeds]
    runs = [replace(one, config={**one.config, "seed": one.seed}) for one in runs]
    [members] = budgets.series(gather(runs)).values()
    assert [one.config["data"]["labelled"] for one in members] == [100, 500]
