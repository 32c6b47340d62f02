"""What a study of distillation from a teacher model found, in sentences and figures.

A student that learns from a teacher model has terms (`Method.terms`); one whose only term is the gold label is the baseline
that had no teacher. The report sets the teacher itself beside them; jobs of stage=teacher are further teachers.
"""

from collections import Counter
from collections.abc import Sequence

from matplotlib.figure import Figure

from findistill.analysis import distilled_plots as plots
from findistill.analysis.comparisons import AGAINST_LABELS, TAUGHT_DIFFER_IN, Comparison, best
from findistill.analysis.intervals import Estimate, accuracy_share
from findistill.analysis.methods import Method, setting
from findistill.analysis.words import against, chosen, points, value


def of(methods: Sequence[Method]) -> list[Method]:
    """The students among `methods` that learnt from a teacher model, or could have."""
    return [method for method in methods if method.terms]


def teacher_of(methods: Sequence[Method], student: Method | None = None) -> Method | None:
    """The teacher that a student had (default: most students had), or else of the study's the best on validation rows."""
    teachers = [method for method in methods if method.kind == "teacher"]
    named = [_taught(one) for one in ([student] if student else of(methods))]
    had = [method for method in teachers if _taught(method) and _taught(method) in named]
    if had:
        return max(had, key=lambda method: named.count(_taught(method)))
    return best(teachers)[0]


def _taught(method: Method) -> object:
    """The name of the model that a student learnt from, or that a teacher is."""
    return method.runs[0].status.get("teacher")


def findings(methods: Sequence[Method], estimates: dict[str, dict[str, Estimate]], tests: Sequence[Comparison]) -> list[str]:
    """The main results as sentences, worked out from the numbers."""
    students = of(methods)
    teacher = teacher_of(methods)
    said = []
    if teacher:
        one = estimates[teacher.name]
        said.append(f"Teacher: {teacher.name}, accuracy {value(one['accuracy'])}, macro F1 {value(one['macro_f1'])}.")
        said += [_kept(member, teacher_of(methods, member) or teacher, estimates) for member in students]
    else:
        said.append("The teacher is not in the report (report.baselines), so no student is measured by it.")
    said += [against(one) for one in tests if one.family == AGAINST_LABELS]
    for axis in dict.fromkeys(one.family for one in tests if one.family.startswith(TAUGHT_DIFFER_IN)):
        said.append(_axis(axis.removeprefix(TAUGHT_DIFFER_IN), [one for one in tests if one.family == axis]))
    return [*said, chosen(best(students)[1])]


def figures(methods: Sequence[Method], estimates: dict[str, dict[str, Estimate]]) -> list[tuple[str, str, str, Figure]]:
    """(file name, title, caption, figure) of every figure that the runs give grounds for."""
    students, teacher = of(methods), teacher_of(methods)
    made = []
    if len(plots.sizes(students)) > 1 or teacher:
        made.append((
            "students", "Students and their teacher",
            "Mean over seeds, dots: single seeds; bars: 95% bootstrap interval over the test rows. The scale at the right is the "
            "share of the teacher's accuracy. Drawn are those with the pool that most have; of students that differ in other "
            "settings, the best on validation rows.",
            plots.by_size(_one_of_each(students), teacher, estimates),
        ))  # fmt: skip
    if plots.pools(students):
        made.append((
            "pool", "How many unlabelled texts",
            "Texts that only the teacher labelled, beside the labelled training rows. Mean over seeds, dots: single seeds; "
            "bars: 95% bootstrap interval over the test rows.",
            plots.by_pool(students, teacher, estimates),
        ))  # fmt: skip
    return made


def _one_of_each(students: Sequence[Method]) -> list[Method]:
    """One method of each student and set of terms: with the commonest pool where it has that, the best on validation rows."""
    pools = Counter(setting(student.config, "distill.pool") for student in students if not student.on_labels_alone)
    commonest = pools.most_common(1)[0][0] if pools else None
    groups: dict[tuple[str, str], list[Method]] = {}
    for student in students:
        groups.setdefault((plots.size_name(student), plots.terms(student)), []).append(student)
    chosen_from = [
        [one for one in group if setting(one.config, "distill.pool") == commonest] or group for group in groups.values()
    ]
    return [found for group in chosen_from if (found := best(group)[0])]


def _kept(student: Method, teacher: Method, estimates: dict[str, dict[str, Estimate]]) -> str:
    share, low, high = accuracy_share(student.correct, teacher.correct)
    sizes = [method.mean_metric("model/parameters") for method in (student, teacher)]
    smaller = f" with {sizes[0] / sizes[1]:.0%} of its parameters" if sizes[0] and sizes[1] else ""
    return (
        f"{student.name}: accuracy {value(estimates[student.name]['accuracy'])}, {share:.1%} [{low:.1%}, {high:.1%}] of the "
        f"teacher's{smaller}."
    )


def _axis(axis: str, tests: Sequence[Comparison]) -> str:
    gaps = [abs(test.accuracy.difference) for test in tests]
    sure = [test for test in tests if test.p_holm < 0.05]
    most = max(tests, key=lambda test: abs(test.accuracy.difference))
    pairs = "pair that differs" if len(tests) == 1 else "pairs that differ"
    return (
        f"{axis}: {len(tests)} {pairs} in nothing else, by {points(sum(gaps) / len(gaps), sign=False)} of accuracy on average; "
        f"{len(sure)} with p < 0.05 after Holm. Most: {against(most)}"
    )
