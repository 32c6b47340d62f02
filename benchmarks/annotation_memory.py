"""How much more memory 200,000 texts take than 10,000, through a loopback server: the annotator's own promise is 50 MB.

    python benchmarks/annotation_memory.py [--texts 200000]

Each size runs in a process of its own. The peak counts everything: the interpreter, the libraries, the texts themselves.
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


def annotate(address: str, count: int) -> None:
    """Annotate `count` made-up headlines, one answer each, and print the peak of the resident memory in MB."""
    import pandas as pd
    from omegaconf import OmegaConf

    from findistill.core.hardware import peak_memory_mb
    from findistill.data.labels import LabelSet
    from findistill.llm.annotate import annotate
    from findistill.llm.config import Annotate, EndpointLLM, Prompt, Shots

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
        labels, path = LabelSet(("negative", "neutral", "positive")), Path(folder)
        sections = (OmegaConf.structured(llm), Prompt(name="direct", instruction="Classify."), Shots(k=0), Annotate(samples=1))
        annotate(texts, texts.head(0), labels, *sections, path, cache=path / "cache")
    print(peak_memory_mb())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=200_000)
    parser.add_argument("--one", nargs=2, metavar=("ADDRESS", "COUNT"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        annotate(given.one[0], int(given.one[1]))
        return
    few = min(FEW, given.texts // 2)
    peaks = {}
    server, port = started_server(0.0)
    address = f"http://127.0.0.1:{port}/v1"
    try:
        for count in (few, given.texts):
            done = subprocess.run(
                [sys.executable, __file__, "--one", address, str(count)],
                check=True, capture_output=True, text=True, env={**os.environ, KEY: "any", "NO_PROXY": "127.0.0.1"},
            )  # fmt: skip
            peaks[count] = float(done.stdout.split()[-1])
            print(f"{count:,} texts: peak {peaks[count]:.0f} MB", flush=True)
    finally:
        server.terminate()
    print(f"growth: {peaks[given.texts] - peaks[few]:.0f} MB (promised: below 50)")


if __name__ == "__main__":
    main()
