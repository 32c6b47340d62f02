from pathlib import Path

import pandas as pd
import pytest

from findistill.core.files import write_json
from findistill.report.choice import choose, read_choice


def folds(folder: Path, settings: str, scores: list[float], seconds: float) -> list[Path]:
    folders = [folder / f"{settings}-{fold}" for fold in range(len(scores))]
    for place, score in zip(folders, scores, strict=True):
        times = {"time/wall_s": seconds, "time/artifacts_made_s": 0.0, "time/artifacts_s": 10.0}
        write_json(place / "metrics.json", {"test/macro_f1": score, "test/n": 50.0, **times})
    return folders


def test_the_best_mean_over_folds_is_chosen_and_the_first_among_equals(tmp_path: Path) -> None:
    assert read_choice(tmp_path) is None
    scores = {"a=1": [0.5, 0.9], "a=2": [0.8, 0.7], "a=3": [0.7, 0.8]}
    candidates = {name: folds(tmp_path, name, values, seconds=len(name)) for name, values in scores.items()}
    best, words = choose(candidates, "macro_f1", tmp_path)
    assert best == "a=2" and words.splitlines()[1] == "  a=2  0.750 ± 0.050  13"
    table = pd.read_csv(tmp_path / "choice.csv")
    assert table["settings"].tolist() == ["a=2", "a=3", "a=1"]
    assert table["macro_f1"].tolist() == pytest.approx([0.75, 0.75, 0.7])
    assert table["standard_error"].tolist() == pytest.approx([0.05, 0.05, 0.2]) and table["seconds"].tolist() == [13] * 3
    choice = read_choice(tmp_path)
    assert choice is not None and choice.title == "Chosen on 2 folds of 100 labelled rows by macro F1, best first"
