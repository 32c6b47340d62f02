"""Tuning on two devices: two CPU processes learn the same as one, including with 4-bit weights."""

from pathlib import Path

import pytest

from findistill.core.files import read_json
from tests.methods.qlora.test_stage import job

FEW = ("data.limit=120", "qlora.batch_size=8", "trainer.accelerator=cpu", "qlora.dropout=0")


@pytest.mark.slow
@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_two_processes_learn_what_one_does(quantization: str, tiny_llm: Path, tmp_path: Path) -> None:
    histories = []
    for devices in (1, 2):
        settings = ("trainer=ddp", f"trainer.devices={devices}", f"qlora.quantization={quantization}")
        one = job(tmp_path / str(devices), tiny_llm, "stage=qlora", *FEW, *settings)
        one.step.run(one)
        histories.append(read_json(one.parents["adapter"] / "tuned.json")["history"])
    alone, shared = histories
    assert [epoch.keys() for epoch in alone] == [epoch.keys() for epoch in shared]
    assert shared[-1]["train/loss"] == pytest.approx(alone[-1]["train/loss"], rel=0.05)
    assert shared[-1]["val/loss"] == pytest.approx(alone[-1]["val/loss"], rel=0.05)
