"""`llm=vllm` against a stand-in with vLLM's signatures; no test here uses a GPU."""

import json
from pathlib import Path

import pandas as pd
import pytest

from findistill.config.validate import validate
from findistill.errors import UserError
from findistill.llm.annotate import annotate
from findistill.llm.config import Annotate, Prompt, Shots, VllmLLM
from findistill.llm.engine import Request, Sampling
from findistill.llm.prompts import Demonstration
from findistill.llm.vllm_engine import VllmEngine
from tests.config.test_compose import composed
from tests.fixtures import vllm_standin
from tests.llm.calls import TEMPLATE, requests
from tests.llm.test_annotate import LABELS, POOL, TEXTS

vllm = vllm_standin.vllm


def run(folder: Path, *, annotating: dict | None = None, **settings: object) -> pd.DataFrame:
    llm = VllmLLM(_target_="findistill.llm.vllm_engine.VllmEngine", name="vllm", model="embedded:smollm2", **settings)
    sections = (llm, Prompt(name="direct", instruction="Classify."), Shots(k=0), Annotate(**{"samples": 4, **(annotating or {})}))
    annotate(TEXTS, POOL, LABELS, *sections, folder / "out", cache=folder / "cache")
    return pd.read_parquet(folder / "out" / "annotations.parquet")


def test_samples_are_drawn_together_by_schema_and_once(vllm: type[vllm_standin.LLM], tmp_path: Path) -> None:
    frame = run(tmp_path)
    assert (frame["n_valid"] == 4).all() and frame["confidence"].notna().all()
    [model] = vllm.loaded
    [(messages, params, lora)] = model.calls
    assert len(messages) == 10 and lora is None and len({each.seed for each in params}) == 10
    assert {(each.n, each.temperature, each.max_tokens) for each in params} == {(4, 0.5, 256)}
    assert all(each.structured_outputs.json["required"] == ["sentiment"] for each in params)
    assert run(tmp_path).equals(frame) and len(vllm.loaded) == 1  # all samples were cached
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["tokens_cached"] == 30 and summary["tokens_in"] > 30 and summary["requests"] == 10


def test_it_is_cached_chunk_by_chunk(vllm: type[vllm_standin.LLM]) -> None:
    tasks = []

    def stream() -> object:
        for request in requests(7, 2):
            tasks.append(request)
            yield request

    engine = VllmEngine(name="x", model="embedded:smollm2", texts_at_once=3)
    sizes = [(len(batch), len(tasks)) for batch in engine.responses(stream(), TEMPLATE, Sampling(0.5, 0))]
    assert sizes == [(6, 3), (6, 6), (2, 7)]


def test_what_names_no_label_is_drawn_again(vllm: type[vllm_standin.LLM], tmp_path: Path) -> None:
    vllm.answers = staticmethod(lambda messages, rng: rng.choice(["positive", "who knows"]))
    frame = run(tmp_path, structured=False, annotating={"retries": 8})
    assert (frame["n_valid"] == 4).all()
    rounds = [params for _, params, _ in vllm.loaded[0].calls]
    assert len(rounds) > 1 and all(each.n == 1 for each in rounds[1]) and not rounds[0][0].structured_outputs
    lines = [json.loads(line) for line in (tmp_path / "out" / "samples.jsonl").read_text().splitlines()]
    assert sum(line["attempts"] for line in lines) == sum(map(len, rounds))


def test_early_stopping_draws_in_rounds(vllm: type[vllm_standin.LLM], tmp_path: Path) -> None:
    vllm.answers = staticmethod(lambda messages, rng: "positive")
    assert (run(tmp_path, annotating={"stop_at": 2})["n_samples"] == 2).all()


def test_a_prompt_that_is_too_long_loses_demonstrations_and_fails_alone(vllm: type[vllm_standin.LLM]) -> None:
    shots = (Demonstration("Sales fell " * 30, "negative"), Demonstration("Sales rose", "positive"))
    tasks = [Request("a", "fine", shots[1:], (0,)), Request("b", "long", shots, (0,)), Request("c", "boom", (), (0, 1))]
    engine = VllmEngine(name="x", model="embedded:smollm2", max_model_len=40, structured=False)
    responses = [each for batch in engine.responses(tasks, TEMPLATE, Sampling(0.5, 0)) for each in batch]
    by_id = {(each.id, each.sample): each for each in responses}
    assert by_id["a", 0].label and by_id["b", 0].label and by_id["b", 0].dropped == 1
    assert "longer than the maximum" in (by_id["c", 0].error or "") and by_id["c", 1].error


def test_settings_reach_vllm(vllm: type[vllm_standin.LLM], tmp_path: Path) -> None:
    (tmp_path / "lora").mkdir()
    config = {"r": 12, "peft_type": "LORA", "base_model_name_or_path": "x", "task_type": "CAUSAL_LM"}
    (tmp_path / "lora" / "adapter_config.json").write_text(json.dumps(config))
    engine = VllmEngine(
        name="x", model="embedded:smollm2", tensor_parallel_size=2, quantization="fp8", adapter=str(tmp_path / "lora"),
        extra_engine={"enforce_eager": True},
    )  # fmt: skip
    list(engine.responses(requests(1, 1), TEMPLATE, Sampling(0.5, 0)))
    [model] = vllm.loaded
    assert (model.tensor_parallel_size, model.quantization, model.enforce_eager) == (2, "fp8", True)
    assert (model.enable_lora, model.max_lora_rank) == (True, 16) and model.calls[0][2].lora_path == str(tmp_path / "lora")
    wrong = VllmEngine(name="x", model="embedded:smollm2", extra_engine={"enforce_lazy": True})
    with pytest.raises(UserError, match=r"llm.model=embedded:smollm2 cannot be loaded by vLLM: .*enforce_lazy"):
        list(wrong.responses(requests(1, 1), TEMPLATE, Sampling(0.5, 0)))


@pytest.mark.parametrize("name", ["trust_remote_code", "worker_cls", "logits_processors"])
def test_no_setting_lets_vllm_run_code(name: str) -> None:
    with pytest.raises(UserError, match=rf"llm\.extra_engine\.{name} is refused"):
        VllmEngine(name="x", model="m", extra_engine={name: "os.system"})


def test_without_vllm_or_a_gpu_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = VllmEngine(name="x", model="m")
    monkeypatch.setattr("findistill.llm.vllm_engine.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'findistill\[vllm\]'\n.*llm=vllm_server"):
        engine.prepare(TEMPLATE, Sampling(0.5, 0))
    monkeypatch.setattr("findistill.llm.vllm_engine.find_spec", lambda name: name)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(UserError, match=r"needs a GPU.*\n.*llm=smollm2"):
        engine.prepare(TEMPLATE, Sampling(0.5, 0))


@pytest.mark.parametrize("preset", ["vllm", "vllm_llama31_70b"])
def test_presets_compose_with_what_an_annotator_is_used_for(preset: str) -> None:
    validate(composed(f"llm={preset}", "stage=annotate", "prompt=cot"))
    with pytest.raises(UserError, match="runs in vLLM, which cannot tune"):
        validate(composed(f"llm={preset}", "stage=qlora", "data=tfns"))
    with pytest.raises(UserError, match="needs label probabilities"):
        validate(composed(f"llm={preset}", "stage=annotate", "annotate.calibration=pool"))
