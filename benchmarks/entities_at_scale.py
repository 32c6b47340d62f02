"""Peak memory and throughput of labelling, sampling and prediction on 900,000 headlines: the promise is 1 GB.

    python benchmarks/entities_at_scale.py [--texts 900000] [--model FOLDER] [--csv experiments/company_ner/scale.csv]

Headlines are synthetic, about 20,000 companies; a loopback server responds with the right names. The prediction model is a
token classifier on MiniLM-L6, trained here on the demo's headlines unless `--model` names another one; it runs as 8-bit ONNX,
exported beforehand by a prediction on one text. Memory is that of a command and all its processes, with shared pages counted
once (proportional set size), sampled twice a second.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
import psutil
from endpoint_throughput import Connection, serve

COMPANIES = 20_000
LIMIT_MB = 1000
ONCE = ("train", "export")  # independent of the number of texts, so the promise does not cover them
SYLLABLES = (
    "bar",
    "con",
    "del",
    "fir",
    "gan",
    "hol",
    "jun",
    "kel",
    "lum",
    "mor",
    "nor",
    "pel",
    "quin",
    "ros",
    "sten",
    "tav",
    "ul",
)
KINDS = ("Group", "Holdings", "AG", "Energy", "Foods", "Bank", "Labs", "Motors")
EVENTS = (
    "raises its outlook",
    "cuts its dividend",
    "sells a stake",
    "opens a plant",
    "names a chief executive",
    "misses estimates",
)


def company(number: int) -> str:
    """A unique name for each number."""
    parts, rest = [], number
    for _ in range(4):
        rest, at = divmod(rest, len(SYLLABLES))
        parts.append(SYLLABLES[at])
    return f"{''.join(parts).capitalize()} {KINDS[number % len(KINDS)]}"


def headline(number: int) -> tuple[str, list[str]]:
    """A unique headline for each number, and its companies: none in every seventh headline, two in every fifth."""
    event = EVENTS[number % len(EVENTS)]
    first, second = company(number * 7919 % COMPANIES), company(number * 104_729 % COMPANIES)
    if number % 7 == 0:
        return f"Oil slips {number} ticks as traders wait", []
    if number % 5 == 0 and first != second:
        return f"{first} {event} after {second} bids {number} pence", [first, second]
    return f"{first} {event} in week {number}", [first]


class Recorded(Connection):
    """Responds with the names in the headline at the end of a request."""

    def content(self, body: bytes) -> str:
        digits = "".join(filter(str.isdigit, json.loads(body)["messages"][-1]["content"]))  # a probe contains no digits
        names = headline(int(digits))[1] if digits else []
        return json.dumps(json.dumps({"result": names, "normalized_result": names}))[1:-1]


def run(what: str, folder: Path, count: int, *arguments: str) -> dict[str, float | str]:
    """Run a command in `folder`; print and return its peak memory and throughput.

    Raises:
        SystemExit: The command failed.
    """
    command = [sys.executable, "-m", "findistill", "logger=none", "study=scale", *arguments]
    environment = {**os.environ, "NO_PROXY": "127.0.0.1", "OMP_NUM_THREADS": "1"}
    started, peak = time.perf_counter(), 0.0
    with (folder / f"{what}.log").open("w") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, env=environment)
        while process.poll() is None:
            peak = max(peak, memory_mb(process.pid))
            time.sleep(0.5)
    seconds = time.perf_counter() - started
    if process.returncode:
        sys.exit(f"{what} failed:\n{(folder / f'{what}.log').read_text()[-2000:]}")
    per_s = None if what in ONCE else round(count / seconds, 1)
    rate = f"{count:,} headlines, {per_s:,.0f} a second, " if per_s else ""
    promise = f", MORE THAN {LIMIT_MB}" if per_s and peak >= LIMIT_MB else ""
    print(f"{what:8} {seconds:6,.0f} s, {rate}peak {peak:,.0f} MB{promise}", flush=True)
    rates = {"seconds": round(seconds, 1), "headlines_per_s": per_s, "peak_mb": round(peak)}
    return {"command": what, "headlines": count, **rates}


def memory_mb(pid: int) -> float:
    """Proportional set size of a process and its descendants; those that exit meanwhile count as 0."""
    total = 0
    try:
        root = psutil.Process(pid)
        for process in (root, *root.children(recursive=True)):
            try:
                total += process.memory_full_info().pss
            except psutil.Error:
                continue
    except psutil.Error:
        return 0.0
    return total / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=900_000)
    parser.add_argument("--model", help="the run folder or model folder of a token classifier or a GLiNER")
    parser.add_argument("--csv", type=Path, help="write the figures to this file")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        asyncio.run(serve(0.0, Recorded))
        return
    server = subprocess.Popen([sys.executable, __file__, "--serve"], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    address = f"http://127.0.0.1:{int(server.stdout.readline())}/v1"
    try:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            with (folder / "news.csv").open("w", encoding="utf-8") as file:
                file.write("id,text\n")
                file.writelines(f"{number},{headline(number)[0]}\n" for number in range(options.texts))
            labelling = [
                "stage=entities", "data=csv", "data.path=news.csv", "llm=endpoint", "llm.model=recorded", "llm.api_key_env=null",
                f"llm.base_url={address}", "shots.k=0", "annotate.samples=1", "annotate.temperature=0", "annotate.concurrency=64",
            ]  # fmt: skip
            rows = [run("label", folder, options.texts, *labelling, "entities.step=label")]
            rows.append(run("sample", folder, options.texts, *labelling, "entities.step=sample"))
            model = str(Path(options.model).resolve()) if options.model else "runs/model/latest-entities"
            if not options.model:
                training = ["stage=entities", "data=demo_companies", "trainer.max_epochs=1", "entities.token.min_steps=null"]
                run("train", folder, options.texts, *training, "study=model")
            (folder / "few.csv").write_text("text\nProfit rises\n", encoding="utf-8")
            predicting = ["stage=predict", f"predict.model={model}", "data=csv"]
            rows.append(run("export", folder, 1, *predicting, "data.path=few.csv", "study=export"))
            rows.append(run("predict", folder, options.texts, *predicting, "data.path=news.csv"))
            if options.csv:
                pd.DataFrame(rows).to_csv(options.csv, index=False)
    finally:
        server.terminate()


if __name__ == "__main__":
    main()
