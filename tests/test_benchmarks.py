"""The benchmarks run, at a size that says nothing about speed."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from findistill.models.weights import locate

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def run(name: str, *arguments: str) -> str:
    return subprocess.run(
        [sys.executable, BENCHMARKS / name, *arguments],
        capture_output=True, text=True, check=False, timeout=300, env=os.environ | {"NO_PROXY": "127.0.0.1"},
    ).stdout  # fmt: skip


def test_endpoint_throughput() -> None:
    told = run("endpoint_throughput.py", "--rows", "64", "--env", "")
    assert "findistill" in told and "of the possible 640" in told


@pytest.mark.slow
def test_predict_throughput() -> None:
    assert "ratio: " in run("predict_throughput.py", "--rows", "3000", "--workers", "1")


@pytest.mark.slow
def test_serve_latency() -> None:
    assert "20 requests at 20/s: {200: 20}" in run("serve_latency.py", "--rate", "20", "--seconds", "1")


@pytest.mark.slow
def test_annotation_memory() -> None:
    told = run("annotation_memory.py", "--texts", "40")
    assert "20 texts: peak" in told and "40 texts: peak" in told and "growth:" in told


@pytest.mark.thorough
def test_training_throughput() -> None:
    assert "ratio" in run("training_throughput.py", "--steps", "2", "--repeats", "1")


@pytest.mark.thorough
def test_qlora_step(tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(locate("embedded:smollm2"))
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    printed = run("qlora_step.py", "--steps", "2", "--repeats", "1", "--model", str(tmp_path))
    assert "ratio to the bare loop" in printed and "peak memory, int8" in printed


def test_the_page_on_scale_has_the_numbers_of_its_csv(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("scale", BENCHMARKS / "scale.py")
    assert spec and spec.loader
    scale = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(scale)
    page = BENCHMARKS.parent / "docs" / "scale.md"
    (tmp_path / "page.md").write_text(page.read_text("utf-8"), "utf-8")
    scale.fill(tmp_path / "page.md", BENCHMARKS.parent / "experiments" / "scale.csv")
    assert (tmp_path / "page.md").read_text("utf-8") == page.read_text("utf-8")
