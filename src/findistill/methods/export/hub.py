"""One upload to the Hugging Face hub: a repository, private by default, and one commit.

Files that the hub already has are not sent again, and nothing is visible before the commit: the same command resumes an
interrupted upload.
"""

from collections.abc import Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants, get_token
from huggingface_hub.errors import HfHubHTTPError

from findistill.core.connection import reachable
from findistill.errors import UserError, first_line
from findistill.llm.secrets import Redactor

KEPT = (".gitattributes",)  # files that the hub itself adds to a repository
OURS = "findistill"  # the tag of repositories that findistill wrote


def upload(repo: str, kind: str, files: Mapping[str, Path | bytes], *, private: bool) -> str:
    """Make the repository contain exactly these files, in one commit; returns its address and visibility.

    Args:
        repo: OWNER/NAME.
        kind: `model` or `dataset`.
        files: by name in the repository.

    Raises:
        UserError: no token, no permission, a name that is taken, no connection, or another refusal by the hub.
    """
    token = get_token()
    if not token:
        raise UserError("export.push_to_hub: no hub token; run `hf auth login` once, or set the variable HF_TOKEN")
    if constants.HF_HUB_OFFLINE:
        raise UserError("export.push_to_hub: HF_HUB_OFFLINE is set, so nothing can be uploaded; unset it")
    if not reachable(constants.ENDPOINT):
        raise UserError(f"export.push_to_hub: {urlsplit(constants.ENDPOINT).netloc} cannot be reached; nothing has been uploaded")
    api = HfApi(endpoint=constants.ENDPOINT, token=token)
    with _worded(repo, Redactor(token)):
        address = str(api.create_repo(repo, repo_type=kind, private=private, exist_ok=True))
        info: Any = api.repo_info(repo, repo_type=kind)
        there = {one.rfilename for one in info.siblings or []} - set(KEPT)
        _check(repo, kind, info, there, private=private)
        api.create_commit(
            repo, [*(CommitOperationAdd(name, content) for name, content in files.items()),
                   *(CommitOperationDelete(name) for name in sorted(there - files.keys()))],
            commit_message="Upload by findistill", repo_type=kind, parent_commit=info.sha,
        )  # fmt: skip
    return f"{address} ({'private' if info.private else 'public'})"


def _check(repo: str, kind: str, info: Any, there: set[str], *, private: bool) -> None:
    """Raise UserError if private files would go to a public repository, or if findistill did not write its present files."""
    if private and not info.private:
        raise UserError(
            f"export.push_to_hub={repo}: that {kind} exists and is public, so the files would be public too.\n"
            "Add export.private=false to allow this, or choose another name"
        )
    if there and OURS not in (info.tags or []):
        raise UserError(
            f"export.push_to_hub={repo}: the name is taken: that {kind} has {len(there)} files that findistill did not upload; "
            "choose another name"
        )


@contextmanager
def _worded(repo: str, redactor: Redactor) -> Any:
    """Turn errors of the hub into UserErrors of one line, without the token."""
    again = "Run the same command to resume"
    try:
        yield
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        owner = repo.partition("/")[0]
        lines = {
            401: "the hub rejected the token; run `hf auth login` with a write token, or set HF_TOKEN to one",
            403: f"the token has no write access to {owner}; use one that has, or another OWNER",
            404: "not found on the hub, or not visible to this token; check OWNER/NAME",
            409: "the name is taken, or the repository is being modified; choose another name, or try again",
            412: f"the repository was modified during the upload, and nothing was committed. {again}",
        }
        other = f"the hub responded with {status or 'no status'}: {first_line(error)}. Nothing was committed. {again}"
        message = lines.get(status, other)
        raise UserError(redactor.mask(f"export.push_to_hub={repo}: {message}")) from None
    except ValueError as error:  # the card's header, which the hub checks first
        message = f"rejected by the hub: {' '.join(str(error).split())}"
        raise UserError(redactor.mask(f"export.push_to_hub={repo}: {message}")) from None
    except (httpx.HTTPError, OSError, RuntimeError) as error:
        message = f"the upload was interrupted ({first_line(error)}). {again}"
        raise UserError(redactor.mask(f"export.push_to_hub={repo}: {message}")) from None
