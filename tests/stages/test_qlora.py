"""Tuning as a stage and before an annotator, on a tiny random model with SmolLM2's tokenizer."""

import json
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
import torch
from omegaconf import OmegaConf

from findistill.errors import UserError
from findistill.llm.annotate import annotation_key
from findistill.runs import job as jobs
from findistill.runs.language_model import fingerprint, load
from findistill.runs.store import Store
from findistill.runs.tracking import Tracker
from findistill.runs.weights import locate
from findistill.settings import rules
from findistill.settings.compose import plain, with_overrides
from findistill.settings.schema import Config
from findistill.stages import annotate, inputs, qlora, reads, report, student, tuning
from findistill.stages.report import method_name
from tests.settings.test_compose import composed


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("models") / "tiny"
    tokenizer = AutoTokenizer.from_pretrained(locate("embedded:smollm2"))
    torch.manual_seed(0)
    LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, eos_token_id=tokenizer.eos_token_id, bos_token_id=tokenizer.bos_token_id, pad_token_id=2,
            initializer_range=0.3,
        )
    ).save_pretrained(folder)  # fmt: skip
    tokenizer.save_pretrained(folder)
    return folder


def job(folder: Path, tiny: Path, *overrides: str) -> jobs.Job:
    config = composed(
        "data=demo", f"llm.model={tiny}", "llm.dtype=float32", "prompt.instruction='Sentiment?'", "qlora.epochs=1",
        "qlora.learning_rate=2e-2", "evaluate.resamples=20", "evaluate.latency=false", "logger=none", *overrides,
    )  # fmt: skip
    rules.check(config)
    where = folder / jobs.folder_of(config, reads(config), []).name
    where.mkdir(parents=True)
    return jobs.Job(config, where, Store(folder / "store"), Tracker(where, "none"))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def done(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> jobs.Job:
    one = job(
        tmp_path_factory.mktemp("runs"), tiny, "stage=qlora", "qlora.quantization=nf4", "qlora.merge=true", "qlora.epochs=2",
        "evaluate.latency=true", "evaluate.also=['demo rows=700']",
    )  # fmt: skip
    qlora.run(one)
    return one


def test_a_run_leaves_adapter_predictions_and_accounts(done: jobs.Job, tiny: Path) -> None:
    names = {path.name for path in (done.folder / "model").iterdir()}
    assert {"adapter_model.safetensors", "adapter_config.json", "tuning.json", "tokenizer.json", "README.md"} <= names
    assert "model.safetensors" not in names
    predictions = pd.read_parquet(done.folder / "predictions.parquet")
    shares = predictions[["p_negative", "p_neutral", "p_positive"]].to_numpy()
    assert np.allclose(shares.sum(1), 1) and len(predictions) == len(inputs.dataset(done).split("test"))
    assert (done.folder / "predictions_demo.parquet").exists() and list((done.folder / "figures").glob("*.png"))
    for name in (
        "test/macro_f1", "demo/accuracy", "val/macro_f1", "time/train_s", "train/minutes", "train/examples_per_s", "model/mb",
        "model/parameters", "model/trainable", "memory/train_peak_mb", "throughput/texts_per_s", "latency/p50_ms",
    ):  # fmt: skip
        assert np.isfinite(done.metrics[name]), name
    assert done.metrics["model/trainable"] < 0.01 * done.metrics["model/parameters"]
    card = (done.folder / "model" / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: peft") and "# QLoRA of smollm2" in card


def test_plain_peft_opens_the_adapter_and_plain_transformers_the_merged_model(done: jobs.Job, tiny: Path) -> None:
    from peft import AutoPeftModelForCausalLM
    from transformers import AutoModelForCausalLM, AutoTokenizer

    told = json.loads((done.folder / "model" / "tuning.json").read_text())
    assert told == {"base": str(tiny), "quantization": "nf4", "dtype": "float32"}
    ids = AutoTokenizer.from_pretrained(done.folder / "merged")("Profit rose.", return_tensors="pt").input_ids
    with torch.inference_mode():
        ours = load(str(tiny), adapter=str(done.folder))(ids).logits
        merged = AutoModelForCausalLM.from_pretrained(done.folder / "merged")(ids).logits
        peft = AutoPeftModelForCausalLM.from_pretrained(done.folder / "model", dtype=torch.float32)(ids).logits
    assert torch.allclose(ours, merged, atol=1e-2)
    assert torch.corrcoef(torch.stack([ours.flatten(), peft.flatten()]))[0, 1] > 0.9  # its base is not quantised


def test_the_tuned_model_is_an_annotator_with_an_identity_of_its_own(done: jobs.Job, tiny: Path, tmp_path: Path) -> None:
    asked = with_overrides(done.config, f"llm.adapter={done.folder}", "test")
    assert annotation_key(asked)["llm"]["adapter"] == fingerprint(str(done.folder))
    assert "adapter" not in annotation_key(done.config)["llm"]  # what was annotated before there were adapters is still found
    one = job(tmp_path, tiny, "stage=annotate", "shots.k=0", "annotate.limit=12", f"llm.adapter='{done.folder}'")
    data = inputs.dataset(one)
    rows = inputs.unlabelled(one, data)
    voted = inputs.annotations(one, data, rows)
    summary = json.loads((one.store.root / one.artifacts["annotate"] / "calibration.json").read_text())
    assert summary["calibration"] == "none"  # it may have learnt from the pool
    shares, _ = qlora.ask(*asked_by(one), rows["text"].tolist())
    assert np.allclose(voted[["p_negative", "p_neutral", "p_positive"]].to_numpy(), shares, atol=1e-6)


def asked_by(one: jobs.Job) -> tuple[Any, Any]:
    from findistill.llm.prompts import template
    from findistill.settings.build import build

    return build(one.config.llm), template(one.config.prompt, inputs.dataset(one).labels)  # type: ignore[arg-type]


def test_one_command_tunes_annotates_and_distils(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def votes(job: Any) -> None:
        data = inputs.dataset(job)
        inputs.votes(job, data, data.frame.head(0))

    monkeypatch.setattr(student, "from_votes", votes)
    chain = (
        "stage=student", "llm.adapter=tune", "qlora.quantization=none", "data.pool=60", "shots.k=0", "annotate.limit=10",
        "trainer.max_epochs=7",
    )  # fmt: skip
    one = job(tmp_path, tiny, *chain)
    assert "qlora" in reads(one.config) and "qlora" not in reads(job(tmp_path / "other", tiny, "stage=student").config)
    student.run(one)
    assert set(one.artifacts) == {"data", "qlora", "annotate"}
    adapter = one.store.root / one.artifacts["qlora"]
    took = json.loads((adapter / "tuned.json").read_text())
    assert took["texts"] == 54 and len(took["history"]) == 1  # a tenth of the pool chose the epoch; 7 epochs are the student's
    # Another seed and other students share the adapter; so does the stage that scores it.
    for more in (["seed=1"], ["distill=reg", "trainer.batch_size=8"]):
        again = job(tmp_path, tiny, *chain, *more)
        student.run(again)
        assert again.artifacts == one.artifacts
    alone = job(tmp_path, tiny, "stage=qlora", "qlora.quantization=none", "data.pool=60")
    assert tuning.tuned(alone, inputs.dataset(alone), tuning.trainer_of(alone.config), 0, []) == adapter
    # The report asks the tuned model, as the run's config.yaml names it, on the test rows.
    OmegaConf.save(OmegaConf.create(plain(one.config)), tmp_path / "config.yaml")
    with jobs.aside(cast(Config, OmegaConf.load(tmp_path / "config.yaml")), one.store) as beside:
        [annotator], _ = report.baselines(beside, ["annotator"])
    assert beside.artifacts["qlora"] == one.artifacts["qlora"] and annotator.predictions["predicted"].notna().all()
    other = job(tmp_path, tiny, *chain, "qlora.rank=8")
    student.run(other)
    assert other.artifacts["qlora"] != one.artifacts["qlora"] and other.artifacts["annotate"] != one.artifacts["annotate"]


def test_nothing_tested_or_annotated_is_learnt_from(tiny: Path, tmp_path: Path) -> None:
    one = job(tmp_path, tiny, "stage=qlora", "data.pool=60", "evaluate.also=['demo rows=700']")
    data = inputs.dataset(one)
    rows, held = tuning.supervision(one, data)
    learnt = set(rows["text"]) | set(held["text"])
    assert learnt <= set(data.split("pool")["text"]) and not set(rows["text"]) & set(held["text"])
    assert not learnt & set(inputs.unlabelled(one, data)["text"])
    for tested, _ in inputs.test_sets(one, data).values():
        assert not learnt & set(tested["text"])
    whole = job(tmp_path, tiny, "stage=qlora", "data.pool=0")
    rows, held = tuning.supervision(whole, inputs.dataset(whole))
    assert held.equals(inputs.dataset(whole).split("validation"))


@pytest.mark.parametrize(
    ("overrides", "advice"),
    [
        (["stage=qlora", "llm=gpt4o"], "use llm=smollm2"),
        (["stage=qlora", "trainer.precision=16"], "T5 overflows in fp16"),
        (["stage=qlora", "trainer.max_length=64"], "prompt.max_text_tokens"),
        (["stage=qlora", "trainer.devices=2"], "on one device"),
        (["stage=qlora", "trainer.unfreeze=gradual"], "one rate"),
        (["stage=qlora", "prompt=cot"], "tune with prompt=direct"),
        (["stage=qlora", "llm.adapter=tune"], "leave it empty"),
        (["stage=qlora", "qlora.quantization=fp4"], "nf4, int8, none"),
        (["stage=qlora", "qlora.dropout=1"], "below 1"),
        (["stage=qlora", "qlora.rank=0"], "at least 1"),
        (["stage=qlora", "qlora.target_modules=q"], "all-linear"),
        (["stage=qlora", "data=headlines"], "human labels"),
        (["stage=student", "llm.adapter=tune", "shots.k=0", "data.pool=0"], "set data.pool"),
        (["stage=student", "llm.adapter=tune", "data.pool=50"], "set shots.k=0"),
        (["stage=annotate", "llm.adapter=tune", "data.pool=50", "shots.k=0", "annotate.calibration=pool"], "use none"),
    ],
)
def test_what_cannot_work_is_refused_with_advice(overrides: list[str], advice: str) -> None:
    with pytest.raises(UserError) as refused:
        rules.check(composed("data=demo", *overrides))
    assert advice in str(refused.value)


def test_tables_call_it_by_what_was_quantised() -> None:
    names = [method_name(plain(composed("stage=qlora", f"qlora.quantization={how}")), {}) for how in ("nf4", "int8", "none")]
    assert names == ["QLoRA smollm2", "LoRA int8 smollm2", "LoRA smollm2"]


def test_a_tuned_member_is_part_of_the_job(tmp_path: Path) -> None:
    plain_, tuned = composed("stage=annotate"), composed("stage=annotate", "annotate.members=['llm.adapter=tune shots.k=0']")
    assert annotate.reads(plain_) == annotate.READS and "qlora" in annotate.reads(tuned)
