"""Measure the rates used in docs/scale.md and derive the cost of larger workloads; writes experiments/scale.csv and the page.

    python benchmarks/scale.py [--texts 2000] [--out experiments/scale.csv]

Every row is `measured` here (on one thread if its unit is per core), `assumed`, or `derived` from the rows above it by the
formula it names. Models are not trained, since that does not affect their speed. Run it on an idle machine; `--note` is
recorded with each measurement.
"""

import argparse
import csv
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertConfig

from findistill.config.compose import data_config
from findistill.core import hardware
from findistill.data.labels import LabelSet
from findistill.data.loading import load
from findistill.inference import onnx_export, onnx_model
from findistill.inference.predict import classify
from findistill.llm import demonstrations
from findistill.llm.annotate import annotate
from findistill.llm.cache import ResponseCache
from findistill.llm.config import Annotate, BatchLLM, Prompt, Shots
from findistill.llm.engine import Request, Response, Sampling
from findistill.llm.estimate import token_counter
from findistill.llm.in_process import InProcessEngine
from findistill.llm.prompts import template
from findistill.models import memory
from findistill.models.weights import locate
from findistill.training.config import QLoRA, Trainer

ROOT = Path(__file__).parents[1]
LABELS = LabelSet(("negative", "neutral", "positive"))
PROMPT = Prompt(name="direct", sentiment_instruction="Classify the sentiment of the financial text.", task="sentiment")
SHAPES = {"tiny_2l_128d": (2, 128, 512), "minilm_3l": (3, 384, 1536), "minilm_l6": (6, 384, 1536), "bert_base": (12, 768, 3072)}
HEADLINES = 100_000_000
ASSUMED = {  # key -> value, unit, source
    "core_price": (0.04, "USD/core-hour", "general-purpose cloud cores on demand, order of magnitude"),
    "gpu_price": (3.0, "USD/GPU-hour", "an 80 GB GPU rented by the hour, order of magnitude"),
    "gpu_flops": (989e12, "FLOP/s", "H100 SXM, dense bfloat16, data sheet"),
    "gpu_use": (0.3, "share", "of the FLOP/s that a served 70B model reaches on short prompts"),
    "price_in": (2.5, "USD/million tokens", "preset gpt4o"),
    "price_out": (10.0, "USD/million tokens", "preset gpt4o"),
    "batch_factor": (0.5, "share", "preset batch_api"),
    "training": (180.0, "s/job", "a student of a few thousand texts on two cores"),
    "workers": (16.0, "workers", "jobs side by side"),
}


class Table:
    """The rows of the CSV file, and their values by key."""

    def __init__(self, note: str) -> None:
        self.rows: list[dict[str, Any]] = []
        self.values: dict[str, float] = {}
        self.note = note

    def add(self, kind: str, key: str, value: float, unit: str, how: str) -> None:
        value = float(f"{value:.4g}")
        self.values[key] = value
        note = self.note if kind == "measured" else ""
        self.rows.append({"kind": kind, "key": key, "value": f"{value:.10g}", "unit": unit, "how": how, "note": note})
        print(f"{kind:9} {key:28} {value:14,.6g} {unit}", flush=True)


def seconds(work: Callable[[], Any], repeats: int = 3) -> float:
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def models(table: Table, texts: list[str], folder: Path) -> None:
    """Texts per second of each model in torch and as 8-bit ONNX, on one thread and including tokenisation."""
    for name, (layers, _, _) in SHAPES.items():
        some = texts if layers < 6 else texts[: len(texts) // 8]
        for form, run in runners(name, folder / name):
            took = seconds(partial(run, some))
            how = f"{len(some)} headlines, {'float32' if form == 'torch' else 'int8 ONNX'}, median of 3"
            table.add("measured", f"{name}_{form}", len(some) / took, "texts/s/core", how)


def runners(name: str, folder: Path) -> Iterator[tuple[str, Callable[[list[str]], Any]]]:
    """Functions that classify texts with a model of this shape, in torch and with onnxruntime."""
    layers, hidden, inner = SHAPES[name]
    tokenizer = AutoTokenizer.from_pretrained(locate("embedded:minilm_l6"))
    config = BertConfig(
        vocab_size=len(tokenizer), num_hidden_layers=layers, hidden_size=hidden, intermediate_size=inner,
        num_attention_heads=max(2, hidden // 64), label2id={label: at for at, label in enumerate(LABELS.names)},
        id2label=dict(enumerate(LABELS.names)),
    )  # fmt: skip
    model = AutoModelForSequenceClassification.from_config(config).eval()
    yield "torch", lambda some: classify(model, tokenizer, some, Trainer(accelerator="cpu", max_length=128))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    plain, small = folder / "model.onnx", folder / onnx_model.file_name("int8_dynamic")
    onnx_export.save_companions(folder, onnx_export.exported_tokenizer(tokenizer, 128), LABELS.names, str(folder))
    onnx_export.to_onnx(onnx_export.Classifier(model), plain, 18)
    onnx_export.quantise(plain, small)
    opened, run = onnx_model.open_onnx(small), onnx_model.load(small, 1)
    yield "int8", lambda some: onnx_model.outputs(run, opened.tokens(some, 128, None), 128)


def in_process(table: Table, texts: list[str]) -> None:
    engine = InProcessEngine(name="smollm2", model="embedded:smollm2")
    form = template(PROMPT, LABELS)
    requests = [Request(str(at), text, (), (0,)) for at, text in enumerate(texts[:32])]
    list(engine.responses(requests[:4], form, Sampling(0.5, 0)))
    took = seconds(lambda: list(engine.responses(requests, form, Sampling(0.5, 0))), 1)
    table.add(
        "measured", "smollm2_direct", len(requests) / took, "texts/s/core", "32 headlines, label distribution, no demonstrations"
    )


def endpoint(table: Table) -> None:
    lines = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "endpoint_throughput.py", "--rows", "2000", "--env", ""],
        capture_output=True, text=True, check=False,
    ).stdout.splitlines()  # fmt: skip
    rate = next(float(line.split()[1]) for line in lines if line.startswith("findistill"))
    per_cpu = next(float(line.split()[4]) for line in lines if "CPU-second" in line)
    table.add(
        "measured",
        "endpoint",
        rate,
        "requests/s",
        "2000 requests, 32 in flight, a loopback server that takes 50 ms: 640 possible",
    )
    table.add("measured", "endpoint_cpu", per_cpu, "requests/CPU-s", "the client's processor time of the same")


def by_batch(table: Table, texts: list[str], folder: Path) -> None:
    """Requests per second of the batch API with a server that takes no time: writing, uploading, reading and caching."""
    sys.path.insert(0, str(ROOT))
    from tests.llm.batch_servers import BatchLoopback
    from tests.llm.servers import KEY, chat, is_probe, sampling

    os.environ |= {"SCALE_KEY": KEY, "NO_PROXY": "127.0.0.1"}
    server = BatchLoopback(lambda body: sampling(body) if is_probe(body) else chat(["positive"] * body.get("n", 1)))
    frame = pd.DataFrame({"id": [str(at) for at in range(len(texts))], "text": texts, "label": None})
    llm = BatchLLM(
        _target_="findistill.llm.batch_api.BatchEngine",
        name="x",
        model="m",
        base_url=server.url,
        api_key_env="SCALE_KEY",
        poll_s=0.05,
    )
    sections = (llm, PROMPT, Shots(k=0), Annotate(samples=8))
    started = time.perf_counter()
    annotate(frame, frame.head(0), LABELS, *sections, folder / "batch", cache=folder / "cache")
    server.stop()
    rate = len(texts) / (time.perf_counter() - started)
    table.add(
        "measured",
        "batch_api",
        rate,
        "requests/s",
        f"{len(texts)} requests of 8 samples, the imitation of a server in the same process",
    )
    [path] = (folder / "cache").glob("*.jsonl")
    lines = sum(1 for _ in path.open("rb"))
    table.add("measured", "cache_line", path.stat().st_size / lines, "bytes/response", "of direct answers, one word each")
    cache = ResponseCache(folder / "large.jsonl")
    with cache:
        cache.append((key, Response(str(key), 0, raw="positive", label="positive", tokens_in=100)) for key in range(50_000))
    with cache:
        took = seconds(cache._scan)
    table.add("measured", "cache_scan", 50_000 / took, "responses/s", "opening a response cache of 50000 lines, median of 3")


def tokens(table: Table, texts: list[str]) -> None:
    count = token_counter(InProcessEngine(name="smollm2", model="embedded:smollm2"))
    form = template(PROMPT, LABELS)
    shown = demonstrations.hand_written("positive", 4).of(0)
    plain = statistics.mean(count(form, (), text) for text in texts[:200])
    table.add(
        "measured", "tokens_direct", plain, "tokens/prompt", "200 headlines, direct, no demonstrations, SmolLM2's tokenizer"
    )
    mean = statistics.mean(count(form, shown, text) for text in texts[:200])
    table.add("measured", "tokens_shots", mean, "tokens/prompt", "200 headlines, direct, 4 demonstrations, SmolLM2's tokenizer")


def tuning_memory(table: Table) -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "qlora_step.py"), "--steps", "3", "--peak", "nf4"]
    peak = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1]) * 2**20 / 1e9
    table.add("measured", "qlora_peak", peak, "GB", "tuning SmolLM2 over NF4, 16 texts a step, the whole process on a CPU")
    length = 110  # tokens of the longest prompts of the demo corpus
    estimate = memory.tuning(memory.size("embedded:smollm2"), QLoRA(), 16, length, "auto")
    table.add("derived", "qlora_estimate", estimate.total, "GB", f"what plan=true says for the same, {length} tokens")
    table.add("derived", "qlora_ratio", peak / estimate.total, "ratio", "qlora_peak / qlora_estimate")


def derive(table: Table) -> None:
    for key, (value, unit, source) in ASSUMED.items():
        table.add("assumed", key, value, unit, source)
    sweep = values_of(ROOT / "experiments" / "sweeps" / "overhead.csv")
    table.add("derived", "job", sweep["further_job"], "s/job", "further_job of sweeps/overhead.csv")
    planned = sweep["recognition"] / sweep["jobs"]
    table.add("derived", "job_planned", planned, "s/job", "recognition / jobs of sweeps/overhead.csv, with the command's start")
    v = table.values
    for name in SHAPES:
        hours = HEADLINES / v[f"{name}_int8"] / 3600
        table.add("derived", f"{name}_hours", hours, "core-hours", f"100 million headlines / {name}_int8")
        table.add("derived", f"{name}_cost", hours * v["core_price"], "USD", f"{name}_hours * core_price")
    table.add("derived", "sweep_overhead", 1000 * v["job"] / 60, "min", "1000 * job, one process")
    table.add("derived", "sweep_hours", 1000 * (v["job"] + v["training"]) / 3600, "h", "1000 * (job + training), one process")
    table.add("derived", "sweep_hours_workers", v["sweep_hours"] / v["workers"], "h", "sweep_hours / workers")
    per_text = v["tokens_shots"] * v["price_in"] / 1e6 + 8 * 2 * v["price_out"] / 1e6
    table.add("derived", "gpt_thousand", 1000 * per_text, "USD", "1000 texts, tokens_shots in, 8 samples of 2 tokens out")
    table.add("derived", "gpt_batch_thousand", 1000 * per_text * v["batch_factor"], "USD", "gpt_thousand * batch_factor")
    table.add("derived", "gpt_batch_million", 1e6 * per_text * v["batch_factor"], "USD", "1 million texts by the batch")
    table.add("derived", "gpt_batch_all", HEADLINES * per_text * v["batch_factor"], "USD", "100 million headlines by the batch")
    table.add("derived", "endpoint_days", HEADLINES / v["endpoint"] / 86400, "days", "100 million requests / endpoint")
    table.add("derived", "batches", HEADLINES / 50_000, "batches", "100 million requests / 50000 a batch")
    flops = 2 * 70.6e9 * (v["tokens_shots"] + 8 * 2)
    rate = v["gpu_flops"] * v["gpu_use"] / flops
    table.add(
        "derived", "llama70b", rate, "texts/s/GPU", "gpu_flops * gpu_use / (2 * 70.6e9 * (tokens_shots + 16)), no prefix cached"
    )
    table.add("derived", "llama70b_million_hours", 1e6 / rate / 3600, "GPU-hours", "1 million texts / llama70b")
    table.add("derived", "llama70b_million", 1e6 / rate / 3600 * v["gpu_price"], "USD", "llama70b_million_hours * gpu_price")
    table.add("derived", "llama70b_all_hours", HEADLINES / rate / 3600, "GPU-hours", "100 million headlines / llama70b")
    table.add("derived", "llama70b_all", HEADLINES / rate / 3600 * v["gpu_price"], "USD", "llama70b_all_hours * gpu_price")
    responses = 8 * HEADLINES
    table.add("derived", "cache_size", responses * v["cache_line"] / 1e9, "GB", "100 million texts of 8 samples * cache_line")
    table.add("derived", "cache_opening", responses / v["cache_scan"] / 3600, "h", "100 million texts of 8 samples / cache_scan")
    table.add("derived", "cache_index", responses * 20 / 1e9, "GB", "100 million texts of 8 samples * 20 bytes of index")
    table.add("derived", "cache_opening_million", 8e6 / v["cache_scan"] / 60, "min", "1 million texts of 8 samples / cache_scan")


def values_of(rows: Path) -> dict[str, float]:
    with rows.open(encoding="utf-8", newline="") as file:
        return {row["key"]: float(row["value"]) for row in csv.DictReader(file)}


def fill(page: Path, rows: Path) -> None:
    """Copy the values of the CSV file into the page's tables, into the cell next to each key."""
    values = values_of(rows)

    def cell(found: re.Match[str]) -> str:
        value = values[found[1]]
        form = ",.0f" if value >= 100 else ".1f" if value >= 1 else ".2g"
        return f"| `{found[1]}` | {value:{form}} |"

    page.write_text(re.sub(r"\| `(\w+)` \| [\d.,]+ \|", cell, page.read_text(encoding="utf-8")), encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--texts", type=int, default=2000)
    parser.add_argument("--out", type=Path, default=ROOT / "experiments" / "scale.csv")
    parser.add_argument("--note", default="")
    options = parser.parse_args()
    texts = load(data_config("demo")).frame["text"].head(options.texts).tolist()
    texts = [texts[at % len(texts)] for at in range(options.texts)]
    table = Table(" ".join(filter(None, (hardware.describe(), options.note))))
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        models(table, texts, folder)
        in_process(table, texts)
        endpoint(table)
        by_batch(table, texts, folder)
        tokens(table, texts)
        tuning_memory(table)
    derive(table)
    with options.out.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(table.rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(table.rows)
    if options.out == parser.get_default("out"):
        fill(ROOT / "docs" / "scale.md", options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
