"""An id on the hub -> a folder in its cache; a folder -> the hub. The library `huggingface_hub` does both.

Only configuration, tokenizer and safetensors are fetched: code and pickles that lie beside them never reach the disk.
"""

import re
from pathlib import Path
from typing import Any

from illada.checkpoint.stored import INDEX, weight_files

FETCHED = (
    "*.safetensors",
    INDEX,
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
)
"""Patterns of the files that are fetched, in the top folder only."""

_ID = re.compile(r"(?P<id>\w[\w.-]*/\w[\w.-]*)(@(?P<revision>[\w./-]+))?")


def looks_like_an_id(where: str) -> bool:
    """OWNER/NAME or OWNER/NAME@REVISION, where OWNER is no folder here."""
    return _ID.fullmatch(where) is not None and not Path(where).parent.exists()


def fetch(where: str) -> Path:
    """The folder of OWNER/NAME[@REVISION] in the hub's cache, downloaded if it is not there in full.

    Raises:
        FileNotFoundError: it is neither in the cache nor to be had: misspelt, private, gated, or no network. One line
            says which.
    """
    import huggingface_hub

    match = _ID.fullmatch(where)
    assert match is not None
    name, revision = match["id"], match["revision"]
    wanted: dict[str, Any] = {
        "repo_id": name,
        "revision": revision,
        "allow_patterns": list(FETCHED),
        "ignore_patterns": ["*/*"],
    }
    try:
        folder = Path(huggingface_hub.snapshot_download(**wanted, local_files_only=True))
        if weight_files(folder) and (folder / "config.json").is_file():
            return folder
    except (FileNotFoundError, ValueError):
        pass  # not there, or not all of it
    try:
        return Path(huggingface_hub.snapshot_download(**wanted))
    except Exception as error:  # the library raises its own errors and those of three others
        raise FileNotFoundError(f"{where} is no folder here, and {_reason(error, name, revision)}") from error


def _reason(error: Exception, name: str, revision: str | None) -> str:
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        return (
            f"on the hub {name} is gated: accept its conditions at https://huggingface.co/{name}, then `hf auth login`"
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"the hub has no model {name}, or it is private: check the spelling, or log in with `hf auth login`"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"on the hub {name} has no revision {revision}"
    return f"{name} is not in the hub's cache, nor can the hub be reached ({type(error.__cause__ or error).__name__})"


def check_login(name: str) -> None:
    """Make sure that somebody is logged in and that `name` can be an id, before work is done for an upload.

    Raises:
        ValueError: `name` is no OWNER/NAME.
        OSError: nobody is logged in, or the hub cannot be reached.
    """
    import huggingface_hub

    if _ID.fullmatch(name) is None or "@" in name:
        raise ValueError(f"an id on the hub is OWNER/NAME, got {name!r}")
    try:
        huggingface_hub.HfApi().whoami()
    except Exception as error:  # the library raises its own errors and those of three others
        raise OSError(f"cannot push to {name}: {_why_not(error)}") from error


def push(folder: Path, name: str, *, private: bool) -> str:
    """Upload a folder as the model `name`, which is made if it is not there; returns its address.

    Raises:
        OSError: the hub refuses, or cannot be reached.
    """
    import huggingface_hub

    api = huggingface_hub.HfApi()
    try:
        address = api.create_repo(name, private=private, exist_ok=True)
        api.upload_folder(repo_id=name, folder_path=folder)
    except Exception as error:  # the library raises its own errors and those of three others
        raise OSError(f"cannot push to {name}, {folder} is kept: {_why_not(error)}") from error
    return str(address)


def _why_not(error: Exception) -> str:
    from huggingface_hub import errors

    if isinstance(error, errors.LocalTokenNotFoundError):
        return "log in first, with `hf auth login`"
    if isinstance(error, errors.HfHubHTTPError):
        return str(error).strip().splitlines()[0]
    return f"the hub cannot be reached ({type(error).__name__})"
