"""Latency of `stage=serve` under a steady load of single texts: each request is sent when it is due, regardless of the others.

python benchmarks/serve_latency.py --rate 200 --seconds 60

Latency is measured from when a request was due, so that a server that falls behind shows. The model is the one from
`predict_throughput.py`; the client is a separate process on the same cores as the server.
"""

import argparse
import asyncio
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import aiohttp
import numpy as np
from predict_throughput import write_model


async def load(url: str, rate: float, seconds: float) -> tuple[list[float], Counter[int]]:
    """Latencies in milliseconds and status codes of all requests."""
    latencies: list[float] = []
    statuses: Counter[int] = Counter()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=400)) as session:

        async def send(number: int, due: float) -> None:
            async with session.post(url, json={"text": f"Orvane beats estimates for quarterly profit by {number}%"}) as response:
                await response.read()
            latencies.append(1000 * (time.perf_counter() - due))
            statuses[response.status] += 1

        started = time.perf_counter()
        tasks = []
        for number in range(int(rate * seconds)):
            due = started + number / rate
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            tasks.append(asyncio.create_task(send(number, due)))
        await asyncio.gather(*tasks)
    return latencies, statuses


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=200.0)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("settings", nargs="*", help="overrides of stage=serve, such as serve.threads=1")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        write_model(Path(scratch) / "model")
        command = [
            sys.executable,
            "-m",
            "findistill",
            "stage=serve",
            "serve.model=model",
            "serve.port=0",
            "trainer.accelerator=cpu",
        ]
        server = subprocess.Popen(command, cwd=scratch, stderr=subprocess.PIPE, text=True)
        try:
            assert server.stderr is not None
            place = next(match for line in server.stderr if (match := re.search(r"(http://\S+/predict)", line)))
            asyncio.run(load(place[1], options.rate, 2.0))
            latencies, statuses = asyncio.run(load(place[1], options.rate, options.seconds))
        finally:
            server.terminate()
            server.wait(30)
    p50, p95, p99 = np.percentile(latencies, [50, 95, 99])
    print(f"{len(latencies):,} requests at {options.rate:g}/s: {dict(statuses)}")
    print(f"p50 {p50:.1f} ms, p95 {p95:.1f} ms, p99 {p99:.1f} ms, slowest {max(latencies):.1f} ms")


if __name__ == "__main__":
    main()
