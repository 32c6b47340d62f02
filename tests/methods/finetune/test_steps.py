"""Pretraining as an intermediate step: once for all seeds, on texts from no test set."""

import json
from pathlib import Path

import pytest

from findistill.core.files import read_json
from findistill.core.job import Job
from findistill.methods import rows as reading
from findistill.methods.finetune import models
from findistill.methods.finetune.models import starting_point
from tests.fixtures.composing import composed
from tests.fixtures.jobs import job_of


def job(tmp_path: Path, *overrides: str) -> Job:
    return job_of(composed("stage=teacher", "data=demo", "teacher.pretrain.source='demo rows=900'", *overrides), tmp_path)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The texts of each call to the (mocked) pretraining."""
    texts_of_calls: list[list[str]] = []

    def pretrain(encoder, texts, session):
        texts_of_calls.append(list(texts))
        (session.folder / "config.json").write_text(json.dumps({}))
        return {"texts": len(texts), "loss_before": 3.0, "loss_after": 2.0}

    monkeypatch.setattr(models, "pretrain", pretrain)
    return texts_of_calls


def test_all_seeds_share_one_and_other_settings_make_another(tmp_path: Path, calls: list[list[str]]) -> None:
    recipe = ["trainer.max_epochs=9", "teacher.learning_rate=1e-3", "teacher.class_weights=balanced"]
    jobs = [job(tmp_path, *overrides) for overrides in ([], ["seed=1"], recipe, ["trainer=finbert"])]
    encoders = [starting_point(one, one.config.teacher) for one in jobs]
    assert len(calls) == 1 and len({encoder.model for encoder in encoders}) == 1
    assert encoders[0].init == "pretrained" and encoders[0].layers is None and Path(encoders[0].model).is_dir()
    assert encoders[2].learning_rate == 1e-3
    for overrides in (["teacher.pretrain.mask=0.3"], ["teacher.layers=[2,4]"], ["teacher.pretrain.limit=200"]):
        job(tmp_path, *overrides)
    assert len(calls) == 4


def test_no_test_text_is_pretrained_on(tmp_path: Path, calls: list[list[str]]) -> None:
    one = job(tmp_path)
    test_texts = set(reading.dataset(one).split("test")["text"])
    source = set(reading.dataset(one.store.at(one.step.inputs["pretrained"], tmp_path), "texts").frame["text"])
    source -= set(reading.dataset(one.store.at(one.step.inputs["pretrained"], tmp_path), "texts").split("test")["text"])
    assert test_texts & source and not test_texts & set(calls[0])
    scores = read_json(one.parents["pretrained"] / "pretrain.json")
    assert scores["texts"] == len(calls[0]) == len(source - test_texts)


def test_a_larger_limit_keeps_the_texts_of_a_smaller_one(tmp_path: Path, calls: list[list[str]]) -> None:
    for limit in (100, 150):
        job(tmp_path, f"teacher.pretrain.limit={limit}")
    assert len(calls[0]) == 100 and len(calls[1]) == 150 and set(calls[0]) < set(calls[1])


def test_without_a_source_the_encoder_is_as_configured(tmp_path: Path, calls: list[list[str]]) -> None:
    one = job(tmp_path, "teacher.pretrain.source=null")
    assert starting_point(one, one.config.teacher) is one.config.teacher and not calls
