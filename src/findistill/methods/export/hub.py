"""One upload to the Hugging Face hub: a repository that is private unless it is to be public, and one commit.

Files that the hub already has are not sent again, and nothing is visible before the commit: whatever an upload that broke off has
sent, the same command goes on from there.
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

KEPT = (".gitattributes",)  # files of a repository that are the hub's own
OURS = "findistill"  # the tag by which a repository is known as one that findistill wrote


def upload(repo: str, kind: str, files: Mapping[str, Path | bytes], *, private: bool) -> str:
    """Make the repository hold these files and no others, in one commit; returns its address and who sees it.

    Args:
        repo: OWNER/NAME.
        kind: `model` or `dataset`.
        files: by their names there.

    Raises:
        UserError: no token, no right, a name that is taken, no connection, or whatever the hub refuses.
    """
    token = get_token()
    if not token:
        raise UserError("export.push_to_hub: no token of the hub; type `hf auth login` once, or set the variable HF_TOKEN")
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
    """Raise UserError for a repository that this upload would make public, or overwrite though it is somebody else's work."""
    if private and not info.private:
        raise UserError(
            f"export.push_to_hub={repo}: that {kind} exists and is public, so the files would be, too.\n"
            "Add export.private=false if they may be, or choose another name"
        )
    if there and OURS not in (info.tags or []):
        raise UserError(
            f"export.push_to_hub={repo}: the name is taken: that {kind} has {len(there)} files which findistill did not upload. "
            "Choose another name"
        )


@contextmanager
def _worded(repo: str, redactor: Redactor) -> Any:
    """What the hub refuses, in one line; nothing of the token."""
    again = "The same command goes on from there, to one commit"
    try:
        yield
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        owner = repo.partition("/")[0]
        lines = {
            401: "the hub refused the token; type `hf auth login` with one that may write, or set HF_TOKEN to it",
            403: f"the token may not write to {owner}; use one with write access, or another OWNER",
            404: "the hub does not have it, or this token may not see it; check OWNER/NAME",
            409: "the name is taken, or the repository is being changed; choose another name, or try again",
            412: f"the repository was changed meanwhile, and nothing was committed. {again}",
        }
        message = (
            lines.get(status) or f"the hub answers {status or 'nothing'}: {first_line(error)}. Nothing was committed. {again}"
        )
        raise UserError(redactor.mask(f"export.push_to_hub={repo}: {message}")) from None
    except ValueError as error:  # the card's header, which the hub looks at first
        raise UserError(redactor.mask(f"export.push_to_hub={repo}: the hub refuses it: {' '.join(str(error).split())}")) from None
    except (httpx.HTTPError, OSError, RuntimeError) as error:
        message = f"the upload broke off ({first_line(error)}). {again}"
        raise UserError(redactor.mask(f"export.push_to_hub={repo}: {message}")) from None
