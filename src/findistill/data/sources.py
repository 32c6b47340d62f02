"""The sources of texts: each reader turns its configuration into rows with canonical columns.

A reader looks in `$FINDISTILL_DATA/<folder>` first and on the hub second. It neither cleans nor splits, apart from
saying which rows are the source's own train, validation or test rows: that is `findistill.data.splits`.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from findistill.data.own import by_text, from_file, from_table
from findistill.data.rows import SPLIT_NAMES, Source, frame_of, joined
from findistill.data.tables import read_csv, read_jsonl, read_parquet
from findistill.data.whereabouts import from_hub, local_files, own_path, unavailable
from findistill.errors import UserError
from findistill.settings.schema import Data, DemoData, FileData, FiqaData, HeadlinesData, PhrasebankData, RedditData

# ---------------------------------------------------------------- labelled sets


PHRASEBANK_LEVELS = {"50agree": 4, "66agree": 5, "75agree": 6, "allagree": 8}  # name -> lower bound in eighths


def phrasebank(config: PhrasebankData) -> Source:
    """Financial PhraseBank: sentences of news on Finnish companies, judged by 5 to 8 people (Malo et al. 2014).

    `agreement` is derived from the four nested files: the highest level that a sentence reaches, in eighths.
    """
    _one_of("data.level", config.level, PHRASEBANK_LEVELS)
    _one_of("data.split", config.split, ("stratified", "finbert"))
    origin, levels = _phrasebank_levels(config)
    rows = levels[config.level]
    reached = {pair: eighths for level, eighths in PHRASEBANK_LEVELS.items() for pair in levels[level]}
    split: list[str | None] = [None] * len(rows)
    if config.split == "finbert":
        from sklearn.model_selection import train_test_split

        rest, test = train_test_split(range(len(rows)), test_size=0.2, random_state=0)
        train, validation = train_test_split(rest, test_size=0.1, random_state=0)
        for name, members in {"train": train, "validation": validation, "test": test}.items():
            for row in members:
                split[row] = name
    frame = frame_of(
        id=[f"phrasebank/{config.level}/{row}" for row in range(len(rows))],
        text=[text for text, _ in rows],
        label=[label for _, label in rows],
        split=split,
        source="phrasebank",
        agreement=[reached[pair] for pair in rows],
    )
    return Source(
        frame,
        origin,
        "CC BY-NC-SA 3.0",
        "Malo, Sinha, Korhonen, Wallenius, Takala (2014), Good debt or bad debt, JASIST 65(4)",
        notes=["agreement is the lower bound of the published level, in eighths: 50% 4, 66% 5, 75% 6, all 8"],
    )


def _phrasebank_levels(config: PhrasebankData) -> tuple[str, dict[str, list[tuple[str, str]]]]:
    """Where from, and the (sentence, label) pairs of each level in file order; levels are nested."""
    if paths := local_files(config):
        pairs = [[_sentence_and_label(line, path) for line in path.read_text("utf-8").splitlines() if line] for path in paths]
        return str(paths[0].parent), dict(zip(PHRASEBANK_LEVELS, pairs, strict=True))
    levels = {}
    for level in PHRASEBANK_LEVELS:
        # The hub's own copy is a loading script, which is refused today; its Parquet conversion has a folder a level.
        part = from_hub(config, data_dir=f"sentences_{level}")["train"]
        levels[level] = [(row["sentence"].strip(), ("negative", "neutral", "positive")[row["label"]]) for row in part]
    return f"hub:{config.hub_id}", levels


def _sentence_and_label(line: str, path: Path) -> tuple[str, str]:
    sentence, mark, label = line.rpartition("@")
    if not mark:
        raise UserError(f"{path}: a line without '@label': {line[:60]}")
    return sentence.strip(), label.strip()


def tfns(config: Data) -> Source:
    """Twitter financial news sentiment. The published validation file serves as the test split, as everywhere."""
    names = {"0": "negative", "1": "positive", "2": "neutral"}
    parts: dict[str, Any] = {}
    if paths := local_files(config):
        parts = dict(zip(("train", "test"), map(read_csv, paths), strict=True))
        origin = str(paths[0].parent)
    else:
        hub_parts = from_hub(config)
        parts = {"train": hub_parts["train"].to_pandas(), "test": hub_parts["validation"].to_pandas()}
        origin = f"hub:{config.hub_id}"
    frame = joined(
        {
            split: frame_of(
                id=[f"tfns/{split}/{row}" for row in range(len(part))],
                text=part["text"].tolist(),
                label=[names[str(label)] for label in part["label"]],
                split=split,
                source="tfns",
            )
            for split, part in parts.items()
        }.values()
    )
    return Source(frame, origin, "MIT", "zeroshot/twitter-financial-news-sentiment, Hugging Face hub")


def fiqa(config: FiqaData) -> Source:
    """FiQA 2018 task 1: news headlines or posts with a score in [-1, 1] for each company they are about.

    `score` is the mean over a text's targets, `targets` their number. Three classes: |score| <= threshold is neutral.
    Two classes, as in the Reddit study (Deng et al. 2022): the sign; zero scores and texts on several targets dropped.
    """
    _one_of("data.part", config.part, ("news", "posts"))
    _one_of("data.classes", config.classes, (2, 3))
    if paths := local_files(config):
        origin, texts = str(paths[0].parent), []
        for split, path in zip(("train", "test"), paths, strict=True):
            for key, entry in json.loads(path.read_text("utf-8")).items():
                texts.append((f"{split}/{key}", split, entry["sentence"], [float(i["sentiment_score"]) for i in entry["info"]]))
    else:
        origin, texts = f"hub:{config.hub_id}", _fiqa_from_hub(config)
    scored = [(name, split, text, sum(scores) / len(scores), len(scores)) for name, split, text, scores in texts]
    several = sum(targets > 1 for *_, targets in scored)
    if config.classes == 2:
        scored = [row for row in scored if row[3] != 0 and row[4] == 1]
        notes = [f"{len(texts) - len(scored)} texts with a zero score or several targets dropped"]
    else:
        notes = [f"{several} texts have several targets: their score is the mean"]
    threshold = config.threshold if config.classes == 3 else 0.0
    frame = frame_of(
        id=[f"{config.name}/{name}" for name, *_ in scored],
        text=[text for _, _, text, _, _ in scored],
        label=["positive" if s > threshold else "negative" if s < -threshold else "neutral" for _, _, _, s, _ in scored],
        split=[split for _, split, *_ in scored],
        source=config.name,
        score=[score for _, _, _, score, _ in scored],
        targets=[targets for *_, targets in scored],
    )
    return Source(
        frame,
        origin,
        "not stated (challenge data, research use)",
        "Maia et al. (2018), WWW'18 Open Challenge: Financial Opinion Mining and Question Answering",
        labels=("negative", "positive") if config.classes == 2 else None,
        notes=notes,
    )


def _fiqa_from_hub(config: FiqaData) -> list[tuple[str, str, str, list[float]]]:
    """One entry a text: the hub's copy has a row a target, and split the data anew by row, not by text.

    A text with a row in the test split belongs there.
    """
    kind = "headline" if config.part == "news" else "post"
    found: dict[str, tuple[str, str, list[float]]] = {}
    for split, part in from_hub(config).items():
        for row in part:
            if row["type"] != kind:
                continue
            name, home, scores = found.get(row["sentence"], (f"{split}/{row['_id']}", SPLIT_NAMES[split], []))
            home = "test" if "test" in (home, SPLIT_NAMES[split]) else home
            found[row["sentence"]] = (name, home, [*scores, float(row["score"])])
    return [(name, split, text, scores) for text, (name, split, scores) in found.items()]


def stockemotions(config: Data) -> Source:
    """StockTwits messages of 2020, bullish or bearish as their authors set it (Lee et al. 2023)."""
    names = {"bullish": "positive", "bearish": "negative"}
    paths = local_files(config) or unavailable(config)
    parts = []
    for split, path in zip(("train", "validation", "test"), paths, strict=True):
        part = read_csv(path)
        parts.append(
            frame_of(
                id=[f"stockemotions/{name}" for name in part["id"]],
                text=part["original"].tolist(),
                label=[names[label] for label in part["senti_label"]],
                split=split,
                date=part["date"].tolist(),
                source="stockemotions",
                ticker=part["ticker"].tolist(),
                emotion=part["emo_label"].tolist(),
            )
        )
    return Source(
        joined(parts),
        str(paths[0].parent),
        "not stated (StockTwits terms)",
        "Lee, Youn, Poon, Han (2023), StockEmotions, AAAI Bridge, arXiv:2301.09279",
    )


# ---------------------------------------------------------------- unlabelled sets


def reddit(config: RedditData) -> Source:
    """Reddit posts: title, blank line, body. Short ones are dropped, long ones cut at a word; both are counted."""
    if not 0 <= config.min_characters <= config.max_characters:
        raise UserError(
            f"data.min_characters={config.min_characters}, data.max_characters={config.max_characters}: "
            "the first may not be below 0 or above the second"
        )
    if paths := local_files(config):
        parts, origin = {path.stem: read_csv(path) for path in paths}, str(paths[0].parent)
    else:
        parts, origin = {"hub": from_hub(config)["train"].to_pandas()}, f"hub:{config.hub_id}"
    frames, short, cut = [], 0, 0
    for stem, posts in parts.items():
        part = posts
        if config.subreddits:
            part = posts[posts["subreddit"].str.lower().isin([name.lower() for name in config.subreddits])]
        bodies = part["selftext"].fillna("").tolist()
        texts = [f"{title.strip()}\n\n{body.strip()}".strip() for title, body in zip(part["title"], bodies, strict=True)]
        dates = part["created_utc"].tolist() if "created_utc" in part else [None] * len(part)
        frame = frame_of(
            id=[f"reddit/{stem}/{row}" for row in part.index],
            text=[_cut(text, config.max_characters) for text in texts],
            date=[str(date) if date else None for date in dates],
            source=f"reddit/{stem}",
            subreddit=part["subreddit"].tolist(),
        )
        cut += sum(len(text) > config.max_characters for text in texts)
        short += sum(len(text) < config.min_characters for text in texts)
        frames.append(frame.loc[[len(text) >= config.min_characters for text in texts]])
    rows = joined(frames)
    if not len(rows):
        raise UserError(f"data=reddit: no post is left; check data.subreddits={config.subreddits} and data.min_characters")
    return Source(
        rows,
        origin,
        "2013 files ODC PDDL 1.0, others not stated; Reddit's terms apply",
        "umbrae/reddit-top-2.5-million and public crawls",
        notes=[
            f"{short:,} posts under {config.min_characters} characters dropped",
            f"{cut:,} posts cut to {config.max_characters:,} characters",
        ],
    )


def headlines(config: HeadlinesData) -> Source:
    """Dated news headlines, most of them with the ticker they were filed under."""
    paths = local_files(config) or unavailable(config)
    frames = []
    for path in paths:
        part = read_csv(path)
        frames.append(
            frame_of(
                id=[f"headlines/{path.stem}/{row}" for row in range(len(part))],
                text=part["headline"].tolist(),
                date=[date.replace(" ", "T", 1) or None for date in part["date"]],
                source=f"headlines/{path.stem}",
                ticker=part["ticker"].tolist() if "ticker" in part else None,
            )
        )
    return Source(
        joined(frames),
        str(paths[0].parent.parent),
        "mixed: benzinga listed as CC0, fnspid CC BY-NC 4.0, others not stated",
        "Benzinga, Nasdaq (FNSPID, Dong, Fan, Peng 2024), CNBC, Guardian and Reuters headlines",
    )


# ---------------------------------------------------------------- the project's own corpus


def demo(config: DemoData) -> Source:
    """The hand-written corpus; with `data.rows` beyond its size, grown by the seeded generator. For trying things."""
    from findistill.data.demo import generate, read_corpus

    corpus = list(read_corpus())
    generated = 0
    if config.rows is not None:
        if config.rows < 1:
            raise UserError(f"data.rows={config.rows}: a number of rows, 1 or more, is needed (or null for the corpus)")
        generated = max(0, config.rows - len(corpus))
        corpus = corpus[: config.rows]
    if generated:
        corpus.extend(generate(generated, config.seed))
    frame = frame_of(
        id=[f"demo/{row['id']}" for row in corpus],
        text=[row["text"] for row in corpus],
        label=[row["label"] for row in corpus],
        date=[row.get("date") for row in corpus],
        source=[f"demo/{row['kind']}" for row in corpus],
        spans=[json.dumps(row["companies"]) for row in corpus],
        difficulty=[row["difficulty"] for row in corpus],
        rationale=[row.get("rationale") for row in corpus],
    )
    notes = ["written for this project, for trying things: no result is reported on it"]
    if generated:
        notes.append(f"{generated:,} rows come from the seeded generator")
    return Source(frame, "the package", "the project's own", "findistill demo corpus", notes=notes)


# ---------------------------------------------------------------- one's own


def csv(config: FileData) -> Source:
    """A CSV file with a header line."""
    return from_file(config, read_csv(own_path(config), config.encoding))


def jsonl(config: FileData) -> Source:
    """A file with one JSON object a line."""
    return from_file(config, read_jsonl(own_path(config), config.encoding))


def parquet(config: FileData) -> Source:
    """A Parquet file."""
    return from_file(config, read_parquet(own_path(config)))


def hub(config: FileData) -> Source:
    """Any data set of the hub. Its splits are taken over where they are called train, validation or test."""
    import datasets
    import pandas as pd

    if not config.hub_id:
        raise UserError("data=hub needs data.hub_id=OWNER/NAME")
    parts = []
    for split, part in from_hub(config).items():
        feature = part.features.get(config.label_column)
        frame = part.to_pandas().astype(object)
        if isinstance(feature, datasets.ClassLabel) and not by_text(config.label_map).keys() & set(
            map(str, range(len(feature.names)))
        ):
            frame[config.label_column] = [None if n is None or n < 0 else feature.names[n] for n in frame[config.label_column]]
        parts.append(frame.assign(_split=SPLIT_NAMES.get(split), _row=[f"{split}/{row}" for row in range(len(frame))]))
    return from_table(config, pd.concat(parts, ignore_index=True), f"hub:{config.hub_id}", config.hub_id)


def _cut(text: str, characters: int) -> str:
    """At most so many characters, cut between words where the text has any."""
    if len(text) <= characters:
        return text
    head = text[: characters + 1]
    boundary = max(head.rfind(" "), head.rfind("\n"))
    # A long link at the end must not take half of the text with it.
    return head[: boundary if boundary > characters // 2 else characters].rstrip()


def _one_of(key: str, value: Any, choices: Iterable[Any]) -> None:
    if value not in choices:
        raise UserError(f"{key}={value}: choose from {', '.join(map(str, choices))}")
