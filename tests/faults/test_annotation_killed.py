"""An annotation that is killed again and again loses nothing and pays for nothing twice."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from tests.llm.servers import KEY, LoopbackServer, seeded

ROWS, SAMPLES, IN_FLIGHT, KILLS = 2000, 2, 8, 20

RUN = (
    """
import sys
from pathlib import Path
import pandas as pd
from findistill.data.labels import LabelSet
from findistill.llm.annotate import annotate
from omegaconf import OmegaConf
from findistill.llm.config import Annotate, EndpointLLM, Prompt, Shots
from findistill.schema import Config
from findistill.training.config import Trainer

texts = pd.DataFrame({"id": [f"t{i}" for i in range(ROWS)], "text": [f"Sales of company {i} rose." for i in range(ROWS)]})
texts["label"] = None
config = Config(
    llm=EndpointLLM(
        _target_="findistill.llm.endpoint.EndpointEngine", name="m", model="m", base_url=sys.argv[1], api_key_env="TEST_KEY"
    ),
    prompt=Prompt(name="direct", instruction="Classify."),
    shots=Shots(k=0),
    annotate=Annotate(samples=SAMPLES, concurrency=IN_FLIGHT),
    trainer=Trainer(),
)
config.llm = OmegaConf.structured(config.llm)
folder = Path(sys.argv[2])
sections = (config.llm, config.prompt, config.shots, config.annotate)
annotate(texts, texts.head(0), LabelSet(("negative", "neutral", "positive")), *sections, folder, cache=folder / "cache")
""".replace("ROWS", str(ROWS))
    .replace("SAMPLES", str(SAMPLES))
    .replace("IN_FLIGHT", str(IN_FLIGHT))
)


def start(server: LoopbackServer, folder: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "TEST_KEY": KEY, "NO_PROXY": "127.0.0.1"}
    return subprocess.Popen([sys.executable, "-c", RUN, server.url, str(folder)], env=environment, stderr=subprocess.DEVNULL)


def responses(cache: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in cache.glob("*.jsonl"))


@pytest.mark.slow
def test_killed_at_twenty_moments(tmp_path: Path) -> None:
    server = LoopbackServer(seeded)
    try:
        assert start(server, tmp_path / "straight").wait(120) == 0
        straight = len(server.asked)
        assert straight == ROWS * SAMPLES
        draw, kills = random.Random(0), 0
        for number in range(KILLS):
            # Spread over the whole job, at any moment of writing.
            while kills == number:
                running = start(server, tmp_path / "cut")
                goal = draw.uniform(number, number + 1) / KILLS * ROWS * SAMPLES
                while running.poll() is None and responses(tmp_path / "cut" / "cache") < goal:
                    time.sleep(0.002)
                assert running.poll() is None, "it ended before it could be killed"
                running.send_signal(signal.SIGKILL)
                running.wait(10)
                kills += 1
        assert start(server, tmp_path / "cut").wait(120) == 0
    finally:
        server.stop()
    asked = len(server.asked) - straight
    assert asked <= ROWS * SAMPLES + KILLS * IN_FLIGHT
    one, other = (pd.read_parquet(tmp_path / name / "annotations.parquet") for name in ("straight", "cut"))
    pd.testing.assert_frame_equal(one, other)
    samples = [
        [{name: value for name, value in json.loads(line).items() if name != "seconds"} for line in path.open()]
        for path in (tmp_path / "straight" / "samples.jsonl", tmp_path / "cut" / "samples.jsonl")
    ]
    assert samples[0] == samples[1]
    print(f"killed {kills} times: {asked - ROWS * SAMPLES} of {ROWS * SAMPLES} calls were made twice")
