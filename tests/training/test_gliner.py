"""GLiNER in the common training loop: it learns, selects its threshold, saves its folder and predicts like its library."""

import json
import shutil
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

pytest.importorskip("gliner")

from findistill.data.spans import Marked, Span
from findistill.errors import UserError
from findistill.inference import gliner as inference
from findistill.methods.entities import gliner_model as method
from findistill.methods.entities.config import Gliner
from findistill.models import gliner_model
from findistill.training.config import Trainer
from findistill.training.gliner import GlinerModule
from findistill.training.loop import Session
from findistill.training.trainer import Trained

Pair = tuple[Marked, Marked]


@pytest.fixture(scope="module")
def section(tiny: Path) -> Gliner:
    return Gliner(
        encoder=str(tiny), epochs=3, min_steps=None, batch_size=8, learning_rate=5e-3, head_learning_rate=1e-2, max_width=4,
        max_length=16,
    )  # fmt: skip


def session(folder: Path, **more: Any) -> Session:
    return Session(Trainer(accelerator="cpu", precision="32", **more), folder)


@pytest.fixture(scope="module")
def trained(section: Gliner, marked: Pair, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return method.fit(section, ["company"], *marked, session(tmp_path_factory.mktemp("gliner")))


def test_it_learns_and_keeps_the_best_epoch_and_its_threshold(trained: Trained, section: Gliner, marked: Pair) -> None:
    best = max(trained.history, key=lambda row: row["val/macro_f1"])
    assert best["val/f1"] > 0.8 and trained.best_epoch == trained.history.index(best) + 1
    use = gliner_model.use_of(trained.model_dir)
    assert use is not None and use.threshold == best["val/threshold"] and use.labels == ("company",)
    spans = method.open_model(section, ["company"], trained.model_dir, "cpu").spans(marked[1].texts)
    assert gliner_model.validation_scores(marked[1].spans, spans, ["company"])["val/f1"] == best["val/f1"]


def test_it_marks_what_its_library_marks(trained: Trained, marked: Pair) -> None:
    texts = [*marked[1].texts, "", "   "]
    opened = inference.open_model(trained.model_dir, gliner_model.use_of(trained.model_dir), "cpu")  # type: ignore[arg-type]
    rows = opened.model.inference(texts, list(opened.use.prompts), threshold=opened.use.threshold)
    expected = [sorted(Span(each["start"], each["end"], "company") for each in row) for row in rows]
    assert opened.spans(texts) == expected and any(expected)


def test_its_folder_moves_and_names_no_path_of_this_machine(trained: Trained, tiny: Path, tmp_path: Path) -> None:
    shutil.copytree(trained.model_dir, tmp_path / "moved")
    assert str(tiny) not in "".join(path.read_text() for path in (tmp_path / "moved").glob("*.json"))
    assert not [*(tmp_path / "moved").glob("*.bin")]
    assert gliner_model.open_gliner(tmp_path / "moved").config.max_width == 4


def test_a_killed_training_goes_on_to_the_same_weights(
    section: Gliner, marked: Pair, trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, counter = GlinerModule.training_step, iter(range(15))
    monkeypatch.setattr(GlinerModule, "training_step", lambda *batch: 1 / (14 - next(counter)) and step(*batch))
    with pytest.raises(ZeroDivisionError):
        method.fit(section, ["company"], *marked, session(tmp_path, checkpoint_every=1))
    monkeypatch.setattr(GlinerModule, "training_step", step)
    again = method.fit(section, ["company"], *marked, session(tmp_path, checkpoint_every=1))
    first, second = (load_file(each.model_dir / "model.safetensors") for each in (trained, again))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_long_texts_are_read_in_windows(trained: Trained) -> None:
    use = gliner_model.use_of(trained.model_dir)
    opened = inference.open_model(trained.model_dir, replace(use, threshold=0.05), "cpu")  # type: ignore[arg-type,type-var]
    text = " ".join(["Shares of Orvane fall again"] * 12)  # 60 words in windows of 16
    [spans] = opened.spans([text])
    assert spans[0].start < len(text) / 4 and spans[-1].start > len(text) / 2
    assert not any(one.overlaps(other) for one, other in pairwise(spans))


def test_it_is_fine_tuned_from_a_folder_with_a_fixed_threshold(
    trained: Trained, section: Gliner, marked: Pair, tmp_path: Path
) -> None:
    tuned = replace(section, model=str(trained.model_dir), threshold=0.3, epochs=1, prompts={"company": "listed company"})
    again = method.fit(tuned, ["company"], *marked, session(tmp_path))
    use = gliner_model.use_of(again.model_dir)
    assert use is not None and use.threshold == 0.3 and use.prompts == ("listed company",)


def test_onnx_files_mark_the_same(trained: Trained, marked: Pair, tmp_path: Path) -> None:
    use = gliner_model.use_of(trained.model_dir)
    assert use is not None
    expected = inference.open_model(trained.model_dir, use, "cpu").spans(marked[1].texts)
    files = inference.export(trained.model_dir, tmp_path / "onnx", 19)
    for file, share in ((files["fp32"], 1.0), (files["int8_dynamic"], 0.8)):
        spans = inference.open_model(file.parent, use, "cpu", file.name).spans(marked[1].texts)
        assert sum(one == other for one, other in zip(spans, expected, strict=True)) >= share * len(expected)


def test_a_pickle_and_code_of_others_are_refused(trained: Trained, tmp_path: Path) -> None:
    folder = tmp_path / "other"
    shutil.copytree(trained.model_dir, folder)
    settings = json.loads((folder / "gliner_config.json").read_text())
    settings["encoder_config"]["auto_map"] = {"AutoModel": "code.Model"}
    (folder / "gliner_config.json").write_text(json.dumps(settings))
    with pytest.raises(UserError, match=r"needs its own code"):
        gliner_model.open_gliner(folder)
    # An encoder of a known architecture with code of its own: gliner would run it.
    (tmp_path / "encoder").mkdir()
    (tmp_path / "encoder" / "code.py").write_text("raise SystemExit('ran')")
    encoder = {"model_type": "bert", "auto_map": {"AutoModel": "code.Model"}}
    (tmp_path / "encoder" / "config.json").write_text(json.dumps(encoder))
    del settings["encoder_config"]
    (folder / "gliner_config.json").write_text(json.dumps(settings | {"model_name": str(tmp_path / "encoder")}))
    with pytest.raises(UserError, match=r"its encoder has its own code \(auto_map\)"):
        gliner_model.open_gliner(folder)
    with pytest.raises(UserError, match=r"code"):
        gliner_model.begin(str(tmp_path / "encoder"), max_width=4, max_length=16)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"a pickle, which can run code and is not read.\nIf you trust it, convert it: python -c"):
        gliner_model.open_gliner(folder)
    with pytest.raises(UserError, match=r"is not a GLiNER model: it has no gliner_config.json"):
        gliner_model.open_gliner(tmp_path)
    with pytest.raises(UserError, match=r"entities.gliner.prompts: 'compny' is not one of the data's types, company"):
        gliner_model.Use.of(["company"], {"compny": "x"}, None, 16)


def test_asked_as_it_is_it_needs_a_model(section: Gliner) -> None:
    with pytest.raises(UserError, match=r"set entities.gliner.model to a folder or hub id"):
        method.open_model(section, ["company"], None, "cpu")
