"""The public Python API: light to import, the same artifacts as the command line, the same errors."""

import dataclasses
import inspect
import re
import subprocess
import sys
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hydra import compose, initialize_config_dir

import findistill
from findistill import api
from findistill.core.files import read_json
from tests.conftest import ROOT, Command
from tests.test_cli import HEAVY

PAGE = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
QUICK = {"trainer": {"max_epochs": 1, "accelerator": "cpu"}, "logger": "none", "evaluate": {"resamples": 20, "latency": False}}


def test_importing_it_loads_nothing_heavy() -> None:
    program = f"import sys, findistill; dir(findistill); print([name for name in {HEAVY!r} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert result.stdout.strip() == "[]", result.stdout + result.stderr


def test_what_is_public_is_there_and_documented() -> None:
    for name in findistill.__all__:
        assert getattr(findistill, name) is not None and (name in PAGE or name in ("AnnotationSet", "TextSet", "__version__"))
    assert set(findistill.__all__) <= set(dir(findistill))
    assert (Path(findistill.__file__).parent / "py.typed").exists()
    with pytest.raises(AttributeError, match="no attribute 'Anotator'"):
        findistill.Anotator  # noqa: B018


def undocumented(name: str, thing: Any) -> list[str]:
    """What the docstring of a public name lacks: fields, arguments, `Returns` and `Raises`."""
    doc = thing.__doc__ or ""
    if not doc or (dataclasses.is_dataclass(thing) and doc.startswith(f"{thing.__name__}(")):
        return [f"{name}: no docstring"]
    names, sections = [], []
    if dataclasses.is_dataclass(thing):
        names, sections = [field.name for field in dataclasses.fields(thing)], ["Attributes"]
    elif inspect.isfunction(thing) or inspect.ismethod(thing) or issubclass(thing, api._Configured):
        names = [each for each in inspect.signature(thing).parameters if each != "self"]
        sections = [*(["Args"] if names else []), *([] if isinstance(thing, type) else ["Returns"]), "Raises"]
    missing = [f"{name}: {section}" for section in sections if not re.search(rf"^ *{section}:$", doc, re.MULTILINE)]
    missing += [f"{name}: {each}" for each in names if not re.search(rf"^ +{each}: \S", doc, re.MULTILINE)]
    if isinstance(thing, type):
        for own, inner in vars(thing).items():
            if own.startswith("_") or not (callable(inner) or isinstance(inner, property | cached_property | classmethod)):
                continue
            if isinstance(inner, property | cached_property):
                missing += [] if inner.__doc__ else [f"{name}.{own}: no docstring"]
            else:
                missing += undocumented(f"{name}.{own}", getattr(thing, own))
    return missing


def test_every_public_name_says_what_it_takes_returns_and_raises() -> None:
    names = [name for name in findistill.__all__ if name != "__version__"]
    assert [line for name in names for line in undocumented(name, getattr(findistill, name))] == []


def test_what_a_docstring_leaves_out_is_seen() -> None:
    def load(folder: str, rows: int) -> None:
        """Load.

        Args:
            folder: where.
        """

    assert undocumented("load", load) == ["load: Returns", "load: Raises", "load: rows"]
    assert undocumented("Point", dataclasses.make_dataclass("Point", ["x"])) == ["Point: no docstring"]


def test_the_reference_of_the_site_has_every_public_name() -> None:
    page = (ROOT / "site" / "pages" / "reference.md").read_text(encoding="utf-8")
    entries = re.findall(r"^::: ([\w.]+)$", page, re.MULTILINE)
    assert {entry.rpartition(".")[2] for entry in entries} == set(findistill.__all__) - {"__version__"}
    for entry in entries:
        module, _, name = entry.rpartition(".")
        assert getattr(import_module(module), name) is getattr(findistill, name)


@pytest.fixture(scope="module")
def example_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder in which all examples of docs/api.md ran in order, and their output."""
    folder = tmp_path_factory.mktemp("page")
    result = subprocess.run(
        [sys.executable, "-"], input="\n".join(EXAMPLES), cwd=folder, capture_output=True, text=True, timeout=400
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return folder, result.stdout


def test_every_example_has_ten_lines_at_most() -> None:
    assert len(EXAMPLES) == 5
    assert all(len([line for line in example.splitlines() if line.strip()]) <= 10 for example in EXAMPLES)


def test_the_examples_of_the_page_run(example_run: tuple[Path, str]) -> None:
    folder, printed = example_run
    assert "licence: the project's own" in printed and "of 16 texts with 6 of 8 votes" in printed
    assert "no such option, did you mean smollm2?" in printed
    [run] = folder.glob("runs/default/student-*")
    assert f"'test/accuracy': {read_json(run / 'metrics.json')['test/accuracy']:.3f}".rstrip("0") in printed
    assert "The company issued a profit warning." in printed and "p_positive" in printed


def test_the_command_line_finds_what_it_made(example_run: tuple[Path, str], findistill: Command) -> None:
    settings = (
        "data.labelled=60", "llm=smollm2", "prompt=direct", "shots.k=2", "annotate.samples=8", "annotate.limit=16",
        "distill.min_agreement=4", "student=minilm_3l", "trainer.max_epochs=2", "logger=none",
        f"runs_dir={example_run[0] / 'runs'}",
    )  # fmt: skip
    result = findistill("plan=true", *settings)
    assert "1 jobs: 1 done, 0 to run; 0 artifacts to create" in result.stdout, result.stdout + result.stderr


@pytest.fixture
def news(tmp_path: Path) -> Path:
    """60 distinct texts of three labels."""
    rows = [
        f"{word} number {n},{label}" for n in range(20) for word, label in (("gain", "up"), ("flat", "same"), ("loss", "down"))
    ]
    (tmp_path / "news.csv").write_text("text,tone\n" + "\n".join(rows) + "\n")
    return tmp_path / "news.csv"


def loaded(news: Path, **settings: object) -> api.TextSet:
    names = ["up", "same", "down"]
    return api.load_dataset(news, runs_dir=news.parent / "runs", label_column="tone", labels=names, **settings)


def test_a_file_becomes_splits_that_share_no_text(news: Path) -> None:
    data = loaded(news)
    assert data.labels == ("up", "same", "down") and data.card.name == "csv"
    parts = [data.train, data.unlabelled, data.validation, data.test]
    assert len(data.unlabelled) == 0 and sum(map(len, parts)) == 60 == len(set(pd.concat(parts)["text"]))


def test_labels_that_are_hidden_are_not_shown(news: Path) -> None:
    data = loaded(news, labelled=9)
    assert len(data.train) == 9 and data.train["label"].notna().all()
    assert len(data.unlabelled) > 20 and data.unlabelled["label"].isna().all()


def test_texts_in_memory_are_a_data_set(tmp_path: Path) -> None:
    data = api.load_dataset(["Profit rose.", "Sales fell.", "Profit rose."], runs_dir=tmp_path)
    assert data.unlabelled["text"].tolist() == ["Profit rose.", "Sales fell."] and len(data.train) == 0


def test_it_works_inside_another_hydra_application(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("data: mine\n")
    with initialize_config_dir(str(tmp_path), version_base="1.3"):
        assert api.load_dataset("demo", runs_dir=tmp_path / "runs", limit=20).card.name == "demo"
        with pytest.raises(findistill.UserError, match="did you mean smollm2"):
            api.Annotator(llm="smollm3")
        assert compose("own") == {"data": "mine"}


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: api.load_dataset("dmo"), "data=dmo: no such data set and not a .csv"),
        (lambda: api.load_dataset("nowhere.csv"), "data=nowhere.csv: no such file"),
        (lambda: api.load_dataset("demo", limt=5), "data.limt: no such setting. Did you mean data.limit?"),
        (lambda: api.load_dataset("demo", test=3), "data.test=3"),
        (lambda: api.load_annotations("nowhere"), "nowhere: no annotations.parquet; give runs/.artifacts/annotate-KEY"),
        (lambda: api.Annotator(llm="smollm3"), "llm=smollm3: no such option, did you mean smollm2?"),
        (lambda: api.Annotator(annotate={"sampels": 3}), "annotate.sampels: no such setting. Did you mean annotate.samples?"),
        (lambda: api.Annotator(annotate={"temperature": 0}).annotate(), "annotate.temperature=0 makes all 8 samples identical"),
        (lambda: api.Annotator().annotate(["A text."]), "has no labelled rows for shots.k=4 demonstrations"),
        (lambda: api.Distiller("data.pool=30"), "data.pool is now data.labelled"),
        (lambda: api.Distiller("distill.min_agreement=9").fit(), "distill.min_agreement=9 can never be reached"),
        (lambda: api.Distiller().fit(votes="nowhere"), "distill.annotations=nowhere: no annotations.parquet there"),
        (lambda: api.Classifier.from_pretrained("runs/none/such"), "the model runs/none/such: no such folder"),
    ],
)  # fmt: skip
def test_mistakes_are_worded_as_on_the_command_line(
    call: object, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(findistill.UserError, match=re.escape(words)):
        call()  # type: ignore[operator]


def as_votes(rows: pd.DataFrame, names: tuple[str, ...]) -> pd.DataFrame:
    """All eight votes for the gold label."""
    frame = rows[["id", "text", "label"]].assign(gold=rows["label"], agreement=8, n_valid=8, n_samples=8)
    return frame.assign(**{f"soft_{name}": (rows["label"] == name).astype(float) for name in names})


def test_a_student_of_edited_votes_and_its_own_student(news: Path, tiny: Path) -> None:
    data, runs = loaded(news), news.parent / "runs"
    votes = as_votes(pd.concat([data.train, data.validation]), data.labels)
    edited = votes[votes["text"].str.len() < 14]
    own = {"student": str(tiny), **QUICK}
    distiller = api.Distiller(runs_dir=runs, **own)
    run = distiller.fit(data, votes=edited)
    assert run.metrics["data/kept"] == edited["id"].isin(data.train["id"]).sum() < len(data.train)
    status = (run.folder / "status.json").read_text()
    assert distiller.fit(data, votes=edited).folder == run.folder and (run.folder / "status.json").read_text() == status
    assert distiller.fit(data, votes=votes).folder != run.folder

    with pytest.raises(findistill.UserError, match=r"annotations\.parquet has no column agreement, soft_up; votes need"):
        distiller.fit(data, votes=votes.drop(columns=["agreement", "soft_up"]))

    classifier = api.Classifier.from_pretrained(run, accelerator="cpu")
    assert classifier.predict([]).empty
    predicted = classifier.predict(run.predictions["text"], batch_size=4)
    columns = [f"p_{name}" for name in classifier.labels]
    assert list(predicted) == ["text", "label", *columns] and set(classifier.labels) == set(data.labels)
    assert predicted["label"].tolist() == run.predictions["predicted"].tolist()
    assert np.allclose(predicted[columns], run.predictions[columns], atol=1e-5)

    taught = api.Distiller(runs_dir=runs, **own).fit(data, teacher=run)
    config = (taught.folder / "config.yaml").read_text()
    assert "objective: logit" in config and str(run.folder) in config


@pytest.mark.parametrize(("texts", "words"), [("one text", "not one string"), (["a", None], "not None at position 1")])
def test_predict_takes_a_list_of_texts(tiny: Path, texts: object, words: str) -> None:
    classifier = api.Classifier(None, ["a", "b"], api.Trainer())
    with pytest.raises(findistill.UserError, match=words):
        classifier.predict(texts)  # type: ignore[arg-type]


def test_a_data_set_of_entities(tmp_path: Path) -> None:
    data = api.load_dataset("demo_companies", runs_dir=tmp_path / "runs", rows=60, labelled=10)
    assert data.labels == ("company",) and len(data.train) == 10 and data.train["spans"].notna().all()
    assert data.unlabelled["spans"].isna().all() and data.test["spans"].map(len).sum() > 0
