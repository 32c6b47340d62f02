"""Model sizes and memory estimates, without weights and without a hub."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from findistill.core import hardware
from findistill.errors import UserError
from findistill.llm.config import EndpointLLM, InProcessLLM
from findistill.models import memory as sizes
from tests.fixtures.composing import composed

XL = "google/flan-t5-xl"


@pytest.mark.parametrize(
    ("preset", "millions"),
    [
        ("flan_t5_small", 77.0),
        ("flan_t5_base", 248),
        ("flan_t5_large", 783),
        ("flan_t5_xl", 2850),
        ("llama2_7b", 6738),
        ("llama31_8b_in_process", 8030),
        ("vllm_llama31_70b", 70554),
        ("smollm2", 134.5),
    ],
)
def test_presets_have_their_published_sizes(preset: str, millions: float) -> None:
    assert sizes.size(composed(f"llm={preset}").llm.model).parameters / 1e6 == pytest.approx(millions, rel=0.002)


def test_weights_of_xl() -> None:
    size = sizes.size(XL)
    assert sizes.inference(size, 4096).weights == pytest.approx(5.70, abs=0.01)  # two bytes each
    assert sizes.inference(size, 4096, "32").weights == pytest.approx(11.40, abs=0.01)
    shrunk = sizes.inference(size, 4096, quantisation="nf4").weights
    assert shrunk == pytest.approx((2718 - 503) * 0.516 / 1e3 + 503 * 4 / 1e3 + 132 * 2 / 1e3, abs=0.02)  # wo in float32
    assert shrunk < sizes.inference(size, 4096, quantisation="int8").weights < 5.7


def test_training_a_small_model_is_near_what_was_measured() -> None:
    size = sizes.size("embedded:smollm2")
    assert sizes.training(size, 16, 64, "bf16").total == pytest.approx(2.6, rel=0.2)  # measured on a CPU, complete process
    assert sizes.training(size, 16, 64, "32", "nf4").total == pytest.approx(3.3, rel=0.2)
    assert sizes.training(size, 16, 133, "bf16", read=sizes.LABEL).total == pytest.approx(3.7, rel=0.2)
    assert sizes.lora_parameters(size, 16) == 30 * 16 * ((576 + 576) + (576 + 192))  # 3 key heads for 9 query heads
    assert sizes.lora_parameters(sizes.size(XL), 16) == 72 * 2 * 16 * (2048 + 2048)  # what peft creates for q and v


@given(batch=st.integers(1, 512), length=st.integers(8, 512), precision=st.sampled_from(["bf16", "32"]), room=st.floats(1, 200))
def test_more_needs_more_and_the_largest_batch_fits(batch: int, length: int, precision: str, room: float) -> None:
    size = sizes.size("google/flan-t5-large")

    def need(batch: int, **more: object) -> float:
        return sizes.training(size, batch, length, precision, **more).total  # type: ignore[arg-type]

    assert need(batch) < need(batch + 1) and need(1) < need(1, lora_rank=None)
    assert need(batch, checkpointing=True) < need(batch)
    assert need(batch, quantisation="nf4") < need(batch)
    batch_size = sizes.largest(lambda n: sizes.training(size, n, length, precision), room)
    assert batch_size == 0 or need(batch_size) <= sizes.SAFE * room
    assert batch_size == 2**16 or need(max(1, 2 * batch_size)) > sizes.SAFE * room


def test_what_cannot_fit_is_refused_with_what_would(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "llm_precision", lambda: "bf16")
    sizes._logged.clear()
    llm = InProcessLLM(name="flan_t5_xl", model=XL)
    with caplog.at_level("INFO"):
        assert sizes.check_memory(llm, 40) is sizes.size(XL)
    assert "flan_t5_xl: 2,850 M parameters" in caplog.text
    with pytest.raises(UserError, match=r"llm=flan_t5_xl needs about .* but only 7.0 GB are available: use a smaller model"):
        sizes.check_memory(llm, 7)
    llm.batch_tokens = 100_000
    with pytest.raises(UserError, match=r"set llm.batch_tokens=32768"):
        sizes.check_memory(llm, 18)
    with pytest.raises(UserError, match=r"set llm.batch_tokens=8192"):  # the KV cache of four times as many tokens
        sizes.check_memory(llm, 18, sampling=True)


def test_a_sweep_logs_a_model_once_whatever_is_free(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes._logged.clear()
    free = iter((60.0, 58.5, 41.0))
    monkeypatch.setattr(hardware, "free_memory_gb", lambda: next(free))
    with caplog.at_level("INFO"):
        for _ in range(3):
            sizes.check_memory(InProcessLLM(name="flan_t5_base", model="google/flan-t5-base"), None)
    assert [record.getMessage().partition(" M")[0] for record in caplog.records] == ["flan_t5_base: 248"]


def test_what_is_not_here_has_no_size() -> None:
    assert sizes.check_memory(EndpointLLM(name="gpt35_turbo", model="gpt-3.5-turbo"), 1) is None
    assert sizes.check_memory(InProcessLLM(name="mine", model="nobody/nothing"), 1) is None
    with pytest.raises(UserError, match="nobody/nothing cannot be loaded"):
        sizes.size("nobody/nothing")


def test_free_memory_is_some_of_what_there_is() -> None:
    assert 0.1 < hardware.free_memory_gb() < 1e5
