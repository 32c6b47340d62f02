"""Passwords and API keys in settings do not get into names, files, hashes or messages."""

import pytest

from findistill.config.fields import result_settings, without_secrets


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://me:pass@host:80/v1", "http://***@host:80/v1"),
        ("postgresql://me:p@ss@host/db", "postgresql://***@host/db"),
        ("logger.mlflow.tracking_uri=http://me:pass@host", "logger.mlflow.tracking_uri=http://***@host"),
        ("https://host/v1?api-version=1&api-key=abc#x", "https://host/v1?api-version=1&api-key=***#x"),
        ("++llm.extra_body.api_key=abc", "++llm.extra_body.api_key=***"),
        ("llm.api_key_env=OPENAI_API_KEY", "llm.api_key_env=OPENAI_API_KEY"),
        ("llm.batch_tokens=64", "llm.batch_tokens=64"),
        ("llm.extra_body={api_key: abc, n: 1}", "llm.extra_body={api_key: ***, n: 1}"),
        (
            "llm.extra_headers={'X-Api-Key':'a b',Authorization: Bearer abc}",
            "llm.extra_headers={'X-Api-Key':***,Authorization: ***}",
        ),
        ("prompt.wording={token: crypto, key: rate}", "prompt.wording={token: crypto, key: rate}"),
        ("distill.terms.query_key=0.5", "distill.terms.query_key=0.5"),
        ("mail me@host // or you@host", "mail me@host // or you@host"),
    ],
)
def test_texts(text: str, expected: str) -> None:
    assert without_secrets(text) == expected


def test_nested_values_and_keys_of_steps() -> None:
    settings = {"a": ["http://me:pass@host"], "headers": {"Authorization": "Bearer abc", "x-api-key": "abc", "n": 1}}
    assert without_secrets(settings) == {
        "a": ["http://***@host"],
        "headers": {"Authorization": "***", "x-api-key": "***", "n": 1},
    }
    assert result_settings(settings) == {"a": ["http://host"], "headers": {"n": 1}}
