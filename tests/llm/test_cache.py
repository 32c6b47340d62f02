import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from findistill.errors import UserError
from findistill.llm.cache import ResponseCache, request_key
from findistill.llm.engine import Response

TEXT = st.text(max_size=20)
ANSWERS = st.lists(
    st.tuples(
        st.integers(0, 3),
        st.builds(
            Response,
            TEXT,
            st.integers(0, 3),
            raw=st.none() | TEXT,
            label=st.none() | TEXT,
            rationale=st.none() | st.tuples(TEXT, TEXT),
            confidence=st.none() | st.floats(0, 1),
            log_probabilities=st.none() | st.dictionaries(TEXT, st.floats(-9, 0), max_size=2),
            error=st.none() | TEXT,
            tokens_in=st.integers(0, 9),
            cost=st.none() | st.floats(0, 1),
        ),
    )
)


@given(ANSWERS, ANSWERS)
def test_what_was_appended_is_found_and_the_last_line_counts(
    tmp_path_factory: pytest.TempPathFactory, first: list[tuple[int, Response]], second: list[tuple[int, Response]]
) -> None:
    path = tmp_path_factory.mktemp("cache") / "responses.jsonl"
    for part in (first, second):
        with ResponseCache(path) as cache:
            offsets = cache.append(part)
            assert [cache.read(offset) for offset in offsets] == [answer for _, answer in part]
    expected: dict[int, dict[int, Response]] = {key: {} for key in range(5)}
    for key, answer in [*first, *second]:
        expected[key][answer.sample] = answer
    with ResponseCache(path) as cache:
        positions = cache.offsets(range(5))
        answers = [{sample: cache.read(offset) for sample, offset in places.items()} for places in positions]
    assert answers == list(expected.values())


def test_a_torn_last_line_is_cut_and_damage_in_the_middle_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "responses.jsonl"
    with ResponseCache(path) as cache:
        cache.append((7, Response(f"t{number}", number, label="positive")) for number in range(3))
    whole = path.read_bytes()
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        with ResponseCache(path) as cache:
            assert len(cache) == whole[:cut].count(b"\n")
            cache.append([(7, Response("t9", 9))])
        assert all(json.loads(line) for line in path.read_text().splitlines())
    lines = whole.splitlines(keepends=True)
    for damage in (b"nonsense\n", b"{}\n", b"[]\n", b"\xff\n", lines[1][:20] + b"\n"):
        path.write_bytes(lines[0] + damage + lines[2])
        with pytest.raises(UserError, match=r"responses.jsonl, line 2 is not a cached response"), ResponseCache(path):
            pass
    path.write_bytes(whole)  # the lock was released
    with ResponseCache(path) as cache:
        assert len(cache) == 3


def test_only_an_index_is_held(tmp_path: Path) -> None:
    path = tmp_path / "responses.jsonl"
    with ResponseCache(path) as cache:
        cache.append((key, Response("t", 0, raw="x" * 1000)) for key in range(5000))
    with ResponseCache(path) as cache:
        n_bytes = sum(column.nbytes for column in (cache._keys, cache._samples, cache._offsets))
        assert n_bytes == 5000 * 20 and path.stat().st_size > 5_000_000


def test_request_keys_differ_with_anything_asked() -> None:
    messages = [{"role": "user", "content": "Sales rose."}]
    keys = {request_key("m", messages), request_key("m", [messages]), request_key("n", messages), request_key("m", messages, 0.5)}
    assert len(keys) == 4 and request_key("m", messages) == request_key("m", [dict(messages[0])])
    assert all(0 <= key < 2**64 for key in keys)
    request_key("lone surrogate \ud800")
