"""Exported files against torch: a 2-layer, 128-wide BERT with MiniLM's tokenizer, trained for a few steps."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from transformers import AutoTokenizer, BertConfig, BertModel

from findistill.config.compose import data_config
from findistill.data.loading import load
from findistill.errors import UserError
from findistill.inference import onnx_model
from findistill.inference.latency import measure
from findistill.inference.onnx_export import (
    Classifier,
    exported_tokenizer,
    file_name,
    quantise,
    quantise_tables,
    save_companions,
    shares,
    to_onnx,
)
from findistill.inference.predict import predict
from findistill.models.config import Encoder
from findistill.models.encoders import load as load_encoder
from findistill.models.encoders import open_trained, save
from findistill.models.forward import threads
from findistill.models.heads import GRID, Scale, Thresholds
from findistill.models.tokens import tokenise
from findistill.models.weights import locate
from findistill.training.config import Trainer
from findistill.training.loop import Session
from findistill.training.trainer import fit

LENGTH = 32


@pytest.fixture(scope="module")
def texts() -> list[str]:
    """The demo test set, and one text longer than the model's maximum length."""
    rows = load(data_config("demo")).split("test")["text"].tolist()
    return [*rows, "profit " * 100]


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory, labels, corpus) -> Path:
    """The model folder of a 2-layer, 128-wide student."""
    folder = tmp_path_factory.mktemp("student")
    torch.manual_seed(0)
    shape = BertConfig(
        hidden_size=128, num_hidden_layers=2, num_attention_heads=2, intermediate_size=512, initializer_range=0.05
    )  # fmt: skip
    BertModel(shape).save_pretrained(folder / "parent")
    AutoTokenizer.from_pretrained(locate("embedded:minilm_l6")).save_pretrained(folder / "parent")
    encoder = Encoder(name="s", model=str(folder / "parent"), epochs=3, batch_size=16, learning_rate=1e-3, max_length=LENGTH)
    session = Session(Trainer(accelerator="cpu", precision="32"), folder)
    trained = fit(encoder, None, labels, corpus.train, corpus.validation, session)
    return trained.model_dir


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, student: Path, corpus) -> Path:
    """A folder with the three exported files of that student."""
    folder = tmp_path_factory.mktemp("onnx")
    model, tokenizer = open_trained(student)
    of_torch = Classifier(model)
    save_companions(folder, exported_tokenizer(tokenizer, LENGTH), of_torch.labels, "hub/model")
    plain = folder / "model.onnx"
    to_onnx(of_torch, plain, 18)
    assert model.config._attn_implementation == "sdpa"  # the export left the torch model unchanged
    quantise(plain, folder / file_name("int8_dynamic"))
    calibration = onnx_model.open_onnx(plain).single_inputs(corpus.train.texts)
    quantise(plain, folder / file_name("int8_static"), calibration)
    return folder


def logits_of_torch(student: Path, texts: list[str]) -> np.ndarray:
    """Logits by plain transformers, padded by its tokenizer in one batch."""
    model, tokenizer = open_trained(student)
    with torch.inference_mode():
        return model(**tokenizer(texts, truncation=True, padding=True, return_tensors="pt")).logits.numpy()


def test_float32_logits_are_those_of_torch(student: Path, exported: Path, texts: list[str]) -> None:
    opened = onnx_model.open_onnx(exported / "model.onnx")
    logits, probabilities = onnx_model.outputs(opened.run, opened.tokens(texts), batch_size=16)
    expected = logits_of_torch(student, texts)
    assert len(texts) > 50 and logits.shape == (len(texts), 3)
    np.testing.assert_allclose(logits, expected, atol=1e-4)
    assert probabilities.dtype == np.float64
    np.testing.assert_allclose(probabilities, torch.tensor(expected).double().softmax(-1).numpy(), atol=1e-4)


@pytest.mark.parametrize("variant", ["int8_dynamic", "int8_static"])
def test_8_bit_files_are_small_and_keep_the_labels(variant: str, student: Path, exported: Path, texts: list[str]) -> None:
    trainer = Trainer(accelerator="cpu")
    of_torch = predict(student, texts, trainer)
    prediction = onnx_model.predict(exported / file_name(variant), texts, trainer)
    agreement = np.mean([a == b for a, b in zip(prediction.predicted, of_torch.predicted, strict=True)])
    assert agreement >= 0.97
    assert prediction.probabilities != pytest.approx(of_torch.probabilities, abs=1e-7)  # the weights are 8-bit
    size = (exported / file_name(variant)).stat().st_size
    assert size < 0.28 * (exported / "model.onnx").stat().st_size
    operators = {node.op_type for node in onnx.load(exported / file_name(variant)).graph.node}
    assert ("MatMulInteger" if variant == "int8_dynamic" else "QuantizeLinear") in operators


def test_predict_gives_what_the_folder_of_torch_weights_gives(student: Path, exported: Path, texts: list[str]) -> None:
    for trainer in (Trainer(accelerator="cpu"), Trainer(accelerator="cpu", max_length=8)):
        of_torch = predict(student, texts, trainer)
        prediction = onnx_model.predict(exported / "model.onnx", texts, trainer)
        assert prediction.labels == of_torch.labels and prediction.predicted == of_torch.predicted
        np.testing.assert_allclose(prediction.probabilities, of_torch.probabilities, atol=1e-5)
    assert onnx_model.predict(exported / "model.onnx", [], trainer).probabilities.shape == (0, 3)


def test_the_tokenizer_alone_gives_the_same_ids(student: Path, exported: Path, texts: list[str]) -> None:
    _, tokenizer = open_trained(student)
    opened = onnx_model.open_onnx(exported / "model.onnx")
    theirs = tokenise(tokenizer, texts, LENGTH)
    rows = opened.tokenizer.encode_batch(texts)
    assert len({len(row.ids) for row in rows}) == 1 and len(rows[-1].ids) == LENGTH
    for index, row in enumerate(rows):
        assert [i for i, real in zip(row.ids, row.attention_mask, strict=True) if real] == theirs[index].tolist()


def test_nothing_of_this_machine_is_in_the_files(exported: Path) -> None:
    for path in exported.glob("*.onnx"):
        content = path.read_bytes()
        assert b"site-packages" not in content and str(Path.home()).encode() not in content
        assert b"findistill/" not in content and b".py" not in content


@pytest.mark.parametrize(
    "names", [("negative", "neutral", "positive"), ("positive", "negative"), ("neutral", "positive", "negative")]
)
def test_a_scalar_head_is_read_in_the_graph_as_in_numpy(names: tuple[str, ...]) -> None:
    scale = Scale.of(names)
    rng = np.random.default_rng(0)
    for _ in range(30):
        low, high = sorted(rng.choice(GRID, 2, replace=False))
        cuts = Thresholds(float(low), float(high if len(names) == 3 else low))
        scores = np.concatenate([rng.uniform(-1, 1, 50), [-1.0, low, high, 1.0]])
        np.testing.assert_allclose(shares(torch.tensor(scores), scale, cuts).numpy(), scale.shares(scores, cuts), atol=1e-9)


def test_a_scalar_student_is_exported_with_its_thresholds(encoder, labels, corpus, tmp_path: Path) -> None:
    texts = corpus.validation.texts
    model, tokenizer = load_encoder(encoder, labels.names, scalar=True, seed=0)
    with torch.inference_mode():
        scores = model.eval()(**tokenizer(texts, padding=True, return_tensors="pt")).logits[:, 0].tanh().numpy()
    low, high = np.quantile(scores, [0.3, 0.6])
    save(tmp_path / "model", model, tokenizer, labels.names, 16, Thresholds(float(low), float(high)))

    model, tokenizer = open_trained(tmp_path / "model")
    of_torch = Classifier(model)
    save_companions(tmp_path / "onnx", exported_tokenizer(tokenizer, 16), of_torch.labels, "hub/model")
    to_onnx(of_torch, tmp_path / "onnx" / "model.onnx", 18)
    trainer = Trainer(accelerator="cpu")
    expected = predict(tmp_path / "model", texts, trainer)
    prediction = onnx_model.predict(tmp_path / "onnx" / "model.onnx", texts, trainer)
    assert prediction.labels == expected.labels == labels.names and prediction.predicted == expected.predicted
    assert set(prediction.predicted) == set(labels.names)
    np.testing.assert_allclose(prediction.probabilities, expected.probabilities, atol=1e-5)


def lookup(table: np.ndarray) -> onnx.ModelProto:
    """A graph that looks up rows of `table`."""
    node = helper.make_node("Gather", ["table", "ids"], ["rows"])
    takes = [helper.make_tensor_value_info("ids", TensorProto.INT64, ["n"])]
    gives = [helper.make_tensor_value_info("rows", TensorProto.FLOAT, ["n", table.shape[1]])]
    graph = helper.make_graph([node], "g", takes, gives, [numpy_helper.from_array(table, "table")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


@given(st.integers(0, 10_000), st.integers(16, 60), st.integers(1, 9), st.floats(1e-3, 1e3))
@settings(max_examples=25, deadline=None)
def test_a_table_is_off_by_half_a_step_of_its_own_row(seed: int, rows: int, width: int, spread: float) -> None:
    rng = np.random.default_rng(seed)
    table = (rng.normal(size=(rows, width)) * spread ** rng.normal(size=(rows, 1))).astype(np.float32)
    table[0] = 0
    graph = quantise_tables(lookup(table))
    onnx.checker.check_model(graph, full_check=True)
    assert {each.data_type for each in graph.graph.initializer if each.dims[1] == width} <= {TensorProto.INT8, TensorProto.FLOAT}
    from onnxruntime import InferenceSession

    ids = np.arange(rows)
    [actual] = InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, {"ids": ids})
    step = np.abs(table).max(axis=1, keepdims=True) / 127
    assert (np.abs(actual - table) <= 0.501 * step).all() and (actual[0] == 0).all()


def test_small_tables_stay_as_they_are() -> None:
    graph = lookup(np.ones((2, 4), dtype=np.float32))
    assert quantise_tables(graph).SerializeToString() == lookup(np.ones((2, 4), dtype=np.float32)).SerializeToString()


def test_a_file_of_another_exporter_gives_logits_only(exported: Path, texts: list[str], tmp_path: Path) -> None:
    graph = onnx.load(exported / "model.onnx")
    del graph.graph.output[1]
    onnx.save(graph, tmp_path / "other.onnx")
    for name in ("labels.json", "tokenizer.json"):
        (tmp_path / name).write_bytes((exported / name).read_bytes())
    trainer = Trainer(accelerator="cpu")
    ours, other = (onnx_model.predict(path, texts[:5], trainer) for path in (exported / "model.onnx", tmp_path / "other.onnx"))
    np.testing.assert_allclose(ours.probabilities, other.probabilities, atol=1e-9)


def test_what_is_missing_or_unreadable_is_named(exported: Path, tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    file.write_text("no ONNX at all")
    for name in ("labels.json", "tokenizer.json"):
        with pytest.raises(UserError, match=f"there is no {name} beside it"):
            onnx_model.open_onnx(file)
        (tmp_path / name).write_bytes((exported / name).read_bytes())
    with pytest.raises(UserError, match=r"model\.onnx cannot be read as ONNX"):
        onnx_model.open_onnx(file)
    file.write_bytes((exported / "model.onnx").read_bytes()[:1000])
    with pytest.raises(UserError, match=r"model\.onnx cannot be read as ONNX"):
        onnx_model.open_onnx(file)
    onnx.save(lookup(np.ones((20, 3), dtype=np.float32)), file)
    with pytest.raises(UserError, match="has the inputs ids and outputs rows; a text classifier has"):
        onnx_model.open_onnx(file)
    file.write_bytes((exported / "model.onnx").read_bytes())
    for content, message in (
        ('["a", "b"]', "returns 3 probabilities, but .* has 2 labels"),
        ("{}", "must be a list"),
        ("[", "is not JSON"),
    ):
        (tmp_path / "labels.json").write_text(content)
        with pytest.raises(UserError, match=message):
            onnx_model.open_onnx(file)


def test_which_file_a_folder_stands_for(exported: Path, student: Path, tmp_path: Path) -> None:
    assert onnx_model.find(str(exported)) == exported / "model.onnx"
    assert onnx_model.find(str(exported / "model_int8_static.onnx")) == exported / "model_int8_static.onnx"
    assert onnx_model.find(str(student)) is None and onnx_model.find(str(student.parent)) is None
    assert onnx_model.find("owner/name") is None and onnx_model.find("embedded:minilm_l6") is None
    (tmp_path / "onnx").mkdir()
    (tmp_path / "onnx" / "one.onnx").touch()
    assert onnx_model.find(str(tmp_path)) == tmp_path / "onnx" / "one.onnx"
    (tmp_path / "onnx" / "two.onnx").touch()
    with pytest.raises(UserError, match="several ONNX files"):
        onnx_model.find(str(tmp_path))
    with pytest.raises(UserError, match="no such file"):
        onnx_model.find(str(tmp_path / "three.onnx"))


def test_a_tokenizer_in_python_is_refused() -> None:
    class Slow:
        is_fast = False

    with pytest.raises(UserError, match=r"Slow, is written in Python and has no tokenizer\.json"):
        exported_tokenizer(Slow(), 16)  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_model_that_cannot_be_traced_is_named(student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = open_trained(student)
    original = model.forward

    def forward(**inputs):
        output = original(**inputs)
        if float(output.logits.sum()) > 0:  # depends on values, so that it cannot be exported to a graph
            output.logits = 2 * output.logits
        return output

    monkeypatch.setattr(model, "forward", forward)
    message = r"^BertForSequenceClassification cannot be exported to ONNX with export.opset=18: [^\n\x1b]{20,}$"
    with pytest.raises(UserError, match=message):
        to_onnx(Classifier(model), tmp_path / "model.onnx", 18)
    assert model.config._attn_implementation == "sdpa" and not any(tmp_path.iterdir())


def test_a_model_of_one_output_is_no_classifier(tiny: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(tiny, num_labels=1, id2label={0: "score"})
    with pytest.raises(UserError, match="is not a classifier"):
        Classifier(model)


def test_speeds_are_measured_on_the_threads_asked_for(exported: Path) -> None:
    before = torch.get_num_threads()
    batches = []

    def classify(batch) -> None:
        batches.append((len(batch), torch.get_num_threads()))

    with threads(2):
        latencies = measure({"a": classify, "b": classify}, ["one", "two"])
    assert torch.get_num_threads() == before and {number for _, number in batches} == {2}
    assert {size for size, _ in batches} == {1, 32} and set(latencies) == {"a", "b"}
    assert 0 < latencies["a"].p50_ms <= latencies["a"].p95_ms and latencies["a"].texts_per_s > 0
    latency = onnx_model.latency(exported / "model.onnx", ["one", "two"], Trainer())
    assert 0 < latency["latency/p50_ms"] <= latency["latency/p95_ms"] and latency["throughput/texts_per_s"] > 0


def test_labels_are_a_plain_list(exported: Path) -> None:
    assert json.loads((exported / "labels.json").read_text()) == ["negative", "neutral", "positive"]


def test_a_tokenizer_that_is_not_the_graphs_is_named(exported: Path, tmp_path: Path) -> None:
    for name in ("model.onnx", "labels.json", "tokenizer.json"):
        (tmp_path / name).write_bytes((exported / name).read_bytes())
    state = json.loads((tmp_path / "tokenizer.json").read_text("utf-8"))
    state["model"]["vocab"]["profit"] = 40_000  # the graph's vocabulary is 30,522
    (tmp_path / "tokenizer.json").write_text(json.dumps(state), "utf-8")
    with pytest.raises(UserError, match="cannot run on the tokens"):
        onnx_model.predict(tmp_path / "model.onnx", ["profit"], Trainer(accelerator="cpu"))
    (tmp_path / "tokenizer.json").write_text('{"version": ')
    with pytest.raises(UserError, match=r"tokenizer\.json cannot be read"):
        onnx_model.open_onnx(tmp_path / "model.onnx")
