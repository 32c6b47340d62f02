"""Model cards: hub metadata that huggingface_hub reads back unchanged, for every kind of model folder, offline."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from findistill.config.expand import expand
from findistill.methods.entities.card import write_entities_card
from findistill.methods.export.card import write_export_card
from findistill.methods.finetune.card import write_classifier_card
from findistill.methods.qlora.card import write_adapter_card
from findistill.report.licences import Provenance, Source, licence_of, remarks, strictest
from findistill.report.model_card import hub_id
from tests.fixtures.composing import composed
from tests.methods.cards import scores, valid_model_card

METRICS = {
    f"test/{name}{end}": value + add
    for name, value in {"accuracy": 0.81234567, "macro_f1": 0.79, "weighted_f1": 0.8, "f1": 0.61}.items()
    for end, add in {"": 0.0, "_lo": -0.05, "_hi": 0.05}.items()
} | {"test/n": 300.0, "time/train_s": 90.0, "data/kept": 400.0}  # fmt: skip
LABELS = ("negative", "neutral", "positive")
LEARNT = Provenance(
    [
        Source("texts", "phrasebank", "CC BY-NC-SA 3.0", "takala/financial_phrasebank", "Malo et al. (2014)"),
        Source("annotator", "HuggingFaceTB/SmolLM2-135M-Instruct", "apache-2.0", "HuggingFaceTB/SmolLM2-135M-Instruct"),
    ],
    ["takala/financial_phrasebank"], ["near-duplicates of test rows: 3 in train", "12 posts cut to 2,000 characters"], 0.25,
    {"annotate": 30.0},
)  # fmt: skip


def classifier(folder: Path, *words: str) -> None:
    write_classifier_card(folder, expand(composed("data=demo", *words)), LABELS, 1234, LEARNT, METRICS)


def adapter(folder: Path) -> None:
    write_adapter_card(folder, composed("stage=qlora", "data=demo"), LABELS, 60, LEARNT, METRICS)


def entities(folder: Path, model: str, **usage: Any) -> None:
    config = composed("stage=entities", "data=demo_companies", f"entities.model={model}", "entities.source=human")
    write_entities_card(folder, config, ("company",), 60, LEARNT, METRICS, **usage)


def onnx(folder: Path) -> None:
    measured = {name.replace("test/", "export/int8_dynamic/"): value for name, value in METRICS.items()}
    config = composed("stage=export", "data=demo", "evaluate.model=ProsusAI/finbert", "export.quantize=[dynamic]")
    files = {"int8_dynamic": Path("model_int8_dynamic.onnx")}
    write_export_card(folder, config, LABELS, files, "| | MB |\n| --- | --- |", 300, LEARNT, measured)


KINDS: dict[str, Callable[[Path], None]] = {
    "teacher": lambda folder: classifier(folder, "stage=teacher"),
    "linear teacher": lambda folder: classifier(folder, "stage=teacher", "teacher=tfidf"),
    "frozen embeddings": lambda folder: classifier(folder, "stage=teacher", "teacher=embeddings"),
    "cls": lambda folder: classifier(folder, "distill=cls"),
    "reg": lambda folder: classifier(folder, "distill=reg"),
    "scalar head": lambda folder: classifier(folder, "distill=reg", "distill.target=scalar"),
    "of a teacher": lambda folder: classifier(folder, "distill=tinybert"),
    "of its own code": lambda folder: classifier(folder, "student=charformer"),
    "adapter": adapter,
    "token classifier": lambda folder: entities(folder, "token"),
    "gliner": lambda folder: entities(folder, "gliner", prompts=["company"], threshold=0.4),
    "span marker": lambda folder: entities(folder, "span_marker"),
    "onnx": onnx,
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_card_of_every_kind_of_folder_is_one_that_the_hub_takes(kind: str, tmp_path: Path) -> None:
    KINDS[kind](tmp_path)
    card = valid_model_card(tmp_path)
    assert (card.data.license, card.data.datasets) == ("cc-by-nc-sa-3.0", ["takala/financial_phrasebank"])
    titles = {"Accuracy": "accuracy", "Macro F1": "macro_f1", "Weighted F1": "weighted_f1", "Exact F1 of spans": "f1"}
    assert scores(card) == {title: METRICS[f"test/{name}"] for title, name in titles.items()}  # not rounded
    assert "| Accuracy | 0.812 | 0.762 to 0.862 |" in card.text and "On 300 test texts of" in card.text
    for expected in (
        "- Near-duplicates of test rows: 3 in train.", "- 12 posts cut to 2,000 characters.", "- It was trained on 400 texts.",
        "| texts | phrasebank | CC BY-NC-SA 3.0 |", "- annotation: 0.2500 US dollars", "- phrasebank: Malo et al. (2014)",
    ):  # fmt: skip
        assert expected in card.text or (kind == "onnx" and expected == "- It was trained on 400 texts.")
    assert ("another seed gives another model" in card.text) == (kind != "onnx")
    assert kind == "onnx" or (
        "W, the assumed draw of" in card.text and "120 s of computing" in card.text
    )  # the assumption behind the estimate


@pytest.mark.parametrize(
    ("kind", "base"),
    [
        ("teacher", "sentence-transformers/all-MiniLM-L6-v2"), ("cls", "sentence-transformers/all-MiniLM-L6-v2"),
        ("adapter", "HuggingFaceTB/SmolLM2-135M-Instruct"), ("token classifier", "sentence-transformers/all-MiniLM-L6-v2"),
        ("onnx", "ProsusAI/finbert"), ("linear teacher", None), ("of its own code", None),
    ],
)  # fmt: skip
def test_embedded_weights_name_the_hub_id_that_they_are_of(kind: str, base: str | None, tmp_path: Path) -> None:
    KINDS[kind](tmp_path)
    card = valid_model_card(tmp_path)
    assert card.data.base_model == base and (base is None or base in card.text)


def test_an_adapter_of_the_embedded_copy_says_that_the_hub_has_other_weights(tmp_path: Path) -> None:
    adapter(tmp_path)
    text = valid_model_card(tmp_path).text
    assert "# QLoRA of smollm2: negative, neutral, positive" in text and "those of the hub's own weights differ slightly" in text


def test_a_card_without_scores_has_no_model_index(tmp_path: Path) -> None:
    write_adapter_card(tmp_path, composed("stage=qlora", "data=demo"), LABELS, 60, Provenance([Source("texts", "x", "own")]), {})
    card = valid_model_card(tmp_path)
    assert card.data.eval_results is None and "## Scores" not in card.text
    assert (card.data.license, card.data.license_name) == ("other", "own")


def test_what_is_below_the_majority_says_so_first(tmp_path: Path) -> None:
    bad = {"accuracy": 0.3, "accuracy_lo": 0.2, "accuracy_hi": 0.4, "majority_share": 0.6, "labels_predicted": 1, "n": 60}
    metrics = {f"test/{name}": float(value) for name, value in bad.items()}
    write_classifier_card(tmp_path, composed("data=demo"), LABELS, 60, LEARNT, metrics)
    head = valid_model_card(tmp_path).text.split("## ")[0]
    assert "**Unreliable:** it predicts the same label for every text; accuracy 0.300" in head


def test_a_local_folder_is_no_base_model_for_others(tmp_path: Path) -> None:
    assert hub_id(str(tmp_path)) is None and hub_id("runs/s/teacher-1/model") is None and hub_id(None) is None
    assert hub_id("ProsusAI/finbert") == "ProsusAI/finbert"


@pytest.mark.parametrize(
    ("stated", "identifier", "texts"),
    [
        ("CC BY 4.0", "cc-by-4.0", True), ("CC0 1.0", "cc0-1.0", True), ("MIT", "mit", True),
        ("the project's own", "apache-2.0", True),
        ("mixed: some CC0, others not stated", "unknown", False), ("not stated (challenge data, research use)", "unknown", False),
        ("the owner's", "other", False), ("Terms of a Shop", "other", False), ("", "unknown", False),
        ("cc-by-nc-sa-4.0", "cc-by-nc-sa-4.0", True),
    ],
)  # fmt: skip
def test_licences_have_the_identifiers_of_the_hub(stated: str, identifier: str, texts: bool) -> None:
    assert (licence_of(stated).id, licence_of(stated).texts) == (identifier, texts)


def test_the_strictest_licence_counts() -> None:
    def of(*stated: str) -> str:
        return strictest([Source("texts", str(number), licence) for number, licence in enumerate(stated)]).id

    assert of("MIT", "apache-2.0") == "apache-2.0" and of("CC BY-SA 4.0", "MIT") == "cc-by-sa-4.0"
    assert of("MIT", "CC BY-NC 4.0", "CC BY-SA 4.0") == "cc-by-nc-4.0" and of("gemma", "CC BY 4.0") == "gemma"
    assert of("CC BY-NC-SA 4.0", "not stated") == of() == "unknown" and of("the owner's", "CC BY-NC-ND 4.0") == "other"
    lines = remarks(
        [Source("texts", "a", "CC BY-SA 4.0"), Source("texts", "b", "CC BY-NC 4.0"), Source("weights", "c", "unknown")]
    )
    assert lines[0] == "the licence of c is unknown: ask before you publish or sell" and "cc-by-sa-4.0 requires" in lines[1]


def labels_from(folder: Path, *words: str) -> str:
    classifier(folder, *words)
    [line] = [line for line in (folder / "README.md").read_text().splitlines() if line.startswith("| labels from | ")]
    return line.removeprefix("| labels from | ").removesuffix(" |")


def test_the_card_says_whose_labels_they_are_and_whether_people_labelled_these_texts(tmp_path: Path) -> None:
    none = "; no human label of these texts was used"
    assert labels_from(tmp_path, "data.labelled=100").endswith(f"4 demonstrations (nearest){none}")
    assert none not in labels_from(tmp_path, "data.labelled=0"), "demonstrations are of the annotated texts then"
    assert labels_from(tmp_path, "data.labelled=0", "shots.source=tfns").endswith(none)
    gold = labels_from(tmp_path, "data.labelled=100", "distill.gold=true")
    assert gold.endswith("(nearest); and the human labels of the labelled texts")
    weak = labels_from(tmp_path, "experiment=best_student", "data.labelled=100", "distill=weak")
    assert weak == (
        "3 annotators, combined by stacking: 1 answer of tfidf (tfidf) to each text; 1 answer of embeddings (embeddings) to each "
        "text; 1 answer of neighbours (neighbours) to each text; and the human labels of the labelled texts"
    )
