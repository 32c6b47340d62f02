"""Clusters of names: single-linkage by similarity, independent of their order, fast and in little memory."""

import json
import random
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rapidfuzz import fuzz
from rapidfuzz.distance import Levenshtein

from findistill.data import name_clusters
from findistill.data.name_clusters import cluster_names, fold_name
from tests.fixtures.machine import slowness


def plainly(names: list[str], similarity: str, threshold: float) -> list[set[int]]:
    """Every pair compared, sets joined until nothing changes."""
    scorer = fuzz.ratio if similarity == "ratio" else lambda a, b: 100 * Levenshtein.normalized_similarity(a, b)
    sets = [{at} for at in range(len(names))]
    for one in range(len(names)):
        for other in range(one):
            if scorer(names[one], names[other]) >= threshold:
                both = next(each for each in sets if one in each) | next(each for each in sets if other in each)
                sets = [each for each in sets if not each & both] + [both]
    return sets


@given(
    st.lists(st.text("abc &.é", min_size=1, max_size=8), max_size=25),
    st.sampled_from(["ratio", "levenshtein"]),
    st.sampled_from([60, 85, 100]),
)
@example(["aaa", "aaaaa"], "levenshtein", 60)  # exactly 60
@settings(max_examples=150, deadline=None)
def test_clusters_are_those_of_all_pairs(names: list[str], similarity: str, threshold: float) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(name_clusters, "ROWS", 4)  # several blocks
        clusters = cluster_names(names, similarity, threshold)
    sets = [set(np.flatnonzero(clusters == cluster).tolist()) for cluster in range(max(clusters, default=-1) + 1)]
    assert sorted(map(sorted, sets)) == sorted(map(sorted, plainly(names, similarity, threshold)))
    assert all(min(one) < min(other) for one, other in pairwise(sets))


def test_the_measures_differ() -> None:
    names = [*map(fold_name, ("Alphabet Inc", "ALPHABET  inc.", "Alphabet In", "Amazon"))]
    assert cluster_names(names).tolist() == [0, 0, 0, 1]
    pair = ["jpmorgan chase", "jp morgan chase & co"]  # similarities 82 and 70
    assert cluster_names(pair, threshold=80).tolist() == [0, 0]
    assert cluster_names(pair, "levenshtein", 80).tolist() == [0, 1]


MEASURE = """
import json, sys, time
from findistill.data.name_clusters import cluster_names
names = json.load(sys.stdin)
start = time.perf_counter()
clusters = cluster_names(names)
seconds = time.perf_counter() - start
peak = next(int(line.split()[1]) / 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps([seconds, peak, int(clusters.max()) + 1]))
"""


@pytest.mark.slow
def test_20000_names_cluster_in_10_seconds_and_200_megabytes() -> None:
    draw = random.Random(0)
    syllables = [a + b for a in "bcdfglmnprstv" for b in ("a", "e", "i", "o", "un", "ar")]
    stems = ["".join(draw.choices(syllables, k=draw.randint(2, 5))).title() for _ in range(8000)]
    endings = ["", " Inc", " Corp", " Group", " Holdings", " plc", " Bancorp", " Therapeutics"]
    names = [fold_name(draw.choice(stems) + draw.choice(endings)) for _ in range(60000)]
    names = list(dict.fromkeys(names))[:20000]
    assert len(names) == 20000
    command = [sys.executable, "-c", MEASURE]
    result = subprocess.run(command, input=json.dumps(names), capture_output=True, text=True, check=True, timeout=120)
    seconds, peak, clusters = json.loads(result.stdout)
    print(f"{seconds:.1f} s, peak {peak:.0f} MB, {clusters:,} clusters")
    assert seconds < 10 * slowness() and peak < 200 and 1000 < clusters < 20000
