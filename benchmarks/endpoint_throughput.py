"""How fast the endpoint engine annotates against a server that responds after 50 ms, compared with distilabel.

    python benchmarks/endpoint_throughput.py [--rows 6000] [--env FOLDER]

The server runs in a separate process and records when each request arrives. Rates are measured between the first and the
last request, so that start-up time does not count. With 32 requests in flight, at most 640 requests/s are possible.
distilabel is installed into a virtual environment in FOLDER (a temporary one by default; `--env ""` skips it). It gets the
same texts and the same number of requests in flight, one answer per text.

Exits with 1 below 95% of the possible rate (unless the client keeps its core busy), below 400 requests per second of
client CPU time, or below 1.5 times distilabel's rows per second.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
import venv
from pathlib import Path
from typing import Any

DELAY_S = 0.05
TIMER_S = 0.0025  # how late asyncio's timers may fire
IN_FLIGHT = 32
POSSIBLE = IN_FLIGHT / DELAY_S
REQUIREMENTS = ["distilabel[openai]==1.5.3", "requests"]  # distilabel imports requests but does not require it
INSTRUCTION = "Classify the sentiment of the text. Answer with one word: negative, neutral or positive."


def text(number: int) -> str:
    return f"Operating profit of company {number} rose to EUR 13.1 mn from EUR 8.7 mn in the corresponding period in 2007."


# -- the server --------------------------------------------------------------------------------------------------------

WORD = json.dumps(os.environ.get("BENCHMARK_ANSWER", "positive"))[1:-1]
ANSWER = json.dumps({
    "id": "x", "object": "chat.completion", "created": 0, "model": "m",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "WORD"}}],
    "usage": {"prompt_tokens": 120, "completion_tokens": 1, "total_tokens": 121},
})  # fmt: skip


class Connection(asyncio.Protocol):
    """Just enough HTTP/1.1 with keep-alive for a client: a framework would be the slowest part of the benchmark."""

    times: list[float] = []  # noqa: RUF012 -- of all connections

    def __init__(self, delay: float) -> None:
        self.delay = delay
        self.received = b""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.received += data
        while (end := self.received.find(b"\r\n\r\n")) >= 0:
            head = self.received[:end].lower()
            at = head.find(b"content-length:")
            length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(self.received) < end + 4 + length:
                return
            body, self.received = self.received[end + 4 : end + 4 + length], self.received[end + 4 + length :]
            if head.startswith(b"get"):
                self.send(json.dumps({"first": self.times[0], "last": self.times[-1], "requests": len(self.times)}))
                self.times.clear()
            else:
                now = time.monotonic()
                if b"random digits" not in body:  # the engine's probe, which must see different answers
                    self.times.append(now)
                word = f"positive{now}" if b"random digits" in body else self.content(body)
                loop = asyncio.get_running_loop()
                due = loop.time() + self.delay
                loop.call_at(due - TIMER_S, self.send_at, due, ANSWER.replace("WORD", word))

    def content(self, body: bytes) -> str:
        """The content of the response to a request, escaped for JSON."""
        return WORD

    def send_at(self, due: float, body: str) -> None:
        """Send at exactly this time, which a timer would overshoot."""
        loop = asyncio.get_running_loop()
        if loop.time() < due:
            loop.call_soon(self.send_at, due, body)
        else:
            self.send(body)

    def send(self, body: str) -> None:
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        self.transport.write((head + body).encode())


async def serve(delay: float, connection: type[Connection] = Connection) -> None:
    server = await asyncio.get_running_loop().create_server(lambda: connection(delay), "127.0.0.1", 0, backlog=512)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


async def capacity(port: int, connections: int = 64, requests: int = 6000) -> float:
    """Requests per second that the server can handle, measured over bare sockets."""
    body = json.dumps({"messages": [{"role": "user", "content": text(0) * 10}]})
    request = f"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
    left = iter(range(requests))

    async def client() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in left:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0]))
        writer.close()

    started = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(connections)))
    return requests / (time.perf_counter() - started)


# -- the clients, each in a separate process ---------------------------------------------------------------------------


def annotate(url: str, rows: int) -> None:
    """Run our engine as `annotate` does, and print the time it took."""
    from findistill.llm.endpoint import EndpointEngine
    from findistill.llm.engine import Request, Sampling
    from findistill.llm.prompts import Demonstration, Template

    os.environ["LOOPBACK_KEY"] = "none"
    engine = EndpointEngine(model="m", base_url=url, api_key_env="LOOPBACK_KEY", structured="never")
    template = Template("Classify the sentiment of the text.", {name: name for name in ("negative", "neutral", "positive")})
    shown = tuple(Demonstration(text(-number), "neutral") for number in range(4))
    drawn = Sampling(temperature=0.5, seed=0, concurrency=IN_FLIGHT)
    template = engine.prepare(template, drawn)
    tasks = (Request(str(number), text(number), shown, (0,)) for number in range(rows))
    cpu = time.process_time()
    started = time.perf_counter()
    answered = sum(answer.label == "positive" for batch in engine.responses(tasks, template, drawn) for answer in batch)
    took = {"rows": answered, "cpu_s": time.process_time() - cpu, "wall_s": time.perf_counter() - started}
    print(json.dumps(took), flush=True)


DISTILABEL = """
import sys
from distilabel.models import OpenAILLM
from distilabel.pipeline import Pipeline
from distilabel.steps import LoadDataFromDicts
from distilabel.steps.tasks import TextGeneration

if __name__ == "__main__":
    url, rows, batch, instruction, texts = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], sys.argv[5]
    with Pipeline() as pipeline:
        load = LoadDataFromDicts(
            data=[{"instruction": line.rstrip("\\n")} for line in open(texts)], batch_size=batch,
        )
        ask = TextGeneration(
            llm=OpenAILLM(base_url=url, api_key="none", model="m", generation_kwargs={"temperature": 0.5, "max_new_tokens": 256}),
            system_prompt=instruction, input_batch_size=batch,
        )
        load >> ask
    dataset = pipeline.run(use_cache=False)
    answers = dataset["default"]["train"]["generation"]
    assert answers == ["positive"] * rows, answers[:3]
"""


def distilabel(folder: Path, url: str, rows: int) -> None:
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
    if subprocess.run([python, "-c", "import distilabel, openai"], capture_output=True, check=False).returncode:
        subprocess.run([python, "-m", "pip", "install", "-q", *REQUIREMENTS], check=True)
    script, texts = folder / "endpoint_throughput_distilabel.py", folder / "endpoint_throughput_texts.txt"
    script.write_text(DISTILABEL)
    texts.write_text("".join(text(number) + "\n" for number in range(rows)))
    done = subprocess.run(
        [python, script, url, str(rows), str(IN_FLIGHT), INSTRUCTION, texts],
        env=os.environ | {"HF_HUB_OFFLINE": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        sys.exit(f"distilabel failed:\n{done.stderr[-3000:]}")


# -- the comparison ----------------------------------------------------------------------------------------------------


def started_server(delay: float) -> tuple[subprocess.Popen[str], int]:
    server = subprocess.Popen([sys.executable, __file__, "--serve", str(delay)], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    return server, int(server.stdout.readline())


def rate(port: int, rows: int) -> float:
    """Requests per second since the last call, as seen by the server."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/") as response:
        counts = json.load(response)
    assert counts["requests"] == rows, counts
    return (rows - 1) / (counts["last"] - counts["first"])


def compare(rows: int, env: Path | None) -> int:
    os.environ["NO_PROXY"] = "127.0.0.1"
    server, port = started_server(0.0)
    try:
        print(f"the server's own limit            {asyncio.run(capacity(port)):8.0f} requests/s")
    finally:
        server.terminate()

    server, port = started_server(DELAY_S)
    url = f"http://127.0.0.1:{port}/v1"
    misses = []
    try:
        client = subprocess.run(
            [sys.executable, __file__, "--client", url, "--rows", str(rows)], stdout=subprocess.PIPE, text=True, check=True
        )
        took = json.loads(client.stdout)
        assert took["rows"] == rows
        ours = rate(port, rows)
        per_cpu, busy = rows / took["cpu_s"], took["cpu_s"] / took["wall_s"]
        print(f"findistill                        {ours:8.0f} requests/s, {ours / POSSIBLE:.1%} of the possible {POSSIBLE:.0f}")
        print(f"  requests per client CPU-second  {per_cpu:8.0f} ({1000 / per_cpu:.2f} ms each, {busy:.0%} of one processor)")
        if ours < 0.95 * POSSIBLE and busy < 0.9:
            misses.append("95% of the possible rate")
        if per_cpu < 400:
            misses.append("400 requests per CPU-second")
        if env is not None:
            distilabel(env, url, rows)
            theirs = rate(port, rows)
            print(f"distilabel                        {theirs:8.0f} requests/s; findistill is {ours / theirs:.2f} times as fast")
            if ours < 1.5 * theirs:
                misses.append("1.5 times distilabel")
    finally:
        server.terminate()
    for miss in misses:
        print(f"MISSED: {miss}")
    return int(bool(misses))


def main() -> int:
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--rows", type=int, default=6000)
    options.add_argument("--env", help="folder of distilabel's virtual environment; empty: without distilabel")
    options.add_argument("--serve", type=float, help=argparse.SUPPRESS)
    options.add_argument("--client", help=argparse.SUPPRESS)
    arguments = options.parse_args()
    if arguments.serve is not None:
        asyncio.run(serve(arguments.serve))
    elif arguments.client:
        annotate(arguments.client, arguments.rows)
    elif arguments.env is None:
        with tempfile.TemporaryDirectory() as folder:
            return compare(arguments.rows, Path(folder))
    else:
        return compare(arguments.rows, Path(arguments.env) if arguments.env else None)
    return 0


if __name__ == "__main__":
    sys.exit(main())
