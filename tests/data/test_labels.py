import subprocess
import sys

import pytest

from findistill.data.labels import LabelSet
from findistill.errors import UserError

SENTIMENT = LabelSet(("negative", "neutral", "positive"))


def test_index_is_the_column_of_a_label() -> None:
    assert [SENTIMENT.index(name) for name in SENTIMENT.names] == [0, 1, 2]


def test_unknown_label_names_itself_and_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"'bullish'.*negative, neutral, positive"):
        SENTIMENT.index("bullish")


def test_words_follow_the_names_not_the_positions() -> None:
    assert LabelSet(("positive", "negative")).words("market") == {"positive": "bullish", "negative": "bearish"}
    assert SENTIMENT.words("movement") == {"negative": "down", "neutral": "unsure", "positive": "up"}


def test_unknown_wording_and_label_without_a_word_are_refused() -> None:
    with pytest.raises(UserError, match=r"prompt\.wording=polite"):
        SENTIMENT.words("polite")
    own = LabelSet(("hawkish", "dovish"))
    with pytest.raises(UserError, match=r"no word for the label 'hawkish'"):
        own.words("sentiment")
    assert own.words("names") == {"hawkish": "hawkish", "dovish": "dovish"}


@pytest.mark.parametrize("names", [(), ("one",), ("a", "a"), ("a", " ")])
def test_label_sets_that_cannot_be(names: tuple[str, ...]) -> None:
    with pytest.raises(UserError, match=r"data\.labels="):
        LabelSet(names)


def test_labels_and_sources_import_nothing_heavy() -> None:
    code = "import sys, findistill.data.labels, findistill.data.dataset; from findistill.schema import register; register(); "
    code += "assert 'findistill.data.sources.parquet' in sys.modules; "
    code += (
        "print([m for m in ('torch', 'transformers', 'pandas', 'pyarrow', 'sklearn', 'numpy', 'datasets') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
