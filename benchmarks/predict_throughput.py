"""Rows per second of `stage=predict` against bare onnxruntime on the same ONNX file, threads and length-sorted batches.

python benchmarks/predict_throughput.py --rows 1000000 --workers 2 [--ray HOST:6379]

The model is a BERT with 2 layers of width 128, MiniLM's vocabulary and random weights: its predictions mean nothing, but it is
as fast as the tiny student. Bare onnxruntime is one process: tokenizers on `workers` threads, all texts sorted by length,
batches of 64, no output written. `stage=predict` reads a CSV file and writes Parquet; it is timed both from engine start
and as a complete command. With `--ray`, the cluster predicts the same file with one and with `workers` actors, and their rows are
compared with the local engine's.
"""

import argparse
import csv
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BATCH = 64
SUBJECTS = ["Orvane", "Beltrix Holdings", "Quillmark", "Tasmoor & Co.", "The Nordic bank", "A shipping line", "The regulator"]
VERBS = ["beats estimates for", "warns on", "reports record", "cuts guidance for", "holds", "raises", "delays"]
OBJECTS = ["quarterly profit", "sales", "its dividend", "a merger with a rival", "costs", "the rate outlook", "capital spending"]
ENDS = [
    "",
    " as demand slows",
    " after a strong quarter in Asia",
    ", analysts say",
    " despite higher input costs and a weaker currency",
]


def write_headlines(path: Path, rows: int) -> None:
    """Write a CSV file of generated headlines with hardly any duplicates."""
    draw = random.Random(0)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "text"])
        for number in range(rows):
            words = [draw.choice(part) for part in (SUBJECTS, VERBS, OBJECTS)]
            writer.writerow([number, " ".join(words) + f" by {draw.randrange(10_000) / 100}%" + draw.choice(ENDS)])


def write_model(folder: Path) -> None:
    import torch
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

    from findistill.models.weights import locate

    torch.manual_seed(0)
    labels = dict(enumerate(("negative", "neutral", "positive")))
    sizes = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 512}
    BertForSequenceClassification(BertConfig(**sizes, id2label=labels, max_position_embeddings=128)).save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(locate("embedded:minilm_l6"))
    tokenizer.model_max_length = 64
    tokenizer.save_pretrained(folder)


def bare(onnx: Path, texts_of: Path, threads: int) -> dict[str, float]:
    """Rate from texts to probabilities with onnxruntime and tokenizers alone, and peak memory; needs a separate process."""
    import numpy as np
    import onnxruntime
    from tokenizers import Tokenizer

    with texts_of.open(encoding="utf-8", newline="") as file:
        texts = [row["text"] for row in csv.DictReader(file)]
    tokenizer = Tokenizer.from_file(str(onnx.with_name("tokenizer.json")))
    tokenizer.no_padding()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(onnx), options, providers=["CPUExecutionProvider"])
    session.run(None, {"input_ids": np.ones((2, 8), np.int64), "attention_mask": np.ones((2, 8), np.int64)})
    started = time.perf_counter()
    rows = [row.ids for row in tokenizer.encode_batch_fast(texts)]
    order = sorted(range(len(rows)), key=lambda at: len(rows[at]))
    shares = np.zeros((len(rows), 3))
    for start in range(0, len(order), BATCH):
        some = order[start : start + BATCH]
        longest = len(rows[some[-1]])
        ids = np.array([rows[at] + [0] * (longest - len(rows[at])) for at in some], np.int64)
        mask = np.array([[1] * len(rows[at]) + [0] * (longest - len(rows[at])) for at in some], np.int64)
        shares[some] = session.run(["probabilities"], {"input_ids": ids, "attention_mask": mask})[0]
    seconds = time.perf_counter() - started
    return {"rows_per_s": len(rows) / seconds, "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def findistill(folder: Path, *arguments: str) -> tuple[dict[str, float], float]:
    """The metrics of a `stage=predict` job, and the seconds of the complete command."""
    started = time.perf_counter()
    command = [sys.executable, "-m", "findistill", "stage=predict", "predict.model=model", "data=csv", "logger=none"]
    subprocess.run([*command, *arguments], cwd=folder, check=True, stderr=subprocess.DEVNULL)
    seconds = time.perf_counter() - started
    newest = max(folder.glob("runs/default/predict-*/metrics.json"), key=lambda path: path.stat().st_mtime)
    return json.loads(newest.read_text()), seconds


def on_ray(folder: Path, address: str, workers: int, settings: list[str]) -> None:
    """Print the rates of one and of `workers` actors, and whether the rows are those of the local engine."""
    import pyarrow.dataset

    rates = []
    for actors in (1, workers):
        bounds = [f"predict.ray.{bound}_actors={actors}" for bound in ("min", "max")]
        ray = ["predict.engine=ray", f"predict.ray.address='{address}'", *bounds, f"predict.out=by_{actors}"]
        rates.append(findistill(folder, "data.path=news.csv", *settings, *ray)[0]["predict/rows_per_s"])
    local, *others = (pyarrow.dataset.dataset(folder / name).to_table() for name in ("local", "by_1", f"by_{workers}"))
    rows = "the same rows" if all(local.equals(other) for other in others) else "OTHER ROWS"
    rate = ", ".join(f"{rate:,.0f} rows/s with {actors}" for actors, rate in zip((1, workers), rates, strict=True))
    print(f"Ray actors: {rate}, ratio {rates[1] / rates[0]:.2f}, {rows}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--weights", choices=("int8", "fp32"), default="int8")
    parser.add_argument("--ray", metavar="ADDRESS", help="of a Ray cluster")
    parser.add_argument("--bare", nargs=2, metavar=("ONNX", "CSV"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.bare:
        print(json.dumps(bare(*map(Path, options.bare), options.workers)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_model(folder / "model")
        write_headlines(folder / "warm.csv", 100)
        write_headlines(folder / "news.csv", options.rows)
        settings = [f"predict.workers={options.workers}", f"predict.weights={options.weights}", f"predict.batch_size={BATCH}"]
        findistill(folder, "data.path=warm.csv", *settings)  # exports the model
        name = {"int8": "model_int8_dynamic.onnx", "fp32": "model.onnx"}[options.weights]
        [onnx] = folder.glob(f"runs/.artifacts/onnx-*/{name}")
        environment = {**os.environ, "RAYON_NUM_THREADS": str(options.workers), "TOKENIZERS_PARALLELISM": "true"}
        command = [sys.executable, __file__, "--workers", str(options.workers), "--bare", str(onnx), str(folder / "news.csv")]
        alone = json.loads(subprocess.run(command, check=True, capture_output=True, env=environment).stdout)
        metrics, seconds = findistill(folder, "data.path=news.csv", "predict.out=local", *settings)
        if options.ray:
            on_ray(folder, options.ray, options.workers, settings)
    rate = metrics["predict/rows_per_s"]
    print(f"{options.rows:,} rows, {options.weights}, {options.workers} threads or processes")
    print(f"onnxruntime alone: {alone['rows_per_s']:,.0f} rows/s, peak {alone['peak_mb']:,.0f} MB")
    print(f"stage=predict: {rate:,.0f} rows/s, peak {metrics['memory/peak_mb']:,.0f} MB in the job's process")
    print(f"as a command: {options.rows / seconds:,.0f} rows/s, {seconds:,.1f} s")
    print(f"ratio: {rate / alone['rows_per_s']:.2f}")


if __name__ == "__main__":
    main()
