import math
from dataclasses import replace

import pytest
import torch

from findistill.errors import UserError
from findistill.llm.engine import Answer, Sampling, Task
from findistill.llm.in_process import InProcessEngine, _draw
from findistill.llm.prompts import Demonstration, Template
from findistill.runs.weights import locate

SENTIMENT = Template("Classify the text.", {"negative": "negative", "neutral": "neutral", "positive": "positive"})
MARKET = replace(SENTIMENT, words={"negative": "bearish", "neutral": "neutral", "positive": "bullish"})
COT = replace(SENTIMENT, rationale_header="Opinion:")
SHOWN = (Demonstration("Orders collapsed.", "negative"), Demonstration("The company is based in Oslo.", "neutral"))
TASKS = [
    Task("a", "Profit doubled.", SHOWN, (0,)),
    Task("b", "Profit fell by half, and the board withdrew its guidance for the year.", SHOWN, (0,)),
    Task("c", "The annual meeting is in May.", SHOWN, (0,)),
]
SAMPLING = Sampling(0.5, 0, 1)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> InProcessEngine:
    """A tiny random model with SmolLM2's tokenizer: what it says is noise, but the same noise however it is asked."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, set_seed

    folder = tmp_path_factory.mktemp("tiny")
    tokenizer = AutoTokenizer.from_pretrained(locate("embedded:smollm2"))
    tokenizer.save_pretrained(folder)
    set_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        eos_token_id=tokenizer.eos_token_id, bos_token_id=tokenizer.bos_token_id, initializer_range=0.5,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    return InProcessEngine(str(folder), dtype="float32")


def with_(engine: InProcessEngine, **settings: object) -> InProcessEngine:
    """The same engine, its loaded model shared, under other settings."""
    other = InProcessEngine.__new__(InProcessEngine)
    other.__dict__.update(engine.__dict__, **settings)
    return other


def by_id(engine: InProcessEngine, tasks: list[Task], template: Template) -> dict[tuple[str, int], Answer]:
    return {(a.id, a.sample): a for batch in engine.answers(tasks, template, SAMPLING) for a in batch}


@pytest.mark.parametrize("template", [SENTIMENT, MARKET])
@pytest.mark.parametrize("chat", [True, False])
def test_scores_are_the_words_log_probabilities(engine: InProcessEngine, template: Template, chat: bool) -> None:
    found = by_id(with_(engine, chat=chat), TASKS, template)
    tokenizer, model = engine._tokenizer, engine._model
    task = TASKS[1]
    if chat:
        prompt = tokenizer.apply_chat_template(template.messages(SHOWN, task.text), add_generation_prompt=True, tokenize=False)
        words = list(template.words.values())
    else:
        prompt, words = template.plain(SHOWN, task.text), [f" {word}" for word in template.words.values()]
    sums = []
    for word in words:
        start, ids = len(tokenizer(prompt).input_ids), tokenizer(prompt + word, return_tensors="pt").input_ids
        with torch.inference_mode():
            steps = model(ids).logits[0].log_softmax(-1)
        sums.append(sum(steps[at - 1, ids[0, at]].item() for at in range(start, ids.shape[1])))
    expected = torch.tensor(sums).log_softmax(0).tolist()
    assert list(found["b", 0].log_probabilities.values()) == pytest.approx(expected, abs=1e-3)
    assert found["b", 0].tokens_in == len(tokenizer(prompt).input_ids)


def test_batches_do_not_change_scores(engine: InProcessEngine) -> None:
    together = by_id(engine, TASKS, MARKET)
    alone = by_id(with_(engine, batch_tokens=1), list(reversed(TASKS)), MARKET)
    for key, answer in together.items():
        assert sum(math.exp(value) for value in answer.log_probabilities.values()) == pytest.approx(1)
        assert answer.log_probabilities == pytest.approx(alone[key].log_probabilities, abs=1e-3)


@pytest.mark.parametrize("template", [SENTIMENT, MARKET])
def test_a_cached_prefix_does_not_change_scores(
    engine: InProcessEngine, template: Template, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = engine._prompts(TASKS, template)
    plain = by_id(engine, TASKS, template)
    assert engine._shared(prompts) == 0
    monkeypatch.setattr("findistill.llm.in_process.WORTH_CACHING", 16)
    assert 16 < engine._shared(prompts) < min(map(len, prompts))
    for key, answer in by_id(engine, TASKS, template).items():
        assert answer.log_probabilities == pytest.approx(plain[key].log_probabilities, abs=1e-3)


def test_the_embedded_model_reads_the_obvious() -> None:
    found = by_id(InProcessEngine("embedded:smollm2"), TASKS[:2], SENTIMENT)
    gap = {key: a.log_probabilities["positive"] - a.log_probabilities["negative"] for key, a in found.items()}
    assert gap["a", 0] > gap["b", 0]


def test_too_long_prompts_lose_whole_demonstrations_farthest_first_then_the_texts_end(
    engine: InProcessEngine, caplog: pytest.LogCaptureFixture
) -> None:
    def prompt(limit: int) -> str:
        return engine._tokenizer.decode(with_(engine, max_prompt_tokens=limit)._prompts([TASKS[1]], SENTIMENT)[0])

    full = prompt(10_000)
    size = len(engine._tokenizer(full).input_ids)
    fewer = prompt(size - 1)
    assert "Orders collapsed" in full and "Orders collapsed" not in fewer and "Oslo" in fewer
    with caplog.at_level("INFO"):
        cut = prompt(41)
    assert "Oslo" not in cut and "Profit fell" in cut and "guidance for the year" not in cut
    assert len(engine._tokenizer(cut).input_ids) <= 41
    assert "1 prompts lost demonstrations, 1 texts were cut" in caplog.text
    with pytest.raises(UserError, match=r"llm.max_prompt_tokens=10"):
        prompt(10)


def test_long_texts_are_cut_to_their_share(engine: InProcessEngine) -> None:
    task = Task("a", "rise " * 500, (), (0,))
    ids = engine._prompts([task], replace(SENTIMENT, max_text_tokens=16))[0]
    assert engine._tokenizer.decode(ids).count("rise") in (15, 16)


@pytest.mark.parametrize("chat", [True, False])
def test_samples_with_a_rationale_depend_on_their_own_seed_only(engine: InProcessEngine, chat: bool) -> None:
    tasks = [replace(task, samples=(0, 1)) for task in TASKS[:2]]
    together = by_id(with_(engine, chat=chat), tasks, COT)
    alone = by_id(with_(engine, chat=chat), [replace(tasks[1], samples=(1,))], COT)
    assert alone["b", 1] == replace(together["b", 1], seconds=alone["b", 1].seconds)
    assert len({answer.rationale for answer in together.values()}) == 4
    for answer in together.values():
        assert answer.raw == f"Opinion: {answer.rationale}\nSentiment: {answer.label}"
        assert answer.label in COT.words


def test_labels_are_drawn_at_the_temperature() -> None:
    row = {"negative": math.log(0.1), "neutral": math.log(0.2), "positive": math.log(0.7)}
    labels = [_draw(row, 0.5, str(seed)) for seed in range(4000)]
    assert labels.count("positive") / 4000 == pytest.approx(0.49 / 0.54, abs=0.02)
    assert _draw(row, 0, "any") == "positive"


def test_mistakes(engine: InProcessEngine, tmp_path: object) -> None:
    with pytest.raises(UserError, match=r"llm.dtype=int3"):
        InProcessEngine("embedded:smollm2", dtype="int3")
    with pytest.raises(UserError, match="cannot be loaded"):
        list(InProcessEngine(str(tmp_path)).answers(TASKS, SENTIMENT, SAMPLING))
