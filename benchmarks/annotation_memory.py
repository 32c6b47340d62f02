"""How much more memory annotating 200,000 texts takes than 10,000, against a loopback server: the annotator promises 50 MB.

    python benchmarks/annotation_memory.py [--texts 200000] [--entities]

With `--entities` the answers are lists of names, which become spans (`stage=entities entities.step=label`).
Each size runs in a separate process. The peak includes everything: the interpreter, the libraries and the texts themselves.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from endpoint_throughput import started_server

FEW = 10_000
KEY = "OPENAI_API_KEY"


def annotate(address: str, count: int, entities: bool) -> None:
    """Annotate `count` made-up headlines, one answer each, and print the peak resident memory in MB."""
    import pandas as pd
    from omegaconf import OmegaConf

    from findistill.core.hardware import peak_memory_mb
    from findistill.data.labels import LabelSet
    from findistill.llm.annotate import annotate
    from findistill.llm.config import Annotate, EndpointLLM, Extract, Prompt, Shots
    from findistill.llm.extract import extract

    rows = range(count)
    texts = pd.DataFrame(
        {
            "id": pd.Series([f"t{row}" for row in rows], dtype="str"),
            "text": pd.Series(
                [f"Company {row} says that sales rose by {row % 37} per cent in the third quarter." for row in rows]
            ),
            "label": pd.Series([None] * count, dtype="str"),
        }
    )
    llm = EndpointLLM("findistill.llm.endpoint.EndpointEngine", name="loopback", model="m", base_url=address)
    with tempfile.TemporaryDirectory() as folder:
        labels, path, section = LabelSet(("negative", "neutral", "positive")), Path(folder), OmegaConf.structured(llm)
        shots, settings, pool = Shots(k=0), Annotate(samples=1), texts.head(0)
        if entities:
            prompt = Extract(name="companies", instruction="List the companies.")
            extract(texts, pool, ("company",), section, prompt, shots, settings, path, cache=path / "cache")
        else:
            direct = Prompt(name="direct", instruction="Classify.")
            annotate(texts, pool, labels, section, direct, shots, settings, path, cache=path / "cache")
    print(peak_memory_mb())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=200_000)
    parser.add_argument("--few", type=int, default=FEW)
    parser.add_argument("--entities", action="store_true")
    parser.add_argument("--one", nargs=2, metavar=("ADDRESS", "COUNT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        annotate(options.one[0], int(options.one[1]), options.entities)
        return
    few = min(options.few, options.texts // 2)
    if options.entities:
        os.environ["BENCHMARK_ANSWER"] = '{"result": ["Company"], "normalized_result": ["Company Inc"]}'
    peaks = {}
    server, port = started_server(0.0)
    address = f"http://127.0.0.1:{port}/v1"
    try:
        for count in (few, options.texts):
            done = subprocess.run(
                [sys.executable, __file__, "--one", address, str(count), *(["--entities"] if options.entities else [])],
                check=True, capture_output=True, text=True, env={**os.environ, KEY: "any", "NO_PROXY": "127.0.0.1"},
            )  # fmt: skip
            peaks[count] = float(done.stdout.split()[-1])
            print(f"{count:,} texts: peak {peaks[count]:.0f} MB", flush=True)
    finally:
        server.terminate()
    growth = peaks[options.texts] - peaks[few]
    print(f"growth: {growth:.0f} MB (promised: below 50), {growth * 1e6 / (options.texts - few):.0f} bytes per text")


if __name__ == "__main__":
    main()
