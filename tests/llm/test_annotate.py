import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd
import pytest

from findistill.data.labels import LabelSet
from findistill.errors import UserError
from findistill.llm.annotate import annotate, annotation_key, drawn, recover
from findistill.llm.engine import Answer, Sampling, Task
from findistill.llm.prompts import Template
from findistill.settings.schema import Annotate, Config, EndpointLLM, InProcessLLM, Prompt, Shots

LABELS = LabelSet(("negative", "neutral", "positive"))
TEXTS = pd.DataFrame(
    {"id": [f"t{i}" for i in range(10)], "text": [f"text {i}" for i in range(10)], "label": ["neutral", None] * 5}
)
POOL = TEXTS.iloc[:0]
SCORES = {"negative": -2.0, "neutral": -1.0, "positive": -0.7}


def config(**settings: object) -> Config:
    return Config(
        llm=InProcessLLM(name="fake", model="fake"),
        prompt=Prompt(name="direct", instruction="Classify."),
        shots=Shots(k=0),
        annotate=Annotate(**settings),  # type: ignore[arg-type]
    )


class FakeEngine:
    """Answers in batches of two; dies after `lasts` batches."""

    def __init__(self, exact: bool, lasts: int = 99) -> None:
        self._exact, self.lasts, self.asked = exact, lasts, 0
        self.tasks: Sequence[Task] = ()

    def exact(self, template: Template) -> bool:
        return self._exact

    def answers(self, tasks: Sequence[Task], template: Template, sampling: Sampling) -> Iterator[list[Answer]]:
        self.tasks = tasks
        made = [
            Answer(task.id, s, log_probabilities=SCORES) if self._exact
            else Answer(task.id, s, raw="x", label=["positive", "neutral", "positive", None][s], rationale=f"why {s}")
            for task in tasks for s in task.samples
        ]  # fmt: skip
        for start in range(0, len(made), 2):
            if start // 2 == self.lasts:
                raise KeyboardInterrupt
            self.asked += len(made[start : start + 2])
            yield made[start : start + 2]


@pytest.mark.parametrize("exact", [True, False])
def test_a_killed_run_goes_on_and_ends_in_the_same_files(exact: bool, tmp_path: Path) -> None:
    settings = config(samples=4)
    straight = annotate(TEXTS, POOL, LABELS, settings, tmp_path / "straight", FakeEngine(exact))
    with pytest.raises(KeyboardInterrupt):
        annotate(TEXTS, POOL, LABELS, settings, tmp_path / "cut", FakeEngine(exact, lasts=3))
    journal = tmp_path / "cut" / ("scores.jsonl" if exact else "samples.jsonl")
    journal.write_bytes(journal.read_bytes()[:-9])  # the last line is torn
    assert not (tmp_path / "cut" / "annotations.parquet").exists()
    engine = FakeEngine(exact)
    resumed = annotate(TEXTS, POOL, LABELS, settings, tmp_path / "cut", engine)
    assert engine.asked == (10 if exact else 40) - 5
    pd.testing.assert_frame_equal(resumed, straight)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "cut" / "annotations.parquet"), straight)
    assert (tmp_path / "cut" / "samples.jsonl").read_text() == (tmp_path / "straight" / "samples.jsonl").read_text()
    done = FakeEngine(exact)
    annotate(TEXTS, POOL, LABELS, settings, tmp_path / "cut", done)
    assert done.asked == 0


def test_columns_of_sampled_answers(tmp_path: Path) -> None:
    frame = annotate(TEXTS, POOL, LABELS, config(samples=4), tmp_path, FakeEngine(exact=False))
    assert list(frame.columns) == [
        "id", "text", "label", "gold", "agreement", "n_valid", "n_samples",
        "soft_negative", "soft_neutral", "soft_positive", "rationale",
    ]  # fmt: skip
    row = frame.iloc[0]
    assert (row["label"], row["gold"], row["agreement"], row["n_valid"], row["n_samples"]) == (
        "positive",
        "neutral",
        2,
        3,
        4,
    )
    assert row["rationale"] == "why 0"
    assert frame["gold"].isna().sum() == 5
    rows = [json.loads(line) for line in (tmp_path / "samples.jsonl").read_text().splitlines()]
    assert len(rows) == 40 and rows[1]["text"] == "text 0" and rows[3]["label"] is None


def test_exact_distributions_are_kept(tmp_path: Path) -> None:
    frame = annotate(TEXTS, POOL, LABELS, config(samples=8), tmp_path, FakeEngine(exact=True))
    assert frame[["p_negative", "p_neutral", "p_positive"]].sum(axis=1).tolist() == pytest.approx([1] * 10)
    assert frame["p_positive"][0] == pytest.approx(0.4967, abs=1e-3)
    assert frame["agreement"].nunique() > 1  # samples are drawn, not copied


def test_failed_calls_are_asked_again(tmp_path: Path) -> None:
    line = json.dumps({"id": "t0", "sample": 0, "error": "timeout"})
    (tmp_path / "samples.jsonl").write_text(line + "\n")
    engine = FakeEngine(exact=False)
    frame = annotate(TEXTS, POOL, LABELS, config(samples=2), tmp_path, engine)
    assert engine.asked == 20
    assert frame["n_valid"].tolist() == [2] * 10


def test_draws_follow_the_distribution_and_depend_on_seed_and_id_only() -> None:
    answers = drawn("id", SCORES, 20_000, 0.5, seed=0)
    share = sum(answer.label == "positive" for answer in answers) / 20_000
    assert share == pytest.approx(0.6162, abs=0.015)  # e^-1.4 / (e^-4 + e^-2 + e^-1.4)
    assert drawn("id", SCORES, 8, 0.5, seed=0) == answers[:8]
    assert [a.label for a in drawn("id", SCORES, 64, 0.5, 1)] != [a.label for a in answers[:64]]
    assert [a.label for a in drawn("other", SCORES, 64, 0.5, 0)] != [a.label for a in answers[:64]]
    assert {a.label for a in drawn("id", SCORES, 8, 0, 0)} == {"positive"}


def test_calibration_on_held_out_pool_rows(tmp_path: Path) -> None:
    pool = pd.DataFrame(
        {"id": range(80), "text": [f"pool text {i}" for i in range(80)], "label": ["negative"] * 60 + ["neutral"] * 20}
    )
    settings = config(samples=8, calibration="pool")
    settings.shots = Shots(k=4, selection="random")
    engine = FakeEngine(exact=True)
    frame = annotate(TEXTS, pool, LABELS, settings, tmp_path, engine)
    assert engine.asked == 10 + 40
    assert list(frame["id"]) == list(TEXTS["id"])
    # The model answers the same to everything, so what is left is about the roots of the labels' shares in the held-out
    # rows, sqrt(3) : 1 : 0, and the little that the prior leaves to the label without any.
    assert frame["p_negative"][0] == pytest.approx(0.6, abs=0.07)
    assert json.loads((tmp_path / "calibration.json").read_text())["rows"] == 40
    # Held-out rows see the demonstrations of the texts, and are none of them.
    assert len({task.demonstrations for task in engine.tasks}) == 1
    held = {task.text for task in engine.tasks if task.id.startswith("pool:")}
    assert len(held) == 40 and not held & {each.text for each in engine.tasks[0].demonstrations}
    again = FakeEngine(exact=True)
    pd.testing.assert_frame_equal(annotate(TEXTS, pool, LABELS, settings, tmp_path, again), frame)
    assert again.asked == 0


def test_auto_calibrates_where_it_can(tmp_path: Path) -> None:
    pool = pd.DataFrame({"text": [f"pool text {i}" for i in range(50)], "label": ["negative"] * 50})
    for name, engine, rows, asked in [
        ("exact", FakeEngine(exact=True), pool, 35),
        ("few", FakeEngine(exact=True), pool.head(49), 10),
        ("sampled", FakeEngine(exact=False), pool, 20),
    ]:
        annotate(TEXTS, rows, LABELS, config(samples=2, calibration="auto"), tmp_path / name, engine)
        assert engine.asked == asked


def test_the_key_holds_what_determines_the_answers() -> None:
    one = annotation_key(config())
    fast = config(concurrency=1, limit=3)
    fast.llm.batch_tokens = 1  # type: ignore[attr-defined]
    assert annotation_key(fast) == one
    for changed in (config(samples=3), config(temperature=1.0), config(calibration="batch"), config(seed=1)):
        assert annotation_key(changed) != one
    endpoint = config()
    endpoint.llm = EndpointLLM(model="m", base_url="https://me:secret@host/v1")
    assert annotation_key(endpoint)["llm"]["base_url"] == "https://host/v1"


def test_mistakes(tmp_path: Path) -> None:
    for settings, message in [
        ({"samples": 0}, "annotate.samples=0"),
        ({"temperature": -1.0}, "annotate.temperature=-1.0"),
        ({"calibration": "magic"}, "annotate.calibration=magic"),
        ({"calibration": "batch"}, "needs label probabilities"),
    ]:
        with pytest.raises(UserError, match=message):
            annotate(TEXTS, POOL, LABELS, config(**settings), tmp_path / "x", FakeEngine(exact=False))
    with pytest.raises(UserError, match="no texts"):
        annotate(TEXTS.head(0), POOL, LABELS, config(), tmp_path / "x", FakeEngine(exact=False))
    with pytest.raises(UserError, match="column id"):
        annotate(pd.concat([TEXTS, TEXTS]), POOL, LABELS, config(), tmp_path / "x", FakeEngine(exact=False))
    (tmp_path / "scores.jsonl").write_text("nonsense\n{}")
    with pytest.raises(UserError, match="line 1"):
        recover(tmp_path / "scores.jsonl")
