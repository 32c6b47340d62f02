"""Tuning as a stage and as a step before annotation, on a tiny random model with SmolLM2's tokenizer."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from findistill.config.compose import plain
from findistill.config.instantiate import build
from findistill.config.validate import validate
from findistill.core import run_folder
from findistill.core.job import Job, artifacts_read
from findistill.errors import UserError
from findistill.llm.label_reader import label_probabilities
from findistill.llm.prompts import template
from findistill.methods import rows as reading
from findistill.methods.qlora.report import PART
from findistill.methods.qlora.steps import Adapter
from findistill.methods.rows import supervision
from findistill.methods.stage import stage_of
from findistill.models.causal_lm import load
from tests.fixtures.composing import composed
from tests.fixtures.jobs import job_of
from tests.methods.cards import scores, valid_model_card


def job(folder: Path, tiny_llm: Path, *overrides: str) -> Job:
    config = composed(
        "data=demo", f"llm.model={tiny_llm}", "llm.dtype=float32", "prompt.instruction='Sentiment?'", "qlora.epochs=1",
        "qlora.learning_rate=2e-2", "evaluate.resamples=20", "evaluate.latency=false", "logger=none", *overrides,
    )  # fmt: skip
    validate(config)
    return job_of(config, folder, folder / run_folder.folder_of(config, stage_of(config), []).name)


@pytest.fixture(scope="module")
def qlora_job(tiny_llm: Path, tmp_path_factory: pytest.TempPathFactory) -> Job:
    one = job(
        tmp_path_factory.mktemp("runs"), tiny_llm, "stage=qlora", "qlora.quantization=nf4", "qlora.merge=true", "qlora.epochs=2",
        "evaluate.latency=true", "evaluate.also=['demo rows=700']",
    )  # fmt: skip
    one.step.run(one)
    return one


def test_a_run_leaves_adapter_predictions_and_accounts(qlora_job: Job, tiny_llm: Path) -> None:
    names = {path.name for path in (qlora_job.folder / "model").iterdir()}
    assert {"adapter_model.safetensors", "adapter_config.json", "tuning.json", "tokenizer.json", "README.md"} <= names
    assert "model.safetensors" not in names
    predictions = pd.read_parquet(qlora_job.folder / "predictions.parquet")
    shares = predictions[["p_negative", "p_neutral", "p_positive"]].to_numpy()
    assert np.allclose(shares.sum(1), 1) and len(predictions) == len(reading.dataset(qlora_job).split("test"))
    assert (qlora_job.folder / "predictions_demo.parquet").exists() and list((qlora_job.folder / "figures").glob("*.png"))
    for name in (
        "test/macro_f1", "demo/accuracy", "val/macro_f1", "time/train_s", "train/minutes", "train/examples_per_s", "model/mb",
        "model/parameters", "model/trainable", "memory/train_peak_mb", "throughput/texts_per_s", "latency/p50_ms",
    ):  # fmt: skip
        assert np.isfinite(qlora_job.metrics[name]), name
    assert qlora_job.metrics["model/trainable"] < 0.01 * qlora_job.metrics["model/parameters"]
    assert scores(valid_model_card(qlora_job.folder / "model"))["Accuracy"] == qlora_job.metrics["test/accuracy"]
    card = (qlora_job.folder / "model" / "README.md").read_text()
    assert "library_name: peft" in card.split("---")[1] and "# QLoRA of smollm2" in card


def test_plain_peft_opens_the_adapter_and_plain_transformers_the_merged_model(qlora_job: Job, tiny_llm: Path) -> None:
    from peft import AutoPeftModelForCausalLM
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tuning = json.loads((qlora_job.folder / "model" / "tuning.json").read_text())
    assert tuning == {"base": str(tiny_llm), "quantization": "nf4", "dtype": "float32"}
    ids = AutoTokenizer.from_pretrained(qlora_job.folder / "merged")("Profit rose.", return_tensors="pt").input_ids
    with torch.inference_mode():
        ours = load(str(tiny_llm), adapter=str(qlora_job.folder))(ids).logits
        merged = AutoModelForCausalLM.from_pretrained(qlora_job.folder / "merged")(ids).logits
        peft = AutoPeftModelForCausalLM.from_pretrained(qlora_job.folder / "model", dtype=torch.float32)(ids).logits
    assert torch.allclose(ours, merged, atol=1e-2)
    assert torch.corrcoef(torch.stack([ours.flatten(), peft.flatten()]))[0, 1] > 0.9  # its base is not quantised


def test_the_tuned_model_is_an_annotator_with_an_identity_of_its_own(qlora_job: Job, tiny_llm: Path, tmp_path: Path) -> None:
    annotate = ("stage=annotate", "shots.k=0", "annotate.limit=12", f"llm.adapter='{qlora_job.folder}'")
    one = job(tmp_path, tiny_llm, *annotate)
    weights = qlora_job.folder / "model" / "adapter_model.safetensors"
    content, key = weights.read_bytes(), one.step.key
    other = load_file(weights)
    save_file({name: value + 1 for name, value in other.items()}, weights)
    assert stage_of(one.whole).key != key  # different weights in the same folder are a different annotator
    weights.write_bytes(content)
    assert stage_of(one.whole).key == key
    one.step.run(one)
    assert one.metrics["test/n"] == 12 and "test/learnt_from" not in one.metrics
    votes = pd.read_parquet(one.parents["annotations"] / "annotations.parquet")
    summary = json.loads((one.parents["annotations"] / "calibration.json").read_text())
    assert summary["calibration"] == "none"  # it may have been trained on the labelled rows
    engine, form = build(one.whole.llm), template(one.whole.prompt, reading.dataset(one).labels)
    shares, _ = label_probabilities(engine, form, votes["text"].tolist())
    assert np.allclose(votes[["p_negative", "p_neutral", "p_positive"]].to_numpy(), shares, atol=1e-6)


def test_a_tuned_model_that_is_asked_about_its_training_rows_says_so(qlora_job: Job, tiny_llm: Path, tmp_path: Path) -> None:
    tuned = ("shots.k=0", f"llm.adapter='{qlora_job.folder}'")
    fewshot, annotate = ("stage=fewshot", "fewshot.limit=40", *tuned), ("stage=annotate", "annotate.limit=200", *tuned)
    own = job(tmp_path / "own", tiny_llm, *fewshot)
    whole = job(tmp_path / "whole", tiny_llm, *fewshot, "data.test=1.0", "data.labelled=0")
    annotator = job(tmp_path / "annotator", tiny_llm, *annotate, "data.labelled=0")
    for one in (own, whole, annotator):
        one.step.run(one)
    assert "test/learnt_from" not in own.metrics and 0 < whole.metrics["test/learnt_from"] < 40 == whole.metrics["test/n"]
    assert 0 < annotator.metrics["test/learnt_from"] < 200 == annotator.metrics["test/n"]


def names_of(one: Job) -> dict[str, str]:
    return artifacts_read(one.step, one.store)


def test_one_adapter_serves_the_students_of_all_seeds_and_the_stage_that_scores_it(tiny_llm: Path, tmp_path: Path) -> None:
    chain = (
        "stage=student", "llm.adapter=tune", "qlora.quantization=none", "data.labelled=60", "shots.k=0", "annotate.limit=10",
        "trainer.max_epochs=7",
    )  # fmt: skip
    one = job(tmp_path, tiny_llm, *chain)
    assert set(names_of(one)) == {"data", "qlora", "annotate"}
    assert "qlora" in one.step.sections_read and "qlora" not in stage_of(composed("stage=student")).sections_read
    adapter = one.store.root / names_of(one)["qlora"]
    summary = json.loads((adapter / "tuned.json").read_text())
    # A tenth of the labelled rows selects the epoch; the 7 epochs are the student's.
    assert summary["texts"] == 54 and len(summary["history"]) == 1
    for more in (["seed=1"], ["distill=reg", "trainer.batch_size=8"]):
        assert names_of(job(tmp_path, tiny_llm, *chain, *more))["annotate"] == names_of(one)["annotate"]
    alone = job(tmp_path, tiny_llm, "stage=qlora", "qlora.quantization=none", "data.labelled=60")
    assert alone.parents["adapter"] == adapter
    other = names_of(job(tmp_path, tiny_llm, *chain, "qlora.rank=8"))
    assert other["qlora"] != names_of(one)["qlora"] and other["annotate"] != names_of(one)["annotate"]


def test_nothing_tested_or_annotated_is_learnt_from(tiny_llm: Path, tmp_path: Path) -> None:
    one = job(tmp_path, tiny_llm, "stage=qlora", "data.labelled=60", "evaluate.also=['demo rows=700']")
    data, work = reading.dataset(one), one.store.at(one.step.inputs["adapter"], tmp_path)
    rows, validation = supervision(work, data, reading.test_sets(work, required=False))
    learnt = set(rows["text"]) | set(validation["text"])
    assert learnt <= set(data.split("pool")["text"]) and not set(rows["text"]) & set(validation["text"])
    assert not learnt & set(reading.rows_to_annotate(data, None, 0)["text"])
    for test_rows, _ in reading.test_sets(one).values():
        assert not learnt & set(test_rows["text"])
    adapter = Adapter(composed("stage=qlora", "data.labelled=0"), seed=0)
    work = one.store.at(adapter, tmp_path)
    _, validation = supervision(work, reading.dataset(work), reading.test_sets(work, required=False))
    assert validation.equals(reading.dataset(work).split("validation"))


@pytest.mark.parametrize(
    ("overrides", "advice"),
    [
        (["stage=qlora", "llm=gpt4o"], "use llm=smollm2"),
        (["stage=qlora", "trainer.precision=16"], "T5 overflows in fp16"),
        (["stage=qlora", "trainer.max_length=64"], "prompt.max_text_tokens"),
        (["stage=qlora", "trainer=fsdp"], "use trainer=ddp"),
        (["stage=qlora", "trainer.unfreeze=gradual"], "one learning rate"),
        (["stage=qlora", "prompt=cot"], "tune with prompt=direct"),
        (["stage=qlora", "llm.adapter=tune"], "leave it empty"),
        (["stage=qlora", "qlora.quantization=fp4"], "nf4, int8, none"),
        (["stage=qlora", "qlora.dropout=1"], "below 1"),
        (["stage=qlora", "qlora.rank=0"], "at least 1"),
        (["stage=qlora", "qlora.target_modules=q"], "all-linear"),
        (["stage=qlora", "data=headlines"], "human labels"),
        (["stage=student", "llm.adapter=tune", "shots.k=0", "data.labelled=0"], "set data.labelled"),
        (["stage=student", "llm.adapter=tune", "data.labelled=50"], "set shots.k=0"),
        (["stage=annotate", "llm.adapter=tune", "data.labelled=50", "shots.k=0", "annotate.calibration=pool"], "use none"),
    ],
)
def test_what_cannot_work_is_refused_with_advice(overrides: list[str], advice: str) -> None:
    with pytest.raises(UserError) as error:
        validate(composed("data=demo", *overrides))
    assert advice in str(error.value)


def test_tables_call_it_by_what_was_quantised() -> None:
    names = [PART.name(plain(composed("stage=qlora", f"qlora.quantization={how}")), {}) for how in ("nf4", "int8", "none")]
    assert names == ["QLoRA smollm2", "LoRA int8 smollm2", "LoRA smollm2"]


def test_a_tuned_member_is_part_of_the_job() -> None:
    untuned, tuned = composed("stage=annotate"), composed("stage=annotate", "annotate.ensemble=['llm.adapter=tune shots.k=0']")
    assert "qlora" not in stage_of(untuned).sections_read and "qlora" in stage_of(tuned).sections_read
