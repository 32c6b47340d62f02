"""SpanMarker in its own environment: a fake interpreter in the fast suite, the real one if it is installed."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from findistill.data.span_counts import validation_scores
from findistill.data.spans import Marked
from findistill.errors import UserError
from findistill.inference.spans import stream
from findistill.methods.entities import span_marker_model as method
from findistill.methods.entities.config import SpanMarker
from findistill.training.config import Trainer
from findistill.training.loop import Session
from tests.fixtures.spans import draw, surfaces

Pair = tuple[Marked, Marked]

# Marks the words that were a one-word entity in training.
STANDIN = """#!{python}
import json, sys
from pathlib import Path
_, script, what, place, *_ = sys.argv
assert script.endswith("span_marker_runner.py")
folder = Path(place)
if what == "train":
    if json.loads((folder / "request.json").read_text())["epochs"] == 99:
        sys.exit("ValueError: no such luck")
    rows = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]
    names = {{row["words"][first] for row in rows for first, last, label in row["entities"] if first == last}}
    (folder / "model").mkdir()
    (folder / "model" / "names.json").write_text(json.dumps(sorted(names)))
    history = [{{"epoch": 1, "train/loss": 2.0, "val/f1": 0.5}}, {{"epoch": 2, "train/loss": 1.0, "val/f1": 0.4}}]
    numbers = {{"train_s": 1.0, "cpu_s": 1.0, "parameters": 3, "megabytes": 0.1}}
    (folder / "history.json").write_text(json.dumps({{"history": history, **numbers}}))
    for row in ({{"step": 4, "steps": 4}}, {{**history[1], "seconds": 2.0}}):
        print(json.dumps(row))
else:
    if not (folder / "names.json").exists():
        sys.exit("OSError: no model there")
    names = json.loads((folder / "names.json").read_text())
    print("ready", flush=True)
    for line in sys.stdin:
        rows = [[[at, at, "company", 0.9] for at, word in enumerate(words) if word in names] for words in json.loads(line)]
        if any("crash" in words for words in json.loads(line)):
            sys.exit("RuntimeError: out of memory")
        print(json.dumps(rows), flush=True)
"""


@pytest.fixture(scope="module")
def standin(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("other") / "python"
    path.write_text(STANDIN.format(python=sys.executable))
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def session(folder: Path) -> Session:
    return Session(Trainer(accelerator="cpu", precision="32"), folder)


def test_it_is_trained_and_asked_in_the_other_environment(
    standin: str, tiny: Path, marked: Pair, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    section = SpanMarker(python=standin, encoder=str(tiny))
    with caplog.at_level("INFO"):
        trained = method.fit(section, ["company"], *marked, session(tmp_path))
    assert [message for message in caplog.messages if message.startswith(("80 texts", "epoch"))] == [
        "80 texts: 4 epochs of 30 passes over them, for at least 600 steps",
        "epoch 2: train/loss 1, val/f1 0.4000, 2.0 s",
    ]
    assert trained.best_epoch == 1 and trained.parameters == 3 and not (tmp_path / "span_marker").exists()
    assert (trained.model_dir / "training_texts.npy").exists()
    model = method.open_model(section, ["company"], trained.model_dir, "cpu")
    texts = ["Shares of Orvane fall", "", "Nothing " * 150 + "but Quillmark."]
    assert surfaces(texts, [*stream(model, texts, at_once=2)]) == [["Orvane"], [], ["Quillmark"]]
    with pytest.raises(UserError, match=r"the SpanMarker process exited: RuntimeError: out of memory"):
        model.spans(["crash"])


def test_mistakes_are_one_line(standin: str, tiny: Path, marked: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(method.VARIABLE, raising=False)
    with pytest.raises(
        UserError, match=r"needs a separate environment.*`make span-marker` creates it.\nThen set FINDISTILL_SPAN_MARKER="
    ):
        method.fit(SpanMarker(), ["company"], *marked, session(tmp_path))
    monkeypatch.setenv(method.VARIABLE, "/nowhere/python")
    with pytest.raises(UserError, match=r"FINDISTILL_SPAN_MARKER=/nowhere/python: no such program; run `make span-marker`"):
        method.open_model(SpanMarker(), ["company"], tmp_path, "cpu")
    monkeypatch.setenv(method.VARIABLE, standin)
    with pytest.raises(UserError, match=r"failed: ValueError: no such luck"):
        method.fit(SpanMarker(encoder=str(tiny), epochs=99, min_steps=None), ["company"], *marked, session(tmp_path))
    with pytest.raises(UserError, match=r"cannot be loaded as a SpanMarker with .*: OSError: no model there"):
        method.open_model(SpanMarker(), ["company"], tmp_path, "cpu")


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get(method.VARIABLE), reason="make span-marker makes its environment")
def test_the_real_one_learns(marked: Pair, tmp_path: Path) -> None:
    section = SpanMarker(epochs=3, min_steps=None, batch_size=8, max_length=32, marker_length=32)
    trained = method.fit(section, ["company"], *marked, session(tmp_path))
    texts = draw(20, 80).texts
    spans = method.open_model(section, ["company"], trained.model_dir, "cpu").spans(texts)
    assert validation_scores(marked[1].spans, spans, ["company"])["val/f1"] > 0.8
    result = subprocess.run(
        [os.environ[method.VARIABLE], "-c", ALONE, str(trained.model_dir), json.dumps(texts)],
        capture_output=True, text=True, check=True, timeout=300,
    )  # fmt: skip
    alone = [[text[start:end] for start, end in own] for text, own in zip(texts, json.loads(result.stdout), strict=True)]
    assert surfaces(texts, spans) == alone  # the library alone pads all inputs to the same length


ALONE = """
import json, sys
from span_marker import SpanMarkerModel
model, texts = SpanMarkerModel.from_pretrained(sys.argv[1]).eval(), json.loads(sys.argv[2])
print(json.dumps([[[each["char_start_index"], each["char_end_index"]] for each in own] for own in model.predict(texts)]))
"""
