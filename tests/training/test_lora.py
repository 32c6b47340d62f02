"""Adapters on tiny random models: they learn, contain no base weights, load to the same numbers, and resume after a kill."""

from dataclasses import replace
from functools import partial, wraps
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open

from findistill.errors import UserError
from findistill.llm.config import InProcessLLM
from findistill.llm.identity import request_identity
from findistill.models.causal_lm import find_adapter, load, load_base, merged
from findistill.training.config import QLoRA, Trainer
from findistill.training.loop import Session
from findistill.training.lora import AnswerWriter, Prompts, Tuned, WordClassifier, padded, tune
from findistill.training.recipe import Recipe

VOCABULARY, PAD, END = 64, 0, 1
WORDS = [[10], [11], [12]]
LONG = [[10], [11, 13], [11, 14, 15]]
TRAINER = Trainer(accelerator="cpu", weight_decay=0.0)
SETTINGS = QLoRA(quantization="none", rank=4, alpha=8, epochs=2, batch_size=8, learning_rate=2e-2, dropout=0.1)


@pytest.fixture(scope="module")
def causal(tmp_path_factory: pytest.TempPathFactory) -> str:
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("causal") / "llama"
    torch.manual_seed(0)
    LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY, hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, pad_token_id=PAD, eos_token_id=END, bos_token_id=2, initializer_range=0.3,
        )
    ).save_pretrained(folder)  # fmt: skip
    return str(folder)


@pytest.fixture(scope="module")
def seq2seq(tmp_path_factory: pytest.TempPathFactory) -> str:
    from transformers import T5Config, T5ForConditionalGeneration

    folder = tmp_path_factory.mktemp("seq2seq") / "t5"
    torch.manual_seed(0)
    T5ForConditionalGeneration(
        T5Config(
            vocab_size=VOCABULARY, d_model=64, d_kv=16, d_ff=64, num_layers=2, num_heads=4, pad_token_id=PAD, eos_token_id=END,
            decoder_start_token_id=PAD, dropout_rate=0.05, initializer_factor=1.0,
        )
    ).save_pretrained(folder)  # fmt: skip
    return str(folder)


def prompts(n: int, seed: int) -> Prompts:
    """Prompts whose label is their last token minus 20; the 3 to 8 tokens before it are noise."""
    rng = np.random.default_rng(seed)
    hard = np.arange(n) % 3
    rows = [[*rng.integers(30, VOCABULARY, rng.integers(3, 9)).tolist(), 20 + int(label)] for label in hard]
    return Prompts.of(rows, hard, 3, PAD)


def tuned(
    model: str, folder: Path, settings: QLoRA = SETTINGS, *, words: Any = WORDS, trainer: Trainer = TRAINER, **more: Any
) -> Tuned:
    session = Session(trainer, folder)
    answering = partial(WordClassifier, words=words, end=END)
    return tune(model, settings, prompts(96, 0), prompts(24, 1), answering, session, **{"dtype": "float32"} | more)


def numbers(model: torch.nn.Module) -> torch.Tensor:
    """(24, 3) label scores of the validation prompts."""
    module = WordClassifier(model, WORDS, END, Recipe(1, 1, 1e-3, 0, 0.0, 0.0, "val/loss", "32-true")).eval()
    with torch.inference_mode():
        return module(prompts(24, 1)[list(range(24))])


@pytest.mark.parametrize(
    ("family", "quantization"),
    [("causal", "nf4"), ("causal", "int8"), ("causal", "none"), ("seq2seq", "nf4"), ("seq2seq", "none")],
)
def test_it_learns_and_loads_to_the_same_numbers(
    family: str, quantization: str, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = request.getfixturevalue(family)
    modules: list[WordClassifier] = []
    setup = WordClassifier.setup
    monkeypatch.setattr(WordClassifier, "setup", lambda self, stage: (modules.append(self), setup(self, stage))[1])
    result = tuned(model, tmp_path, replace(SETTINGS, quantization=quantization, epochs=3))
    losses = [epoch["train/loss"] for epoch in result.history]
    assert losses[-1] < 0.8 * losses[0]
    assert result.history[result.best_epoch - 1]["val/macro_f1"] == max(epoch["val/macro_f1"] for epoch in result.history) > 0.5

    adapter = find_adapter(str(tmp_path))
    assert (adapter.base, adapter.quantization, adapter.dtype) == (model, quantization, "float32")
    here = numbers(modules[0].model.eval())
    again = numbers(load(model, adapter=str(tmp_path)))
    assert torch.allclose(here, again, atol=1e-3)
    assert not torch.allclose(again, numbers(load_base(model, "float32", quantization)), atol=1e-2)
    if quantization != "int8":  # int8 rounds activations too
        assert torch.allclose(again, numbers(merged(model, str(tmp_path))), atol=1e-2)


def test_only_the_adapter_is_saved(causal: str, tmp_path: Path) -> None:
    result = tuned(causal, tmp_path)
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} >= {"adapter_model.safetensors", "tuning.json"}
    assert not list(tmp_path.rglob("*.bin")) and not (tmp_path / "checkpoints").exists()
    with safe_open(tmp_path / "model" / "adapter_model.safetensors", "pt") as weights:
        names = list(weights.keys())
        assert all("lora_" in name for name in names) and len(names) == 8
        size = sum(weights.get_tensor(name).numel() for name in names)
    assert size == result.trainable == round(result.megabytes * 1e6 / 4) < result.parameters
    assert weights_of(tmp_path) == weights_of(tmp_path / "model")


def weights_of(folder: Path) -> object:
    """The adapter's part of the annotator's identity: by content, from a run folder or a model folder."""
    return request_identity(InProcessLLM(model="m", adapter=str(folder)))["adapter"]


class KilledError(Exception):
    pass


@pytest.mark.parametrize(
    ("family", "at", "accumulate"), [("causal", 4, 1), ("causal", 17, 1), ("causal", 5, 2), ("seq2seq", 17, 1)]
)
def test_a_killed_run_goes_on_to_the_same_weights(
    family: str, at: int, accumulate: int, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """12 batches per epoch: batch 4 is in the first, batch 17 in the second; there is a checkpoint every 2 or 3 steps."""
    model, settings = request.getfixturevalue(family), replace(SETTINGS, quantization="nf4", checkpoint_every=3)
    settings = replace(settings, checkpoint_every=3 if accumulate == 1 else 2)
    trainer = replace(TRAINER, accumulate_grad_batches=accumulate)
    whole = tuned(model, tmp_path / "whole", settings, trainer=trainer)
    step, steps = WordClassifier.training_step, [0]

    def killing(self: WordClassifier, batch: Any, index: int) -> torch.Tensor:
        steps[0] += 1
        if steps[0] > at:
            raise KilledError
        return step(self, batch, index)

    monkeypatch.setattr(WordClassifier, "training_step", killing)
    with pytest.raises(KilledError):
        tuned(model, tmp_path / "parts", settings, trainer=trainer)
    checkpoint = tmp_path / "parts" / "checkpoints" / "last.ckpt"
    state = torch.load(checkpoint, weights_only=True)
    assert all("lora_" in name for name in state["state_dict"])
    monkeypatch.setattr(WordClassifier, "training_step", step)
    parts = tuned(model, tmp_path / "parts", settings, trainer=trainer)

    ours, theirs = ((tmp_path / each / "model" / "adapter_model.safetensors").read_bytes() for each in ("parts", "whole"))
    assert ours == theirs
    apart = ("seconds", "train_seconds")
    assert [{k: v for k, v in epoch.items() if k not in apart} for epoch in parts.history] == [
        {k: v for k, v in epoch.items() if k not in apart} for epoch in whole.history
    ]
    assert parts.best_epoch == whole.best_epoch
    assert [path.name for path in (tmp_path / "parts").iterdir()] == ["model"]


@pytest.mark.parametrize("family", ["causal", "seq2seq"])
def test_scores_are_the_sums_over_each_words_tokens(family: str, request: pytest.FixtureRequest) -> None:
    model = load_base(request.getfixturevalue(family), "float32")
    module = WordClassifier(model, LONG, END, Recipe(1, 1, 1e-3, 0, 0.0, 0.0, "val/loss", "32-true")).eval()
    rows = prompts(6, 2)
    batch = rows[list(range(6))]
    with torch.inference_mode():
        scores, loss = module(batch), module.training_loss(batch)
        expected, spent = torch.zeros(6, 3), []
        for row in range(6):
            prompt = torch.tensor([rows.tokens[row].tolist()])
            for label, word in enumerate(LONG):
                answer = [*word, END]
                if model.config.is_encoder_decoder:
                    logits = model(input_ids=prompt, decoder_input_ids=torch.tensor([[PAD, *word]])).logits[0]
                else:
                    logits = model(input_ids=torch.cat([prompt, torch.tensor([word])], 1)).logits[0, -len(answer) :]
                of = logits.log_softmax(-1)[range(len(answer)), answer]
                expected[row, label] = of[:-1].sum()
                if label == rows.hard[row]:
                    spent += of.tolist()
    assert torch.allclose(scores, expected, atol=1e-4)
    assert float(loss) == pytest.approx(-np.mean(spent), abs=1e-4)


def test_the_vocabulary_is_computed_at_the_answers_positions_only(causal: str) -> None:
    model = load_base(causal, "float32")
    shapes = []
    model.lm_head.register_forward_hook(lambda _, inputs, output: shapes.append(tuple(output.shape)))
    WordClassifier(model, WORDS, END, Recipe(1, 1, 1e-3, 0, 0.0, 0.0, "val/loss", "32-true")).training_loss(
        prompts(6, 2)[list(range(6))]
    )
    assert shapes == [(6, 2, VOCABULARY)]  # the word and the end token


@pytest.mark.parametrize("family", ["causal", "seq2seq"])
def test_gradient_checkpointing_changes_no_weight(family: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    for name, on in (("with", True), ("without", False)):
        tuned(request.getfixturevalue(family), tmp_path / name, replace(SETTINGS, epochs=1, gradient_checkpointing=on))
    with_, without = (weights_of(tmp_path / name) for name in ("with", "without"))
    assert with_ == without


@pytest.mark.parametrize("family", ["causal", "seq2seq"])
def test_answers_of_several_tokens_are_what_the_model_then_writes(
    family: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """With answers of different lengths, `val/accuracy` is the share that greedy decoding reproduces token by token."""
    model = request.getfixturevalue(family)
    answers = [[10, END], [11, 13, 14, END], [12, 15, 16, 17, 18, END]]

    def answered(n: int, seed: int) -> Prompts:
        rows = prompts(n, seed)
        return Prompts.answered([rows.tokens[at].tolist() for at in range(n)], rows.hard, PAD)

    settings, trainer = replace(SETTINGS, epochs=20), replace(TRAINER, monitor="val/loss")
    rows = answered(24, 1)
    answering = partial(AnswerWriter, answers=answers)
    result = tune(model, settings, answered(96, 0), rows, answering, Session(trainer, tmp_path), dtype="float32")
    best = result.history[result.best_epoch - 1]
    assert best["val/loss"] == min(epoch["val/loss"] for epoch in result.history) < 0.5 * result.history[0]["val/loss"]
    lm = load(model, "float32", str(tmp_path / "model"))
    right = []
    for at in range(24):
        prompt = torch.tensor([rows.tokens[at].tolist()])
        expected = answers[rows.hard[at]]
        with torch.inference_mode():
            output = lm.generate(prompt, max_new_tokens=len(expected), do_sample=False, eos_token_id=END, pad_token_id=PAD)[0]
        right.append(output[-len(expected) :].tolist() == expected)
    assert np.mean(right) == pytest.approx(best["val/accuracy"], abs=1e-6) and np.mean(right) > 0.5


def test_few_prompts_are_gone_through_several_times(causal: str, tmp_path: Path) -> None:
    once = tuned(causal, tmp_path / "once")
    often = tuned(causal, tmp_path / "often", replace(SETTINGS, min_steps=72))  # two epochs of twelve batches are 24 steps
    assert len(often.history) == len(once.history) == 2
    assert often.history[-1]["train/loss"] < 0.8 * once.history[-1]["train/loss"]


def test_without_validation_rows_the_last_epoch_is_kept(causal: str, tmp_path: Path) -> None:
    session = Session(TRAINER, tmp_path)
    answering = partial(WordClassifier, words=WORDS, end=END)
    result = tune(causal, SETTINGS, prompts(24, 0), prompts(0, 1), answering, session, dtype="float32")
    assert result.best_epoch == 2 and (tmp_path / "model" / "adapter_config.json").exists()


def test_a_loss_that_is_not_finite_stops_the_run_with_its_step(
    causal: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loss, calls = WordClassifier.training_loss, []

    def broken(self: WordClassifier, batch: Any) -> torch.Tensor:
        calls.append(0)
        return loss(self, batch) * (float("nan") if len(calls) == 3 else 1)

    monkeypatch.setattr(WordClassifier, "training_loss", broken)
    with pytest.raises(UserError, match=r"nan at optimizer step 2 .*\n.*llm.dtype=float32"):
        tuned(causal, tmp_path)


def test_layers_that_are_not_there_are_refused(causal: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"qlora\.target_modules"):
        tuned(causal, tmp_path, replace(SETTINGS, target_modules=["elsewhere"]))


def test_an_adapter_of_another_model_is_refused(causal: str, seq2seq: str, tmp_path: Path) -> None:
    tuned(causal, tmp_path, replace(SETTINGS, epochs=1))
    with pytest.raises(UserError, match="was tuned on"):
        load(seq2seq, adapter=str(tmp_path))
    with pytest.raises(UserError, match="has no LoRA adapter"):
        load(causal, adapter=str(tmp_path / "nothing"))


def test_padding() -> None:
    ids, known = padded(LONG)
    assert ids.tolist() == [[10, 0, 0], [11, 13, 0], [11, 14, 15]] and known.sum(1).tolist() == [1, 2, 3]
    batch = prompts(4, 0)[[2, 0]]
    assert batch["hard"].tolist() == [2, 0] and batch["input_ids"][:, -1].tolist() == [22, 20]
    assert ((batch["input_ids"] != PAD) == batch["attention_mask"].bool()).all()


@pytest.mark.slow
def test_smollm2_in_nf4(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real model: its loss falls, its adapter loads to the same logits, and all saved files are under 5% of the base."""
    from findistill.llm.in_process import InProcessEngine
    from findistill.llm.prompts import Template
    from findistill.models.weights import locate

    model, names = "embedded:smollm2", ("negative", "neutral", "positive")
    engine = InProcessEngine(model=model)
    texts = ["Profit fell and the board warns of losses.", "The annual meeting is in May.", "Orders rose by half."] * 8
    ids, words = engine.encode(texts, Template("Classify.", dict(zip(names, names, strict=True))))
    rows = Prompts.of(ids, np.arange(len(texts)) % 3, 3, engine.tokenizer.eos_token_id)
    sizes, modules = [], []
    init, on_batch_end = WordClassifier.__init__, WordClassifier.on_train_batch_end
    # With the signature of the original: Lightning reads it to save the hyperparameters.
    init_with_record = wraps(init)(lambda self, *a, **b: (init(self, *a, **b), modules.append(self))[0])
    monkeypatch.setattr(WordClassifier, "__init__", init_with_record)

    def measure(self: WordClassifier, *batch: Any) -> None:
        on_batch_end(self, *batch)
        sizes.extend(path.stat().st_size for path in tmp_path.glob("checkpoints/last.ckpt"))

    monkeypatch.setattr(WordClassifier, "on_train_batch_end", measure)
    settings = QLoRA(epochs=3, batch_size=8, checkpoint_every=1, learning_rate=1e-3)
    session = Session(TRAINER, tmp_path)
    answering = partial(WordClassifier, words=words, end=engine.tokenizer.eos_token_id)
    result = tune(model, settings, rows, rows, answering, session, dtype="auto")
    losses = [epoch["train/loss"] for epoch in result.history]
    assert losses[-1] < 0.7 * losses[0]
    base = sum(path.stat().st_size for path in Path(locate(model)).glob("*.safetensors"))
    assert sizes and max(sizes) < 0.05 * base
    assert (tmp_path / "model" / "adapter_model.safetensors").stat().st_size < 0.05 * base

    batch = rows[[0, 1, 2]]
    with torch.inference_mode():
        here = modules[0].model.eval()(**{name: batch[name] for name in ("input_ids", "attention_mask")}).logits
        again = load(model, adapter=str(tmp_path))(**{name: batch[name] for name in ("input_ids", "attention_mask")}).logits
    assert torch.allclose(here, again, atol=1e-3)
