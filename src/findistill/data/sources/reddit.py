"""Reddit posts on markets, unlabelled: title, blank line, body."""

from dataclasses import dataclass, field
from pathlib import Path

from findistill.config.fields import setting
from findistill.data.config import UnlabelledData
from findistill.data.delimited import read_csv
from findistill.data.locations import csv_files, from_hub
from findistill.data.rows import Source
from findistill.errors import UserError

LICENCE = "2013 files ODC PDDL 1.0, others not stated; Reddit's terms apply"
CITATION = "umbrae/reddit-top-2.5-million and public crawls"
FOLDER = "reddit_finance"


@dataclass
class RedditData(UnlabelledData):
    files: list[str] = field(default_factory=lambda: ["posts_2016_2019", "posts_2020", "posts_2021", "posts_2022_2025"])
    subreddits: list[str] = field(default_factory=list)  # empty: all
    min_characters: int = setting(40, ge=0)
    max_characters: int = setting(2000, ge=1)


def local_files(config: RedditData) -> list[Path]:
    return csv_files(config.files, FOLDER, prefix="posts_")


def read(config: RedditData) -> Source:
    """Short posts are dropped, long ones cut at a word; both are counted."""
    if config.min_characters > config.max_characters:
        raise UserError(f"data.min_characters={config.min_characters} is above data.max_characters={config.max_characters}")
    if paths := local_files(config):
        parts, origin = {path.stem: read_csv(path) for path in paths}, str(paths[0].parent)
    else:
        parts, origin = {"hub": from_hub(config, FOLDER)["train"].to_list()}, f"hub:{config.hub_id}"
    subreddits = {name.lower() for name in config.subreddits}
    rows, short, cut = [], 0, 0
    for stem, posts in parts.items():
        for number, post in enumerate(posts):
            if subreddits and (post["subreddit"] or "").lower() not in subreddits:
                continue
            text = f"{post['title'].strip()}\n\n{(post['selftext'] or '').strip()}".strip()
            if len(text) < config.min_characters:
                short += 1
                continue
            cut += len(text) > config.max_characters
            date = post.get("created_utc")
            rows.append(
                {"id": f"reddit/{stem}/{number}", "text": shorten(text, config.max_characters), "source": f"reddit/{stem}",
                 "date": str(date) if date else None, "subreddit": post["subreddit"]}
            )  # fmt: skip
    if not rows:
        raise UserError(f"data=reddit: no posts are left; check data.subreddits={config.subreddits} and data.min_characters")
    notes = [
        f"{short:,} posts under {config.min_characters} characters dropped",
        f"{cut:,} posts cut to {config.max_characters:,} characters",
    ]
    return Source(rows, origin, LICENCE, CITATION, notes=notes)


def shorten(text: str, characters: int) -> str:
    """At most this many characters, cut between words if possible."""
    if len(text) <= characters:
        return text
    head = text[: characters + 1]
    boundary = max(head.rfind(" "), head.rfind("\n"))
    # A long link at the end must not take half of the text with it.
    return head[: boundary if boundary > characters // 2 else characters].rstrip()
