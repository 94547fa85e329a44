"""What a user means by a model: a run, a checkpoint, a model in the package, a published folder, an id on the hub."""

import hashlib
from dataclasses import replace
from pathlib import Path

from illada.assets import embedded_models
from illada.checkpoint.adapter import SavedAdapter, holds_adapter, merged, read_adapter
from illada.checkpoint.huggingface.configuration import Overrides
from illada.checkpoint.huggingface.hub import fetch, looks_like_an_id
from illada.checkpoint.huggingface.reader import is_published, open_published
from illada.checkpoint.native import (
    find_checkpoint,
    is_checkpoint,
    open_checkpoint,
    read_model_config,
    verify_checkpoint,
)
from illada.checkpoint.saved import SavedModel
from illada.data.tokenizer import Tokenizer
from illada.durable import sha256
from illada.model.config import Attention


def find_model(where: str | Path) -> Path:
    """The folder that holds the model: a checkpoint of ours, a published one, or an adapter.

    `where` is a run folder (its newest checkpoint), a checkpoint folder, the name of a model that comes with the
    package, a published folder, or an id on the hub such as `GSAI-ML/LLaDA-8B-Base`, with `@revision` behind it if
    wanted. An id is looked up in the hub's cache first, then on the hub.

    Raises:
        FileNotFoundError: there is no such thing; one line says what was looked for.
        ValueError: the hub refuses.
    """
    path = Path(where)
    if path.exists():
        return path if is_published(path) or holds_adapter(path) else find_checkpoint(path)
    if str(where) not in embedded_models() and looks_like_an_id(str(where)):
        return fetch(str(where))
    return find_checkpoint(path)


def open_model(where: str | Path, overrides: Overrides = Overrides()) -> SavedModel:  # noqa: B008  # it is frozen
    """Find a model and check it; its weights are not read yet. An adapter is merged with the model it belongs to.

    Raises:
        FileNotFoundError: there is none, or a file of it is missing.
        ValueError: it is damaged or not supported, or there is something to override in a checkpoint of ours, which
            says all of that itself.
    """
    folder = find_model(where)
    if holds_adapter(folder):
        adapter = open_adapter(folder)
        return merged(open_base(adapter, overrides), adapter)
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


def open_adapter(where: str | Path) -> SavedAdapter:
    """The adapter in a folder that peft wrote, in a checkpoint, or in the newest checkpoint of a run.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is damaged.
    """
    folder = Path(where)
    if not folder.exists():
        raise FileNotFoundError(f"there is no adapter in {folder}: give a run or checkpoint with one, or peft's folder")
    if not holds_adapter(folder):
        folder = find_checkpoint(folder)
    if is_checkpoint(folder):
        verify_checkpoint(folder)
    return read_adapter(folder)


def open_base(adapter: SavedAdapter, overrides: Overrides = Overrides()) -> SavedModel:  # noqa: B008  # it is frozen
    """The model that an adapter was trained on, as it was assumed to be then.

    Raises:
        FileNotFoundError: it is no longer where it was.
        ValueError: the adapter does not say where that is, or the model has changed since.
    """
    try:
        folder = find_model(adapter.base_model)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"the adapter in {adapter.folder} belongs to {adapter.base_model}, which is not there: load that model "
            "from where it is now, with this adapter"
        ) from error
    if folder == adapter.folder:
        raise ValueError(f"the adapter in {folder} says that it belongs to itself")
    trained_here = is_checkpoint(adapter.folder)
    if is_published(folder):
        return open_model(folder, _assumed(adapter.folder, overrides) if trained_here else overrides)
    if trained_here and model_digest(folder) != adapter.card.base_digest:
        raise ValueError(f"{folder} has changed since the adapter in {adapter.folder} was trained on it")
    return open_model(folder, overrides)


def _assumed(folder: Path, given: Overrides) -> Overrides:
    """What the run that trained an adapter knew of a published model, unless said otherwise now."""
    known = read_model_config(folder)
    assumed = {name: getattr(known, name) for name in ("rope_theta", "norm_eps", "attention", "shifted")}
    now = {name: getattr(given, name) for name in given.given}
    return Overrides(**{**assumed, "special_tokens": Tokenizer.load(folder).texts, **now})


def model_digest(folder: Path) -> str:
    """The SHA-256 over all that a model of `find_model` computes with: weights, configuration, tokenizer."""
    if is_checkpoint(folder):
        return sha256(folder / "manifest.json")  # which holds the sums of the other files
    files = [path for path in sorted(folder.iterdir()) if path.suffix in (".json", ".jinja", ".safetensors")]
    sums = "".join(f"{path.name} {sha256(path)}\n" for path in files)
    return hashlib.sha256(sums.encode()).hexdigest()
