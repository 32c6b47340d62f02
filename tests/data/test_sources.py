"""The named sources on the real files, against their published counts, and the errors if a file is missing."""

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from findistill.data.config import Data, FileData
from findistill.data.dataset import Dataset
from findistill.data.delimited import read_csv
from findistill.data.loading import load
from findistill.data.locations import local_files
from findistill.data.sources.demo import DemoData
from findistill.data.sources.demo_companies import DemoCompaniesData
from findistill.data.sources.finer import FinerData
from findistill.data.sources.fiqa import FiqaData
from findistill.data.sources.headlines import HeadlinesData
from findistill.data.sources.phrasebank import PhrasebankData
from findistill.data.sources.reddit import RedditData, shorten
from findistill.data.sources.sentfin import SentfinData
from findistill.data.text_key import text_key
from findistill.errors import UserError
from tests.conftest import ROOT

REAL = Path(os.environ.get("FINDISTILL_DATA") or Path(__file__).parents[3] / "shared" / "data")


@pytest.fixture
def real(monkeypatch: pytest.MonkeyPatch) -> None:
    if not REAL.is_dir():
        pytest.skip("needs the real data sets: set FINDISTILL_DATA")
    monkeypatch.setenv("FINDISTILL_DATA", str(REAL))


def config(reader: str, kind: type[Data] = Data, **changes: Any) -> Any:
    return kind(**{"_target_": f"findistill.data.sources.{reader}.read", "name": reader, **changes})


def phrasebank(**changes: Any) -> Any:
    return config("phrasebank", PhrasebankData, **changes)


@pytest.mark.usefixtures("real")
def test_phrasebank_in_the_published_split_without_its_leaks() -> None:
    data = load(phrasebank(split="finbert"))
    assert {split: sum(counts.values()) for split, counts in data.card.counts.items()} == {
        "train": 3476,  # of 3,488
        "validation": 388,
        "test": 970,
    }
    assert len(data.frame) + sum(data.card.removed.values()) == 4846
    assert data.frame["text"].map(text_key).is_unique


@pytest.mark.usefixtures("real")
def test_phrasebank_sentences_that_language_models_answered_are_trained_on_and_the_others_tested() -> None:
    answered = {text_key(row["text"]) for row in read_csv(REAL / "llm_answers" / "phrasebank.csv")}
    data = load(phrasebank(split="answered"))
    in_train = data.frame["text"].map(text_key).isin(answered)
    assert (data.frame["split"].isin(["train", "validation"]) == in_train).all() and in_train.sum() == 1118
    assert REAL / "llm_answers" / "phrasebank.csv" in local_files(phrasebank(split="answered"))  # so it is part of the key


@pytest.mark.usefixtures("real")
@pytest.mark.parametrize(("level", "rows"), [("50agree", 4846), ("66agree", 4217), ("75agree", 3453), ("allagree", 2264)])
def test_phrasebank_levels(level: str, rows: int) -> None:
    data = load(phrasebank(level=level))
    assert len(data.frame) + sum(data.card.removed.values()) == rows
    lowest = {"50agree": 4, "66agree": 5, "75agree": 6, "allagree": 8}[level]
    assert data.frame["agreement"].min() == lowest and data.frame["agreement"].max() == 8


@pytest.mark.usefixtures("real")
def test_human_votes_are_distributions_over_the_train_split() -> None:
    data = load(phrasebank())
    votes = data.human_votes()
    assert list(votes.columns) == [
        *("id", "text", "label", "gold", "agreement", "n_valid", "n_samples"),
        *("soft_negative", "soft_neutral", "soft_positive", "rationale"),
    ]
    assert votes["id"].tolist() == data.split("train")["id"].tolist()
    soft = votes[["soft_negative", "soft_neutral", "soft_positive"]]
    assert (soft.sum(axis=1).round(9) == 1).all()
    assert (soft.idxmax(axis=1) == "soft_" + votes["label"]).all()
    assert set(votes["agreement"]) == {4, 5, 6, 8}
    row = votes[(votes["agreement"] == 6) & (votes["label"] == "positive")].iloc[0]
    assert (row["soft_positive"], row["soft_negative"]) == (0.75, 0.125)


@pytest.mark.usefixtures("real")
def test_tfns_takes_the_published_validation_rows_as_test() -> None:
    data = load(config("tfns", labelled=2000))
    assert sum(data.card.counts["test"].values()) == 2388 - 11  # duplicates after normalisation
    assert sum(data.card.counts["pool"].values()) == 2000
    assert len(data.frame) + sum(data.card.removed.values()) == 9543 + 2388
    assert data.frame["text"].map(text_key).is_unique
    assert data.frame.loc[data.frame["id"] == "tfns/train/0", "label"].tolist() in (["negative"], [])
    votes_refused = pytest.raises(UserError, match=r"distill.source=human: tfns")
    with votes_refused:
        data.human_votes()


@pytest.mark.usefixtures("real")
def test_fiqa_scores_become_three_classes_or_two() -> None:
    news = config("fiqa", FiqaData, name="fiqa_news", part="news")
    data = load(news)
    assert sum(data.card.counts["test"].values()) == 100 and data.card.removed["also in an earlier split"] == 1
    assert (data.frame["targets"] > 1).sum() == 57
    assert (data.frame.loc[data.frame["label"] == "neutral", "score"].abs() <= 0.1).all()
    assert (data.frame.loc[data.frame["label"] == "positive", "score"] > 0.1).all()

    two = load(config("fiqa", FiqaData, name="fiqa_news", part="news", classes=2))
    assert two.labels.names == ("negative", "positive")
    assert set(two.frame["label"]) == {"negative", "positive"}
    assert (two.frame["targets"] == 1).all() and (two.frame["score"] != 0).all()

    posts = load(config("fiqa", FiqaData, name="fiqa_posts", part="posts"))
    assert len(posts.frame) + sum(posts.card.removed.values()) == 675


@pytest.mark.usefixtures("real")
def test_stockemotions_has_the_published_splits() -> None:
    data = load(config("stockemotions", labels=["negative", "positive"]))
    assert data.card.counts["test"] == {"negative": 445, "positive": 555}
    assert data.card.counts["validation"] == {"negative": 463, "positive": 537}
    assert sum(data.card.counts["train"].values()) == 8000  # including two pairs that differ only in their emoji
    assert data.frame["ticker"].nunique() > 30


@pytest.mark.usefixtures("real")
def test_reddit_posts_by_subreddit_within_the_length_bounds() -> None:
    chosen = {"files": ["posts_2020"], "subreddits": ["WallStreetBets"], "min_characters": 100, "max_characters": 300}
    data = load(config("reddit", RedditData, **chosen))
    assert set(data.frame["subreddit"]) == {"wallstreetbets"} and data.frame["label"].isna().all()
    lengths = data.frame["text"].str.len()
    assert lengths.max() <= 300 and lengths.min() >= 100
    with pytest.raises(UserError, match="no file 'wsb_comments'"):
        load(config("reddit", RedditData, files=["wsb_comments"]))
    with pytest.raises(UserError, match="no posts are left"):
        load(config("reddit", RedditData, subreddits=["knitting"]))


@pytest.mark.usefixtures("real")
def test_headlines_from_both_folders() -> None:
    data = load(config("headlines", HeadlinesData, files=["cnbc", "stocknews_2019_2021"]))
    sources = Counter(data.frame["source"])
    assert 2700 < sources["headlines/cnbc"] <= 2788 and 7100 < sources["headlines/stocknews_2019_2021"] <= 7217
    assert data.frame["date"].str.match(r"\d{4}-\d\d-\d\d").all()


def test_demo_is_the_corpus_alone_or_grown_to_size() -> None:
    corpus = load(config("demo", DemoData, labelled=50))
    assert set(corpus.card.counts) == {"train", "validation", "test", "pool"}
    assert "difficulty" in corpus.frame.columns and set(corpus.frame["difficulty"]) == {"easy", "hard"}
    for rows, seed in ((100, 0), (1_264, 0), (1_264, 1)):
        part = load(config("demo", DemoData, rows=rows, seed=seed))
        assert len(part.frame) == rows and not sum(part.card.removed.values())
    assert any(note.startswith("500 rows were generated") for note in part.card.notes)
    texts = dict(zip(part.frame["id"], part.frame["text"], strict=True))
    assert corpus.frame["text"].tolist() == [texts[row] for row in corpus.frame["id"]]
    for rows in (0, 1_401):
        with pytest.raises(UserError, match=rf"^data\.rows={rows} is not a number of rows of the demo corpus: .* at most 1400$"):
            load(config("demo", DemoData, rows=rows))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"level": "90agree"}, "data.level=90agree: choose one of 50agree, 66agree, 75agree, allagree"),
        ({"split": "random"}, "data.split=random: choose one of stratified, finbert, answered"),
    ],
)
def test_unknown_choices_are_refused_before_anything_is_read(settings: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load(phrasebank(**settings))


def test_without_files_and_hub_the_way_out_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.delenv("FINDISTILL_DATA", raising=False)
    with pytest.raises(UserError, match=r"FINDISTILL_DATA to a folder that holds twitter_financial_news/, or go online"):
        load(config("tfns", hub_id="zeroshot/twitter-financial-news-sentiment"))
    with pytest.raises(UserError, match=r"holds stockemotions/\.$"):
        load(config("stockemotions"))
    with pytest.raises(UserError, match=r"data.hub_id=OWNER/NAME"):
        load(config("hub", FileData))
    monkeypatch.setenv("FINDISTILL_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match="no such folder"):
        load(config("tfns"))


def test_a_half_complete_folder_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FINDISTILL_DATA", str(tmp_path))
    (tmp_path / "twitter_financial_news").mkdir()
    (tmp_path / "twitter_financial_news" / "sent_train.csv").write_text("text,label\na,0\n")
    with pytest.raises(UserError, match=r"sent_valid\.csv is missing"):
        load(config("tfns"))


def test_the_key_without_local_files_is_the_hubs_revision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FINDISTILL_DATA", raising=False)
    ids = {Dataset(config("tfns", hub_id="a/b", hub_revision=revision)).key for revision in (None, "v1", "v1")}
    assert len(ids) == 2


def test_cutting_at_words() -> None:
    assert shorten("one two three", 9) == "one two"
    assert shorten("one two", 7) == "one two"
    assert shorten("unbroken", 3) == "unb"


def test_sources_from_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests cannot reach the hub, so its response is simulated."""
    import datasets

    labels = datasets.ClassLabel(names=["negative", "neutral", "positive"])
    features = datasets.Features({"sentence": datasets.Value("string"), "label": labels})
    rows = {"sentence": [f"sentence {n}" for n in range(30)], "label": [n % 3 for n in range(30)]}
    part = datasets.Dataset.from_dict(rows, features=features)

    def fake(hub_id: str, revision: str | None = None, **options: Any) -> datasets.DatasetDict:
        assert (hub_id, revision) == ("o/n", "r")
        assert options.get("data_dir", "sentences_50agree").startswith("sentences_")
        return datasets.DatasetDict({"train": part})

    monkeypatch.delenv("FINDISTILL_DATA", raising=False)
    monkeypatch.setattr("datasets.load_dataset", fake)
    where = {"hub_id": "o/n", "hub_revision": "r"}
    bank = load(phrasebank(**where))
    assert len(bank.frame) == 30 and set(bank.frame["agreement"]) == {8}
    own = load(config("hub", FileData, text_column="sentence", label_column="label", **where))
    assert own.frame.set_index("id").loc["train/1", "label"] == "neutral"
    mapping = {"0": "positive", "1": "neutral", "2": "negative"}
    data = load(config("hub", FileData, text_column="sentence", label_column="label", label_map=mapping, **where))
    assert data.frame.set_index("id").loc["train/0", "label"] == "positive"
    part = datasets.Dataset.from_dict({**rows, "label": [-1, None, *rows["label"][2:]]}, features=features)
    gaps = load(config("hub", FileData, text_column="sentence", label_column="label", **where))
    assert gaps.card.counts["train"]["unlabelled"] == 2 and gaps.labels.names == ("negative", "neutral", "positive")


MOON = """
from dataclasses import dataclass
from pathlib import Path

from findistill.config.fields import setting
from findistill.data.config import Data
from findistill.data.locations import files_in
from findistill.data.rows import Source
from findistill.data.delimited import read_csv


@dataclass
class MoonData(Data):
    phase: str = setting("full", choices=("new", "full"))


def local_files(config: MoonData) -> list[Path]:
    return files_in("moon", [f"{config.phase}.csv"])


def read(config: MoonData) -> Source:
    table = read_csv(*local_files(config))
    rows = [{"id": f"moon/{row}", **cells} for row, cells in enumerate(table)]
    return Source(rows, "the moon", "none", "nobody")
"""


def test_a_new_source_is_one_file_and_one_yaml(tmp_path: Path) -> None:
    """In a copy of the tree: settings, choices, files in the key and the reader all work without a list to register it in."""
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    (tmp_path / "src/findistill/data/sources/moon.py").write_text(MOON)
    (tmp_path / "conf/data/moon.yaml").write_text(
        "# The moon.\ndefaults: [base_moon, _self_]\n_target_: findistill.data.sources.moon.read\nname: moon\n"
    )
    (tmp_path / "files/moon").mkdir(parents=True)
    rows = "".join(f"Crater {n},{('negative', 'neutral', 'positive')[n % 3]}\n" for n in range(30))
    program = (
        "from findistill.schema import register; register()\n"
        "from findistill.config.compose import data_config\n"
        "from findistill.data.dataset import Dataset; from findistill.data.loading import load\n"
        "config = data_config('moon phase=new')\n"
        "print(Dataset(config).key, len(load(config).frame))"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "src"), "FINDISTILL_DATA": str(tmp_path / "files")}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *arguments], capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=60
        )

    outputs = []
    for content in (rows, rows + "The last crater,neutral\n"):
        (tmp_path / "files/moon/new.csv").write_text("text,label\n" + content)
        result = run("-c", program)
        assert result.returncode == 0, result.stderr
        outputs.append(result.stdout.split())
    assert [rows for _, rows in outputs] == ["30", "31"] and outputs[0][0] != outputs[1][0]
    wrong = run("-m", "findistill", "data=moon", "data.phase=half", "stage=teacher")
    assert "data.phase=half: choose one of new, full" in wrong.stderr, wrong.stderr


def test_the_files_of_a_reader_of_ones_own_enter_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mynews.py").write_text(
        "from pathlib import Path\nfrom findistill.data.rows import Source\n"
        "def local_files(config): return [Path(__file__).with_name('news.txt')]\n"
        "def read(config) -> Source:\n"
        "    texts = local_files(config)[0].read_text().splitlines()\n"
        "    return Source([{'id': text, 'text': text} for text in texts], 'here', 'mine', 'me')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("FINDISTILL_ALLOW", "mynews")
    own = Data(_target_="mynews.read", name="mynews")
    keys = []
    for texts in ("Up\nDown\n", "Up\nDown\nFlat\n"):
        (tmp_path / "news.txt").write_text(texts)
        keys.append(Dataset(own).key)
        assert load(own).frame["text"].tolist() == texts.split()
    assert keys[0] != keys[1]


@pytest.mark.usefixtures("real")
def test_sentfin_mentions_are_the_listed_names() -> None:
    data = load(config("sentfin", SentfinData))
    assert len(data.frame) + sum(data.card.removed.values()) == 6964
    assert "64 names do not occur verbatim in their headline; 64 headlines count as unannotated" in data.card.notes
    assert data.labels.names == ("company",) and data.frame["label"].isna().all()
    known = data.frame[data.frame["spans"].notna()]
    surfaces = {
        text[span["start"] : span["end"]] for text, spans in zip(known["text"], known["spans"], strict=True) for span in spans
    }
    assert {"SpiceJet", "MMTC"} <= surfaces
    assert sum(known["split"] == "test") == 1372 and data.card.counts["test"]["with mentions"] == 1372


@pytest.mark.usefixtures("real")
@pytest.mark.parametrize(
    ("labels", "counts"),
    [
        (["company"], {"company": 2870}),
        (["person", "location", "organisation"], {"person": 1250, "location": 1459, "organisation": 2870}),
    ],
)
def test_finer_entities_by_type_and_ids_that_answers_can_be_matched_by(labels: list[str], counts: dict[str, int]) -> None:
    data = load(config("finer", FinerData, labels=labels))
    mentions = ", ".join(f"{count:,} of {name}" for name, count in counts.items())
    assert f"mentions, in all rows: {mentions}" in data.card.notes
    test = data.split("test").set_index("id")
    with (REAL / "llm_answers" / "finer_ord_test.jsonl").open(encoding="utf-8") as lines:
        answers = [json.loads(line) for line in lines]
    by_id = {f"finer/test/{answer['doc_idx']}/{answer['sent_idx']}": answer["tokens"] for answer in answers}
    assert all(by_id[name] == text.split(" ") for name, text in test["text"].items())
    assert data.frame["text"].map(text_key).is_unique


@pytest.mark.usefixtures("real")
def test_finer_has_one_name_for_organisations() -> None:
    with pytest.raises(UserError, match="are the same here"):
        load(config("finer", FinerData, labels=["company", "organisation"]))


def test_the_demo_corpus_has_companies_too() -> None:
    data = load(config("demo_companies", DemoCompaniesData, rows=30))
    row = data.frame.set_index("id").loc["demo/h001"]
    assert [row["text"][span["start"] : span["end"]] for span in row["spans"]] == ["Nimbus Harbor"]


PERIODS = ["2010/2016", "2017/2018", "2019/2020"]


@pytest.mark.usefixtures("real")
def test_headlines_in_the_published_periods() -> None:
    data = load(config("headlines", HeadlinesData, files=["benzinga_2009_2020"], split_by_date=PERIODS))
    assert data.split("test")["date"].min()[:4] == "2019" and data.split("train")["date"].max()[:4] == "2016"
