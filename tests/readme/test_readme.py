"""Every command in the documents works: all are composed and validated here, and short ones are run."""

import json
import os
import re
import shlex
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hydra import compose
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import OmegaConf
from safetensors.numpy import save_file

from findistill.config.expand import expand
from findistill.config.validate import validate
from findistill.core import run_folder
from findistill.core.files import write_json
from findistill.core.study import admit
from findistill.errors import UserError
from findistill.methods.stage import stage_of
from tests.conftest import ROOT, Command
from tests.fixtures.composing import shipped

DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "experiments").glob("*/README.md"))]


def commands(path: Path) -> list[str]:
    """The lines of a document's bash blocks, without comments and variable prefixes, and commands that fill a table cell."""
    text = path.read_text(encoding="utf-8")
    blocks = [*re.findall(r"```bash\n(.*?)```", text, re.DOTALL), *re.findall(r"\| `(findistill [^`]+)` (?=\|)", text)]
    lines = [line.partition(" #")[0].strip() for block in blocks for line in block.splitlines()]
    return [re.sub(r"^(?:[A-Z_]+=\S+ )+", "", line) for line in lines if line and not line.startswith("#")]


ALL = [(path, command) for path in DOCUMENTS for command in commands(path)]
OURS = dict.fromkeys(command for _, command in ALL if command.startswith("findistill"))  # each once, however many pages show it


def test_the_documents_only_show_commands_that_are_tested() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for path, command in ALL:
        first, *rest = command.split()
        assert first == "findistill" or (first == "make" and rest[0] in targets), f"{path.name}: {command}"
    assert len(OURS) > 8


def write_own_files(folder: Path) -> None:
    """Write the user files named in the documents' commands: made-up texts, 120 of 300 labelled."""
    rows = [f"Profit {word} {number}%,{label}" for number in range(100) for word, label in TEXTS.items()]
    labelled = [row if number < 120 else f"{row.partition(',')[0]}," for number, row in enumerate(rows)]
    (folder / "tweets.csv").write_text("\n".join(["text,label", *labelled]))
    (folder / "news.csv").write_text("\n".join(["id,text,sentiment", *(f"n{at},{row}" for at, row in enumerate(rows))]))
    (folder / "answers.csv").write_text("\n".join(["text,answer", *rows]))
    (folder / "people.csv").write_text("\n".join(["text,ann,bob,cleo", *(f"{row},,positive" for row in rows)]))
    contents = [[{"message": {"content": row.rpartition(",")[2]}}] for row in rows]
    usage = {"prompt_tokens": 40, "completion_tokens": 2}
    lines = [{"custom_id": f"n{at}", "response": {"body": {"choices": each, "usage": usage}}} for at, each in enumerate(contents)]
    (folder / "batch.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (folder / "finer_ord_test.jsonl").write_text('{"tokens": ["Profit", "rose"], "model": "gpt-4", "answer": "Profit:Other"}')


def write_earlier_results(command: str, folder: Path) -> None:
    """Write outputs of earlier commands that this one names: models, annotations, decisions of people."""
    for job in re.findall(r"runs/[\w-]+/[\w-]+", command):
        (folder / job / "model").mkdir(parents=True, exist_ok=True)
        for name in ("config.json", "tokenizer.json", "README.md"):
            (folder / job / "model" / name).write_text("{}")
        (folder / job / "annotations.parquet").touch()
        save_file({"weight": np.zeros(1, np.float32)}, folder / job / "model" / "model.safetensors")
    for file in re.findall(r"data.reviewed=(\S+)", command):
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        columns = {"text": ["t"], "spans" if "entities" in command or "company_ner" in command else "label": ["positive"]}
        pd.DataFrame(columns).to_parquet(folder / file)


TEXTS = {"rose": "positive", "fell": "negative", "was": "neutral"}


def covering(overrides: list[Override]) -> list[list[str]]:
    """Jobs of a sweep that cover every value of every swept setting: as many as the longest list, not the product."""
    lists = [
        [f"{each.get_key_element()}={value}" for value in each.sweep_string_iterator()] if each.is_sweep_override()
        else [each.input_line or ""]
        for each in overrides
    ]  # fmt: skip
    return [[values[number % len(values)] for values in lists] for number in range(max(map(len, lists), default=1))]


@pytest.mark.parametrize("command", OURS)
def test_command_composes_and_obeys_the_rules(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_own_files(tmp_path)
    write_earlier_results(command, tmp_path)
    monkeypatch.chdir(tmp_path)
    arguments = [part for part in shlex.split(command)[1:] if part not in ("-m", "--cfg", "job")]
    arguments = [re.sub(r"=interval\(([^,]+),.*", r"=\1", part) for part in arguments]  # a search tries values from the interval
    with shipped():
        chosen = [each for each in arguments if each.startswith(("experiment=", "hydra.sweeper.params="))]
        whole = compose("config", overrides=chosen, return_hydra_config=True)
        params = [f"{key}={value}" for key, value in (whole.hydra.sweeper.params or {}).items()]
        for job in covering(OverridesParser.create().parse_overrides([*params, *arguments])):
            config = compose("config", overrides=job)
            try:
                validate(expand(config))
            except UserError as error:
                # The published setting leaves the choice of model to the user.
                assert "llm.model is not set" in str(error) and "published" in command
            assert OmegaConf.to_container(config)


def headed(path: Path) -> list[str]:
    """The commands in the leading comments of an experiment."""
    return re.findall(r"^# (findistill .*)$", path.read_text(encoding="utf-8"), re.MULTILINE)


PAGES = {f"{path.parent.name} page": commands(path) for path in DOCUMENTS if path.parent.parent.name == "experiments"}
PAGES |= {path.stem: headed(path) for path in sorted((ROOT / "conf" / "experiment").glob("*.yaml"))}


@pytest.mark.parametrize("page", [page for page, own in PAGES.items() if len(own) > 1])
def test_the_commands_of_a_page_go_into_one_study_one_after_the_other(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each study accepts a later command's settings together with those of an earlier, finished one."""
    monkeypatch.chdir(tmp_path)
    for number, command in enumerate(PAGES[page]):
        arguments = [part for part in shlex.split(command)[1:] if part != "-m"]
        if command.startswith("make") or "stage=report" in arguments:
            continue
        write_earlier_results(command, tmp_path)
        with shipped():
            chosen = [each for each in arguments if each.startswith(("experiment=", "hydra.sweeper.params="))]
            whole = compose("config", overrides=chosen, return_hydra_config=True)
            params = [f"{key}={value}" for key, value in (whole.hydra.sweeper.params or {}).items()]
            overrides = OverridesParser.create().parse_overrides([*params, *arguments])
            swept = [each.get_key_element() for each in overrides if each.is_sweep_override()]
            config = expand(compose("config", overrides=covering(overrides)[0]))
        step = stage_of(config)
        folder = tmp_path / config.study
        admit(folder, config.study, [run_folder.sections(config, step)], [*swept, *config.sweep.vary])
        (folder / f"{step.name}-{number}").mkdir(parents=True)
        write_json(folder / f"{step.name}-{number}" / "status.json", {"state": "done"})


SHORT = (
    "annotate.limit=20",
    "data.labelled=30",
    "data.test=0.1",
    "trainer.max_epochs=1",
    "evaluate.latency=false",
    "evaluate.resamples=20",
    "report.resamples=20",
    "logger=none",
)


@pytest.mark.slow
def test_the_three_things_people_do(findistill: Command, tmp_path: Path) -> None:
    for command in commands(ROOT / "README.md"):
        if "study=" not in command or "tweets.csv" in command:
            continue
        extra = () if "stage=report" in command else (*SHORT, "hydra.sweeper.n_trials=4") if "optuna" in command else SHORT
        result = findistill(*shlex.split(command)[1:], *extra, timeout=900)
        assert result.returncode == 0, f"{command}\n{result.stderr[-2000:]}"
    assert (tmp_path / "runs" / "moon" / "report.html").exists()
    assert len(list((tmp_path / "runs" / "moon").glob("student-*/predictions.parquet"))) == 16


@pytest.mark.slow
def test_a_newcomers_tweets_to_a_checked_student(findistill: Command, tmp_path: Path) -> None:
    """The README's own-texts section, with fewer texts and epochs: the final output tells how good the student is."""
    source = Path(os.environ.get("FINDISTILL_DATA", "none")) / "twitter_financial_news" / "sent_train.csv"
    if not source.exists():
        pytest.skip("needs the finance tweets: set FINDISTILL_DATA")
    tweets = pd.read_csv(source).sample(140, random_state=0).reset_index(drop=True)
    tweets["label"] = tweets["label"].map({0: "bearish", 1: "bullish", 2: "neutral"}).where(tweets.index < 92)
    tweets[["text", "label"]].to_csv(tmp_path / "tweets.csv", index=False)

    [best, first, second] = dict.fromkeys(command for command in commands(ROOT / "README.md") if "tweets.csv" in command)
    assert "experiment=best_student" in best  # test_a_strangers_binary_file_to_a_student_above_tfidf runs such a command
    ends = []
    for command in (first, second):
        result = findistill(*shlex.split(command)[1:], "trainer.max_epochs=4", timeout=600, WANDB_MODE="offline")
        assert result.returncode == 0, f"{command}\n{result.stderr[-2000:]}"
        ends.append(result.stdout + result.stderr)
    assert re.search(r"^accuracy \d\.\d+ \[.*\]  macro F1 \d\.\d+, 46 rows$", ends[0], re.MULTILINE)
    table = pd.read_csv(tmp_path / "runs" / "tweets" / "table.csv").set_index("method")
    assert table["test_rows"].eq(46).all() and table.index.is_unique
    [student] = table.index[table["kind"] == "student"]
    often = table.loc["majority class", "accuracy"]
    for name in (student, "majority class"):  # both scores are printed
        assert re.search(rf"^\| {re.escape(name)} \|.*\| {table.loc[name, 'accuracy']:.3f} ", ends[1], re.MULTILINE), name
    place = re.search(rf"unreliable \(csv\): {re.escape(student)}: .*accuracy .* is (.*?) {often:.3f}, that of always", ends[1])
    assert bool(place) == (table.loc[student, "accuracy_lo"] <= often)
    if place:
        assert (place[1] == "not clearly above") == (table.loc[student, "accuracy"] > often)

    for end, words in zip(
        ends, ("stage=report study=tweets", "stage=export evaluate.model=runs/tweets/latest-student "), strict=True
    ):
        [step] = re.findall(r"next: findistill (.*)", end)
        assert step.startswith(words)
        result = findistill(*shlex.split(step))
        assert result.returncode == 0, result.stderr[-2000:]


def students_and_baselines(study: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    table = pd.read_csv(study / "table.csv")
    return table[table["kind"] == "student"], table[table["kind"] == "baseline"]


@pytest.mark.thorough
@pytest.mark.timeout(3600)
def test_the_demo_ends_with_a_student_above_every_baseline(findistill: Command, tmp_path: Path) -> None:
    result = findistill("-m", "experiment=demo", "logger=none", timeout=3000)
    assert result.returncode == 0, result.stderr[-2000:]
    students, baselines = students_and_baselines(tmp_path / "runs" / "demo")
    assert students["accuracy"].max() > baselines["accuracy"].max() and len(baselines) >= 4
    assert "Chosen on 2 folds of 300 labelled rows" in (tmp_path / "runs" / "demo" / "table.md").read_text()
    assert list((tmp_path / "runs" / "demo").glob("latest-export/onnx/*int8*.onnx"))


@pytest.mark.thorough
@pytest.mark.timeout(3600)
def test_a_strangers_binary_file_to_a_student_above_tfidf(findistill: Command, tmp_path: Path) -> None:
    """200 binary labels, 3,000 unlabelled texts and 800 test rows of finance tweets, in one command."""
    source = Path(os.environ.get("FINDISTILL_DATA", "none")) / "twitter_financial_news" / "sent_train.csv"
    if not source.exists():
        pytest.skip("needs the finance tweets: set FINDISTILL_DATA")
    tweets = pd.read_csv(source).drop_duplicates("text")
    tweets["view"] = tweets["label"].map({0: "sell", 1: "buy"})
    decided = tweets[tweets["view"].notna()].sample(frac=1, random_state=0)
    known, scored, others = decided.iloc[:200], decided.iloc[200:1000], decided.iloc[1000:]
    others = pd.concat([others, tweets[tweets["view"].isna()]]).sample(3000, random_state=0).assign(view=None)
    rows = pd.concat([known.assign(part="train"), scored.assign(part="test"), others.assign(part="train")])
    rows[["text", "view", "part"]].to_csv(tmp_path / "views.csv", index=False)
    result = findistill(
        "experiment=best_student", "data=csv", "data.path=views.csv", "data.label_column=view", "data.split_column=part",
        "data.on_leak=drop", "logger=none", timeout=3000,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-2000:]
    students, baselines = students_and_baselines(tmp_path / "runs" / "best_student")
    [tfidf] = baselines.loc[baselines["method"].str.startswith("TF-IDF"), "accuracy"]
    assert students["accuracy"].max() > tfidf and students["test_rows"].eq(800).all()
