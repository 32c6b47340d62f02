"""Pretraining in a stage: once for all seeds, on texts that stand in no test set."""

import json
from pathlib import Path

import pytest

from findistill.learning import pretrain as pretraining
from findistill.runs import job as jobs
from findistill.runs.store import Store
from findistill.runs.tracking import Tracker
from findistill.stages import inputs, training
from tests.settings.test_compose import composed


def job(tmp_path: Path, *overrides: str) -> jobs.Job:
    config = composed("stage=teacher", "data=demo", "teacher.pretrain.source='demo rows=900'", *overrides)
    return jobs.Job(config, tmp_path, Store(tmp_path / "store"), Tracker(tmp_path, "none"))  # type: ignore[arg-type]


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The texts of each pretraining, which is not done."""
    calls: list[list[str]] = []

    def pretrain(encoder, trainer, texts, folder, **_):
        calls.append(list(texts))
        (folder / "config.json").write_text(json.dumps({}))
        return {"texts": len(texts), "loss_before": 3.0, "loss_after": 2.0}

    monkeypatch.setattr(pretraining, "pretrain", pretrain)
    return calls


def pretrained(job: jobs.Job):
    texts = training.domain_texts(job, job.config.teacher, inputs.dataset(job))
    return training.pretrained(job, job.config.teacher, texts, job.config.trainer)


def test_all_seeds_share_one_and_other_settings_make_another(tmp_path: Path, made: list[list[str]]) -> None:
    recipe = ["trainer.max_epochs=9", "teacher.learning_rate=1e-3", "teacher.class_weights=balanced"]
    same = ([], ["seed=1"], recipe, ["trainer=finbert"])
    found = [pretrained(job(tmp_path, *overrides)) for overrides in same]
    assert len(made) == 1 and len({encoder.model for encoder in found}) == 1
    assert found[0].init == "pretrained" and found[0].layers is None and Path(found[0].model).is_dir()
    assert found[2].learning_rate == 1e-3
    for overrides in (
        ["teacher.pretrain.mask=0.3"],
        ["teacher.layers=[2,4]"],
        ["teacher.pretrain.limit=200"],
        ["evaluate.also=[demo]"],
    ):
        pretrained(job(tmp_path, *overrides))
    assert len(made) == 4  # the further test set holds the same texts


def test_no_test_text_is_pretrained_on(tmp_path: Path, made: list[list[str]]) -> None:
    one = job(tmp_path)
    data = inputs.dataset(one)
    pretrained(one)
    tested = set(data.split("test")["text"])
    source = set(inputs.named_dataset(one, "demo rows=900").split("train", "validation", "pool")["text"])
    assert tested & source and not tested & set(made[0])
    assert one.metrics["pretrain/texts"] == len(made[0]) == len(source - tested)
    assert one.metrics["pretrain/loss_after"] == 2.0


def test_a_larger_limit_keeps_the_texts_of_a_smaller_one(tmp_path: Path, made: list[list[str]]) -> None:
    for limit in (100, 150):
        pretrained(job(tmp_path, f"teacher.pretrain.limit={limit}"))
    assert len(made[0]) == 100 and len(made[1]) == 150 and set(made[0]) < set(made[1])


def test_without_a_source_the_encoder_is_as_configured(tmp_path: Path, made: list[list[str]]) -> None:
    one = job(tmp_path, "teacher.pretrain.source=null")
    assert pretrained(one) is one.config.teacher and not made
