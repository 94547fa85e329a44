"""What a user means by a model: a run, a checkpoint, a model in the package, a published folder, an id on the hub."""

import hashlib
from dataclasses import replace
from pathlib import Path

from illada.assets import embedded_models
from illada.checkpoint.huggingface.configuration import Overrides
from illada.checkpoint.huggingface.hub import fetch, looks_like_an_id
from illada.checkpoint.huggingface.reader import is_published, open_published
from illada.checkpoint.native import find_checkpoint, open_checkpoint
from illada.checkpoint.saved import SavedModel
from illada.durable import sha256
from illada.model.config import Attention


def find_model(where: str | Path) -> Path:
    """The folder that holds the model: a checkpoint of ours, or a published one.

    `where` is a run folder (its newest checkpoint), a checkpoint folder, the name of a model that comes with the
    package, a published folder, or an id on the hub such as `GSAI-ML/LLaDA-8B-Base`, with `@revision` behind it if
    wanted. An id is looked up in the hub's cache first, then on the hub.

    Raises:
        FileNotFoundError: there is no such thing; one line says what was looked for.
        ValueError: the hub refuses.
    """
    path = Path(where)
    if path.exists():
        return path if is_published(path) else find_checkpoint(path)
    if str(where) not in embedded_models() and looks_like_an_id(str(where)):
        return fetch(str(where))
    return find_checkpoint(path)


def open_model(where: str | Path, overrides: Overrides = Overrides()) -> SavedModel:  # noqa: B008  # it is frozen
    """Find a model and check it; its weights are not read yet.

    Raises:
        FileNotFoundError: there is none, or a file of it is missing.
        ValueError: it is damaged or not supported, or there is something to override in a checkpoint of ours, which
            says all of that itself.
    """
    folder = find_model(where)
    if is_published(folder):
        return open_published(folder, overrides)
    if overrides.given:
        raise ValueError(f"{folder} says itself what {', '.join(overrides.given)} is: only published folders may not")
    return open_checkpoint(folder)


def open_start(
    where: str | Path,
    overrides: Overrides = Overrides(),  # noqa: B008  # it is frozen
    *,
    attention: Attention,
) -> SavedModel:
    """`open_model` for training with an objective that needs `attention`.

    Where that is bidirectional, a causal model of a published folder becomes a diffusion model, if not told else.

    Raises:
        FileNotFoundError: as `open_model`.
        ValueError: as `open_model`.
    """
    saved = open_model(where, overrides)
    converts = attention == "bidirectional" and overrides.attention is None and is_published(saved.folder)
    if converts and saved.model_config.attention == "causal":
        return open_model(where, replace(overrides, attention="bidirectional"))
    return saved


def model_digest(folder: Path) -> str:
    """The SHA-256 over all that a model of `find_model` computes with: weights, configuration, tokenizer."""
    if not is_published(folder):
        return sha256(folder / "manifest.json")  # which holds the sums of the other files
    files = [path for path in sorted(folder.iterdir()) if path.suffix in (".json", ".jinja", ".safetensors")]
    sums = "".join(f"{path.name} {sha256(path)}\n" for path in files)
    return hashlib.sha256(sums.encode()).hexdigest()
