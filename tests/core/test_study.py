"""A study accepts jobs that differ only in what it varies, and refuses others, showing the difference."""

from pathlib import Path

import pytest

from findistill.config.overrides import flatten
from findistill.core.files import read_json, write_json
from findistill.core.study import admit, note_command
from findistill.errors import UserError


def job(threshold: int = 5, epochs: int = 3, seed: int = 0) -> dict[str, object]:
    return {"stage": "student", "distill": {"min_agreement": threshold}, "trainer": {"max_epochs": epochs}, "seed": seed}


def write_done_job(study: Path, stage: str = "student") -> None:
    """Write a completed job, whose settings others must be compatible with, to the study."""
    write_json(study / f"{stage}-0" / "status.json", {"state": "done"})


def test_flatten() -> None:
    assert flatten({"a": {"b": 1, "c": {"d": [1, 2]}}, "e": {}}) == {"a.b": 1, "a.c.d": [1, 2], "e": {}}


def test_swept_settings_and_seeds_may_differ(tmp_path: Path) -> None:
    admit(tmp_path, "moon", [job(5), job(6), job(5, seed=1)], ["distill.min_agreement"])
    write_done_job(tmp_path)
    admit(tmp_path, "moon", [job(8, seed=7)], [])
    assert read_json(tmp_path / "study.json")["stages"]["student"]["varied"] == [
        "data.labelled_seed",
        "distill.min_agreement",
        "seed",
    ]


def test_a_swept_group_frees_all_its_settings(tmp_path: Path) -> None:
    admit(tmp_path, "moon", [job(5), job(8)], ["distill"])


def test_other_fixed_settings_are_refused_and_shown(tmp_path: Path) -> None:
    admit(tmp_path, "moon", [job()], [])
    write_done_job(tmp_path)
    before = (tmp_path / "study.json").read_bytes()
    with pytest.raises(UserError, match=r"trainer.max_epochs: 3 in the study, 5 in this command"):
        admit(tmp_path, "moon", [job(epochs=5)], [])
    assert (tmp_path / "study.json").read_bytes() == before
    admit(tmp_path, "moon", [job(epochs=5)], ["trainer.max_epochs"])


def test_settings_of_a_first_command_that_failed_bind_no_other(tmp_path: Path) -> None:
    admit(tmp_path, "moon", [job(epochs=30)], [])
    write_json(tmp_path / "student-0" / "status.json", {"state": "failed"})
    admit(tmp_path, "moon", [job()], [])
    write_done_job(tmp_path)
    with pytest.raises(UserError, match="3 in the study, 30 in this command"):
        admit(tmp_path, "moon", [job(epochs=30)], [])


@pytest.mark.parametrize("content", [b"", b'{"study": "moon", "sta', bytes(50), b"[]", b'{"study": "moon", "stages": {"s": 1}}'])
def test_a_damaged_record_is_written_again(tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "study.json").write_bytes(content)
    admit(tmp_path, "moon", [job()], [])
    assert "cannot be read" in caplog.text and read_json(tmp_path / "study.json")["study"] == "moon"


def test_a_section_that_some_jobs_do_not_read_is_compared_among_those_that_do(tmp_path: Path) -> None:
    use = {"augment": {"use": True}, "llm": {"name": "smollm2"}}
    admit(tmp_path, "moon", [job(), {**job(), **use}, job(seed=1)], ["augment.use"])
    write_done_job(tmp_path)
    with pytest.raises(UserError, match=r"llm.name: 'smollm2' in the study, 'other' in this command"):
        admit(tmp_path, "moon", [{**job(), **use, "llm": {"name": "other"}}], [])


def test_single_settings_of_a_section_are_compared_where_a_job_reads_them(tmp_path: Path) -> None:
    def token(**recipe: int) -> dict[str, object]:
        return {**job(), "entities.model": "token", "entities.token": {"epochs": 4, **recipe}}

    admit(tmp_path, "moon", [token()], ["entities.model"])
    write_done_job(tmp_path)
    admit(tmp_path, "moon", [{**job(), "entities.model": "gliner", "entities.gliner": {"epochs": 9}}], [])
    admit(tmp_path, "moon", [token()], [])
    with pytest.raises(UserError, match=r"entities.token.epochs: 4 in the study, 5 in this command"):
        admit(tmp_path, "moon", [token(epochs=5)], [])
    with pytest.raises(UserError, match=r"entities.token.min_steps: None in the study, 600 in this command"):
        admit(tmp_path, "moon", [token(min_steps=600)], [])


def test_stages_of_a_study_have_settings_of_their_own(tmp_path: Path) -> None:
    admit(tmp_path, "moon", [job()], [])
    admit(tmp_path, "moon", [{**job(epochs=9), "stage": "teacher"}], [])


def test_the_folder_of_another_study_is_refused(tmp_path: Path) -> None:
    admit(tmp_path, "moon", [job()], [])
    with pytest.raises(UserError, match="belongs to the study 'moon'"):
        admit(tmp_path, "mars", [job()], [])


def test_the_unnamed_study_takes_anything(tmp_path: Path) -> None:
    admit(tmp_path, "default", [job()], [])
    admit(tmp_path, "default", [job(epochs=9)], [])


def test_commands_are_noted_once_without_secrets_and_without_torn_lines(tmp_path: Path) -> None:
    note_command(tmp_path, ["-m", "seed=0,1", "llm.base_url=http://me:pass@host/v1"])
    with (tmp_path / "commands.txt").open("ab") as file:
        file.write(b"findistill half\xff\n\0\0\0\0")
    note_command(tmp_path, ["stage=teacher"])
    note_command(tmp_path, ["stage=teacher"])
    first = "findistill -m seed=0,1 'llm.base_url=http://***@host/v1'"
    assert (tmp_path / "commands.txt").read_text() == f"{first}\nfindistill stage=teacher\n"
