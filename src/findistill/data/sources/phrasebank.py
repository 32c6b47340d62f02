"""Financial PhraseBank: sentences of news on Finnish companies, judged by 5 to 8 people (Malo et al. 2014)."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from findistill.config.fields import setting
from findistill.data.config import Data
from findistill.data.delimited import read_csv
from findistill.data.locations import files_in, from_hub, unavailable
from findistill.data.rows import Source
from findistill.data.text_key import text_key
from findistill.errors import UserError

LEVELS = {"50agree": 4, "66agree": 5, "75agree": 6, "allagree": 8}  # name -> lower bound in eighths
LABELS = ("negative", "neutral", "positive")  # in the order of the hub's numbers
LICENCE = "CC BY-NC-SA 3.0"
CITATION = "Malo, Sinha, Korhonen, Wallenius, Takala (2014), Good debt or bad debt, JASIST 65(4)"
FOLDER = "financial_phrasebank"
ANSWERS = ("llm_answers", ["phrasebank.csv"])  # "Zero is Not Hero Yet", arXiv:2305.16633
UNPACKED = ("FinancialPhraseBank-v1.0", "FinancialPhraseBank")  # folder names of the authors' archive


@dataclass
class PhrasebankData(Data):
    has_votes: ClassVar[bool] = True

    level: str = setting("50agree", choices=tuple(LEVELS))
    # finbert: the published 72/8/20, random_state 0; answered: train on the sentences with published LLM answers (Shah and Chava
    # 2023), test on all others
    split: str = setting("stratified", choices=("stratified", "finbert", "answered"))


def local_files(config: PhrasebankData) -> list[Path]:
    names = [f"Sentences_{level}.txt" for level in ("50Agree", "66Agree", "75Agree", "AllAgree")]
    sentences = next(filter(None, (files_in(folder, names) for folder in (FOLDER, *UNPACKED))), [])
    return sentences + (files_in(*ANSWERS) if config.split == "answered" else [])


def read(config: PhrasebankData) -> Source:
    """`agreement` is derived from the four nested files: the highest level that a sentence reaches, in eighths."""
    origin, levels = _levels(config)
    pairs = levels[config.level]
    splits = _splits(config, [sentence for sentence, _ in pairs])
    agreement = {pair: eighths for level, eighths in LEVELS.items() for pair in levels[level]}
    rows = [
        {"id": f"phrasebank/{config.level}/{number}", "text": pair[0], "label": pair[1], "split": split, "source": "phrasebank",
         "agreement": agreement[pair]}
        for number, (pair, split) in enumerate(zip(pairs, splits, strict=True))
    ]  # fmt: skip
    notes = ["agreement is the lower bound of the published level, in eighths: 50% 4, 66% 5, 75% 6, all 8"]
    return Source(rows, origin, LICENCE, CITATION, notes=notes)


def _levels(config: PhrasebankData) -> tuple[str, dict[str, list[tuple[str, str]]]]:
    """The origin, and the (sentence, label) pairs of each level in file order; levels are nested."""
    if paths := [path for path in local_files(config) if path.suffix == ".txt"]:
        pairs = [[_pair(line, path) for line in _lines(path) if line] for path in paths]
        return str(paths[0].parent), dict(zip(LEVELS, pairs, strict=True))
    levels = {}
    for level in LEVELS:
        # The hub's own copy is a loading script, no longer supported; its Parquet conversion has one folder per level.
        part = from_hub(config, FOLDER, data_dir=f"sentences_{level}")["train"]
        levels[level] = [(row["sentence"].strip(), LABELS[row["label"]]) for row in part]
    return f"hub:{config.hub_id}", levels


def _lines(path: Path) -> list[str]:
    """The authors' files are in ISO-8859-1 with Windows line ends; copies are often in UTF-8."""
    content = path.read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("iso-8859-1")
    return text.replace("\r", "").split("\n")


def _pair(line: str, path: Path) -> tuple[str, str]:
    sentence, mark, label = line.rpartition("@")
    if not mark:
        raise UserError(f"{path}: a line without '@label': {line[:60]}")
    return sentence.strip(), label.strip()


def _splits(config: PhrasebankData, sentences: list[str]) -> list[str | None]:
    """The split of each sentence, None if it is to be drawn.

    Raises:
        UserError: the published answers are not available.
    """
    if config.split == "finbert":
        return _published_split(len(sentences))
    if config.split == "stratified":
        return [None] * len(sentences)
    paths = files_in(*ANSWERS) or unavailable(config, ANSWERS[0])
    answered = {text_key(row["text"]) for row in read_csv(paths[0])}
    return ["train" if text_key(sentence) in answered else "test" for sentence in sentences]


def _published_split(rows: int) -> list[str | None]:
    """FinBERT's (Araci 2019): 20% test, then 10% of the rest validation."""
    from sklearn.model_selection import train_test_split  # takes a second to import, and planning imports this module

    rest, test = train_test_split(range(rows), test_size=0.2, random_state=0)
    _, validation = train_test_split(rest, test_size=0.1, random_state=0)
    names = dict.fromkeys(test, "test") | dict.fromkeys(validation, "validation")
    return [names.get(row, "train") for row in range(rows)]
