"""An annotation job that is killed repeatedly repeats only the calls that were in flight, with the same result."""

import json
import os
import random
import signal
from pathlib import Path

import pandas as pd
import pytest

from tests.fixtures.preloaded import Preloaded, Running
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


MODULE = "annotate_rows"


def responses(cache: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in cache.glob("*.jsonl"))


@pytest.mark.slow
def test_killed_at_twenty_moments(preloaded: Preloaded, tmp_path: Path) -> None:
    server = LoopbackServer(seeded)
    (tmp_path / f"{MODULE}.py").write_text(RUN)

    def start(name: str) -> Running:
        environment = {**os.environ, "TEST_KEY": KEY, "NO_PROXY": "127.0.0.1"}
        return preloaded.start([MODULE, server.url, str(tmp_path / name)], tmp_path, environment)

    try:
        assert start("straight").wait(120).returncode == 0
        straight = len(server.requests)
        assert straight == ROWS * SAMPLES
        draw, kills = random.Random(0), 0
        for number in range(KILLS):
            # Kills are spread over the job, at any moment of a write.
            while kills == number:
                running = start("cut")
                goal = draw.uniform(number, number + 1) / KILLS * ROWS * SAMPLES
                while not running.ended(0.002) and responses(tmp_path / "cut" / "cache") < goal:
                    pass
                assert not running.ended(), "it ended before it could be killed"
                os.kill(running.pid, signal.SIGKILL)
                running.wait(10)
                kills += 1
        assert start("cut").wait(120).returncode == 0
    finally:
        server.stop()
    calls = len(server.requests) - straight
    assert calls <= ROWS * SAMPLES + KILLS * IN_FLIGHT
    one, other = (pd.read_parquet(tmp_path / name / "annotations.parquet") for name in ("straight", "cut"))
    pd.testing.assert_frame_equal(one, other)
    samples = [
        [{name: value for name, value in json.loads(line).items() if name != "seconds"} for line in path.open()]
        for path in (tmp_path / "straight" / "samples.jsonl", tmp_path / "cut" / "samples.jsonl")
    ]
    assert samples[0] == samples[1]
    print(f"killed {kills} times: {calls - ROWS * SAMPLES} of {ROWS * SAMPLES} calls were made twice")
