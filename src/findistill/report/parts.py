"""The report parts of stages: how a stage's runs are named, what they are compared with, and their tables and figures.

A stage's YAML names the module of its part (`report: findistill.methods.annotate.report`), whose `PART` is an instance of
a subclass of `Part`. Parts are imported when a report is made, not before.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pandas as pd
import yaml
from matplotlib.figure import Figure

from findistill.config.groups import config_dir
from findistill.config.packages import conf_folders
from findistill.config.targets import Slot, check_name, slot_of
from findistill.core.step import load
from findistill.report.alt import described

if TYPE_CHECKING:  # these modules look parts up
    from findistill.report.methods import Method, Run
    from findistill.stats.intervals import Estimate

BASELINE = "baseline"  # the kind of a reference method that no stage made


@dataclass(frozen=True)
class Family:
    """Pairs of methods (a, b) on one test set, whose p-values are adjusted together by Holm's procedure.

    Attributes:
        contrast: what a pair differs in, `prompt=cot against direct`; pairs of one contrast are also averaged.
        main: the first pair is the main question of the study.
    """

    name: str
    pairs: "Sequence[tuple[Method, Method]]"
    contrast: "Callable[[Method, Method], str] | None" = None
    main: bool = False


@dataclass(frozen=True)
class Table:
    """A further table of the page and of table.md; its numbers are in `<name>.csv`.

    Attributes:
        columns: column of `frame` -> its title and the pattern of its cells on the page, in the page's order.
    """

    name: str
    title: str
    note: str
    frame: pd.DataFrame
    columns: Mapping[str, tuple[str, str]]


@dataclass(frozen=True)
class Picture:
    """A figure with its title and caption on the page; its files are `figures/<name>.png` and `.svg`.

    Attributes:
        alt: the alternative text: what it shows, in words and numbers.
    """

    name: str
    title: str
    caption: str
    figure: Figure
    alt: str = ""


@dataclass(frozen=True)
class Section:
    """What the page says about one test set of models that do not label texts.

    Attributes:
        rows: how many test rows there are, in words.
        summary: the main result in a sentence.
        doubts: why a method should not be relied on, one sentence each.
    """

    test_set: str
    rows: str
    summary: str
    doubts: Sequence[str]
    tables: Sequence[Table]
    pictures: Sequence[Picture] = ()


class Wording:
    """The words of a package's tables, figures and notes, from its `report.yaml`; {names} in them are filled in."""

    def __init__(self, package: str) -> None:
        self.content: dict[str, Any] = yaml.safe_load(files(package).joinpath("report.yaml").read_text("utf-8"))

    def table(self, name: str, frame: pd.DataFrame, **values: Any) -> Table:
        text = self.content["tables"][name]
        columns = {column: (title.format(**values), pattern) for column, (title, pattern) in text["columns"].items()}
        return Table(name, text["title"], text["note"].format(**values), frame, columns)

    def picture(self, name: str, figure: Figure, *, alt: str = "", **values: Any) -> Picture:
        text = self.content["pictures"][name]
        return Picture(name, text["title"].format(**values), text["caption"].format(**values), figure, alt or described(figure))

    def notes(self, **values: Any) -> list[str]:
        return [note.format(**values) for note in self.content["notes"]]


@dataclass(frozen=True)
class Results:
    """The results of a study on one test set.

    Attributes:
        estimates: metrics by method name.
        annotations: the annotator's votes on the training texts, if the study has any.
    """

    test_set: str
    methods: "list[Method]"
    estimates: "dict[str, dict[str, Estimate]]"
    annotations: pd.DataFrame | None = None


@dataclass(frozen=True, eq=False)
class Part:
    """What one stage adds to reports. The defaults suit a stage that trains or scores a classifier.

    Attributes:
        kind: the column `kind` of the table; one part per kind.
        noun: what a method of this kind is called in the summary, singular.
        rows: what its test rows are called.
        runs: what the runs of one method are called: `Seeds`, or `Runs` if other settings are repeated.
        readable_columns: columns of `table.csv` that these methods add to the readable table.
        columns: further columns of `table.csv`, with their keys in metrics.json.
        omitted: columns that do not apply to these methods.
        listed_last: its methods come after all others.
        scored_on_training_rows: other rows are scored with another draw of the labelled rows.
        classifies: its models assign each text a label, and its methods are in the main table; others have `sections`.
        own_baselines: baselines are computed for its jobs; models on human labels only share those of other jobs.
    """

    kind: str
    noun: str = ""
    rows: str = "test rows"
    runs: str = "Seeds"
    readable_columns: Sequence[str] = ()
    columns: Mapping[str, str] = field(default_factory=dict)
    omitted: Sequence[str] = ()
    listed_last: bool = False
    scored_on_training_rows: bool = False
    classifies: bool = True
    own_baselines: bool = True

    # One run

    def name(self, config: Mapping[str, Any], metrics: Mapping[str, float]) -> str:
        """The name of a run's method in tables; its seeds share the name."""
        return str(config["stage"]["name"])

    def scores(self, config: Mapping[str, Any]) -> bool:
        """Whether a done run has predictions to compare, unlike steps before a model."""
        return True

    def identity(self, config: dict[str, Any]) -> tuple[int | str | None, dict[str, Any]]:
        """What distinguishes a run from repeats of its method, and the settings that define the method."""
        return config["seed"], config

    def status(self, config: Mapping[str, Any], folder: Path) -> dict[str, Any]:
        """What to record of a run besides its status.json."""
        return {}

    def setting_name(self, key: str) -> str:
        """A setting as it is appended to the name of a method that shares its name with another."""
        return key

    def numbered_columns(self, keys: Iterable[str]) -> dict[str, str]:
        """Further columns of `table.csv` whose keys in metrics.json hold a number."""
        return {}

    # One study

    def own(self, methods: "Sequence[Method]") -> "list[Method]":
        """The methods of this kind."""
        return [method for method in methods if method.kind == self.kind]

    def prepare(self, runs: "list[Run]") -> "list[Run]":
        """All runs of a study, baselines included, as they are to be compared."""
        return runs

    def group(self, method: "Method") -> str:
        """The colour and legend entry of a method in figures of all methods."""
        return self.kind

    def leaders(self, methods: "Sequence[Method]") -> "list[Method] | None":
        """The methods whose confusion and calibration are drawn; None: the best of this kind on validation rows."""
        return None

    def validated_on(self, method: "Method") -> str:
        """What made a method's validation labels, if not people: scores on the votes of different annotators do not compare."""
        return ""

    def families(self, methods: "Sequence[Method]") -> Iterator[Family]:
        """Paired tests; `methods` are all of one test set."""
        yield from ()

    def tables(self, results: Results) -> Iterator[Table]:
        yield from ()

    def pictures(self, results: Results) -> Iterator[Picture]:
        yield from ()

    def sections(self, runs: "Sequence[Run]", resamples: int) -> Iterator[Section]:
        """Those on runs of this kind, if they do not classify: one per test set."""
        yield from ()

    def notes(self, methods: "Sequence[Method]") -> list[str]:
        """How the numbers of the part's methods are computed, if differently; `methods` are all of the report."""
        return []


@cache
def registered() -> "dict[str, Part]":
    """Stage -> its report part, by the names of the stages; stages without `report:` in their YAML have none."""
    parts: dict[str, Part] = {}
    for path in sorted(path for folder in (config_dir(), *conf_folders()) for path in (folder / "stage").glob("*.yaml")):
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        settings = content.get("stage", content)  # a `# @package _global_` file holds its section
        if module := settings.get("report"):
            check_name("stage.report", f"{module}.PART", cast(Slot, slot_of("stage")))
            parts[settings["name"]] = load(f"{module}:PART")
    return parts


def of_stage(stage: str) -> Part:
    """The part of a stage; a default one if the stage has none."""
    return registered().get(stage) or Part(stage)


def of_kind(kind: str) -> Part:
    """The part whose methods are of this kind; a default one for baselines and unknown kinds."""
    return next((part for part in registered().values() if part.kind == kind), None) or Part(kind)


def present(methods: "Sequence[Method]") -> list[Part]:
    """The parts that have some of these methods."""
    return [part for part in registered().values() if part.own(methods)]
