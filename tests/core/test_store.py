"""Artifacts are complete or absent, created once, and resumed by steps that can."""

import multiprocessing
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from findistill.core.files import write_json
from findistill.core.hashing import digest
from findistill.core.store import Store, damage


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@given(st.dictionaries(st.text(), plain, max_size=5))
def test_digest_does_not_depend_on_the_order_of_keys(value: dict[str, object]) -> None:
    assert digest(value) == digest(dict(reversed(value.items())))


def test_made_once_and_found_again(tmp_path: Path) -> None:
    calls = []

    def make(folder: Path) -> None:
        calls.append(1)
        (folder / "x").write_text("content")

    store = Store(tmp_path)
    first, second = store.get("kind", {"a": 1}, make), store.get("kind", {"a": 1}, make)
    assert [artifact.made for artifact in store.used["kind"]] == [True, False] and len(calls) == 1
    assert first == second and (second / "x").read_text() == "content"
    assert store.used["kind"][0].seconds == store.used["kind"][1].seconds > 0
    assert store.get("kind", {"a": 2}, make) != first


def test_a_failed_maker_leaves_nothing_under_the_final_name(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "half").write_text("half")
        raise RuntimeError("broken")

    store = Store(tmp_path)
    with pytest.raises(RuntimeError):
        store.get("kind", {}, fail)
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]
    assert (store.get("kind", {}, lambda folder: None) / "artifact.json").exists()


def test_a_resumable_maker_gets_what_was_left(tmp_path: Path) -> None:
    def begin(folder: Path) -> None:
        (folder / "journal").write_text("1")
        raise KeyboardInterrupt

    def go_on(folder: Path) -> None:
        (folder / "journal").write_text((folder / "journal").read_text() + "2")

    store = Store(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        store.get("kind", {}, begin, resumable=True)
    assert (store.get("kind", {}, go_on, resumable=True) / "journal").read_text() == "12"


def _make_slowly(folder: Path) -> None:
    time.sleep(0.5)
    (folder / f"made-{time.monotonic_ns()}").touch()


def _ask(root: Path) -> None:
    Store(root).get("kind", {"shared": True}, _make_slowly)


def test_jobs_side_by_side_make_it_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_ask, args=(tmp_path,)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    [folder] = [path for path in tmp_path.iterdir() if path.is_dir()]
    assert len(list(folder.glob("made-*"))) == 1


@pytest.mark.parametrize("kind", ["empty", "half", "zeros"])
@pytest.mark.parametrize("name", ["values.bin", "inner/note.txt", "artifact.json"])
def test_what_was_damaged_is_kept_aside_and_made_again(
    store: Store, name: str, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    def make(folder: Path) -> None:
        (folder / "inner").mkdir()
        (folder / "values.bin").write_bytes(bytes(range(256)) * 8192)  # too large to be read on every use
        (folder / "inner" / "note.txt").write_text("short")

    path = store.get("made", {"of": 1}, make)
    file = path / name
    whole = file.read_bytes()
    half = len(whole) // 2
    file.write_bytes({"empty": b"", "half": whole[:half], "zeros": whole[:half] + bytes(len(whole) - half)}[kind])
    assert store.get("made", {"of": 1}, make) == path
    assert (path / name).exists() and (name == "artifact.json" or (path / name).read_bytes() == whole)
    assert len(caplog.messages) == 1 and f"keeping it as {path.name}.damaged-1 and creating it again" in caplog.text
    store.get("made", {"of": 1}, make)
    assert len(caplog.messages) == 1


def test_a_record_that_nothing_of_ours_wrote_counts_as_damaged(store: Store) -> None:
    path = store.get("made", {"of": 1}, lambda folder: (folder / "a").write_text("x") and None)
    for files in ({"a": [1]}, {"a": "x"}, ["a"]):
        write_json(path / "artifact.json", {"key": {}, "files": files})
        assert damage(path) is not None
