"""Which rows are trained on: none from a test set, and no near-duplicates of test rows if so configured."""

import logging
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from findistill.core.job import Job
from findistill.methods import rows as reading
from tests.fixtures.composing import composed
from tests.fixtures.jobs import job_of

LETTERS = "abcdefghijklmnopqrstuvwxyz"
NAMES = ("negative", "neutral", "positive")
NEAR = "Nimbus shares slip 3% after a weak outlook for the year"


def job(folder: Path, *overrides: str) -> Job:
    """A job on 28 rows, one a near-duplicate of a row in the further test set and one a duplicate."""
    own = [(f"{letter * 9} {ord(letter) * 7919}", NAMES[n % 3], "test" if n < 3 else "train") for n, letter in enumerate(LETTERS)]
    own += [(NEAR.replace("3", "4"), "negative", "train"), ("Aelfeld is flat today", "neutral", "train")]
    other = [(NEAR, "negative", ""), ("Aelfeld is flat, today!", "neutral", ""), ("Rates stay where they are", "positive", "")]
    for name, rows in (("own", own), ("other", other)):
        pd.DataFrame(rows, columns=["text", "label", "part"]).to_csv(folder / f"{name}.csv", index=False)
    also = f"evaluate.also=['csv path={folder / 'other.csv'} label_column=label name=wire']"
    data = ["data=csv", f"data.path={folder / 'own.csv'}", "data.label_column=label", "data.split_column=part"]
    return job_of(composed("stage=teacher", "shots.k=0", *data, also, *overrides), folder)


@pytest.mark.parametrize(
    ("overrides", "expected", "words"),
    [
        ([], 2, "2 of wire; data.near_duplicates=drop removes them"),
        (["data.near_duplicates=drop"], 0, "2 of wire; they were removed"),
    ],
)
def test_near_duplicates_of_further_test_sets(
    overrides: list[str], expected: int, words: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="findistill")
    reading._say.cache_clear()
    this_job = job(tmp_path, *overrides)
    tests = reading.test_sets(this_job)
    rows = pd.concat([reading.dataset(this_job).frame, pd.DataFrame({"text": [NEAR.upper(), NEAR + " and"]})], ignore_index=True)
    texts = reading.drop_test_overlap(rows, tests)["text"]
    assert texts.str.contains("Nimbus").sum() == expected and not texts.str.contains("Aelfeld|NIMBUS").any()
    assert f"an edit similarity of 90 or more to a test text: {words}" in caplog.text
    reading.drop_test_overlap(rows, tests)
    assert caplog.text.count("edit similarity") == 1  # once for all jobs of a sweep


def test_validation_rows_are_in_no_further_test_set(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="findistill")
    reading._say.cache_clear()
    this_job = job(tmp_path)
    data, tests = reading.dataset(this_job), reading.test_sets(this_job)
    frame = data.frame.assign(split=data.frame["split"].where(~data.frame["text"].str.contains("Aelfeld"), "validation"))
    rows, validation = reading.supervision(this_job, replace(data, frame=frame), tests)
    assert not pd.concat([rows, validation])["text"].str.contains("Aelfeld").any() and len(validation)
    assert "1 validation texts are also in a test set" in caplog.text

    caplog.clear()
    reading._say.cache_clear()
    texts = reading.transfer_texts(data, rows, validation, tests, rows.head(0), None)
    assert not set(texts["id"]) & set(validation["id"])
    assert "in a test set" not in caplog.text.replace("1 training texts are also in a test set", ""), "validation is none"
