"""The memory that a tuning plan prints, for presets whose weights are only on the hub."""

import re
from pathlib import Path

import pytest

from findistill.core.plan import PlannedJob, describe
from findistill.methods.stage import stage_of
from tests.config.test_compose import composed


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (
            ("llm=flan_t5_xl", "trainer=gpu"),
            r"weights 3.4, .* for 16 texts of up to \d+ tokens \(24 GB fit 32, 80 GB fit 128\)",
        ),
        (("llm=flan_t5_xl", "trainer=ddp", "trainer.devices=2"), r"weights 3.4, .* on each of 2 devices for 8 texts"),
        (("experiment=llama_qlora", "evaluate.also=[]"), r"weights 3.9, .* for 16 texts"),
        (
            ("experiment=llama_qlora", "llm=llama31_8b_in_process", "trainer=ddp", "trainer.devices=2", "evaluate.also=[]"),
            r"weights 5.7, .* on each of 2 devices for 8 texts",
        ),
        (("llm=llama2_7b", "trainer=gpu", "qlora.batch_size=4"), r"for 4 texts"),
        (("llm=llama2_7b", "trainer=gpu", "qlora.quantization=none"), r"weights 13.5, "),
        (("llm=smollm2", "llm.model=nobody/nothing", "trainer=cpu"), "memory unknown: it needs the model's configuration"),
    ],
)
def test_a_plan_says_what_each_device_needs(overrides: tuple[str, ...], words: str, tmp_path: Path) -> None:
    config = composed("stage=qlora", *overrides, "data=demo", f"runs_dir={tmp_path}")
    config.llm.dtype = config.llm.dtype if config.llm.name == "smollm2" else "bfloat16"
    table = describe([PlannedJob([], config, stage_of(config))])
    [line] = [each for each in table.splitlines() if each.startswith("qlora") and "to create" in each]
    assert re.search(words, line), line


def test_answers_that_name_entities_take_more_than_a_label(tmp_path: Path) -> None:
    """Each of their tokens has logits over the vocabulary."""

    def activations(*overrides: str) -> float:
        config = composed("llm=smollm2", "trainer=cpu", "shots.k=0", f"runs_dir={tmp_path}", *overrides)
        table = describe([PlannedJob([], config, stage_of(config))])
        return float(re.findall(r"^qlora.*activations ([\d.]+)", table, re.M)[0])

    entities = ("stage=entities", "entities.step=label", "data=demo_companies", "data.labelled=20", "llm.adapter=tune")
    assert activations(*entities, "extract.max_text_tokens=64") > 2 * activations(
        "stage=qlora", "data=demo", "prompt.max_text_tokens=64"
    )
