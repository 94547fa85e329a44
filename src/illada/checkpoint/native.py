"""Our own checkpoint folder.

    step_00000500/
        manifest.json            sizes and SHA-256 of every other file, written last
        model.json               the ModelConfig
        model.safetensors        the weights; of an adapter, its own two files (see `illada.checkpoint.adapter`)
        tokenizer.json ...       the tokenizer, in the Hugging Face layout
        optimizer.safetensors    what training alone needs
        state.json               step, loader, learning rate, running means

The folder appears in one rename: a process killed while it saves leaves the checkpoint before it untouched and none
that loads half-written.
"""

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from illada.assets import embedded_model, embedded_models
from illada.checkpoint.adapter import AdapterCard, holds_adapter, read_adapter, write_adapter
from illada.checkpoint.saved import SavedModel, check_shapes, parameter_shapes
from illada.checkpoint.stored import SINGLE, save_tensors, tensors_in
from illada.config import from_json, to_json
from illada.data.tokenizer import Tokenizer
from illada.durable import atomic_folder, sha256
from illada.model.config import ModelConfig
from illada.model.transformer import Transformer

FORMAT = 1
_NAME = re.compile(r"step_(\d{8,})")


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What a checkpoint folder holds; the tensors are on the CPU."""

    model_config: ModelConfig
    weights: dict[str, Tensor]
    """Of an adapter, its tensors alone."""
    tokenizer: Tokenizer
    optimizer: dict[str, Tensor]
    """Empty in a checkpoint that was exported without training state."""
    state: dict[str, Any]


def checkpoint_path(root: Path, step: int) -> Path:
    """The folder of one step's checkpoint."""
    return root / f"step_{step:08d}"


def save_checkpoint(
    target: Path,
    *,
    model_config: ModelConfig,
    weights: Mapping[str, Tensor],
    tokenizer: Tokenizer,
    optimizer: Mapping[str, Tensor] | None = None,
    state: Mapping[str, Any] | None = None,
    adapter: AdapterCard | None = None,
) -> None:
    """Write one checkpoint folder; it is there in full when this returns, or not at all.

    Where `adapter` says what it is, `weights` are an adapter's and are written as peft does.

    Raises:
        FileExistsError: there is such a folder.
        OSError: it could not be written: the disk is full, for one. Other checkpoints are untouched.
    """
    with atomic_folder(target) as folder:
        if adapter is None:
            save_tensors(weights, folder / SINGLE)
        else:
            write_adapter(folder, adapter, weights)
        (folder / "model.json").write_text(to_json(model_config))
        tokenizer.save(folder)
        if optimizer is not None:
            save_tensors(optimizer, folder / "optimizer.safetensors")
        (folder / "state.json").write_text(json.dumps(dict(state or {}), indent=2) + "\n")
        files = {path.name: {"bytes": path.stat().st_size, "sha256": sha256(path)} for path in sorted(folder.iterdir())}
        (folder / "manifest.json").write_text(json.dumps({"format": FORMAT, "files": files}, indent=2) + "\n")


def load_checkpoint(folder: Path, *, with_optimizer: bool = False) -> Checkpoint:
    """Read a checkpoint folder, every byte checked against its manifest first.

    Raises:
        FileNotFoundError: no checkpoint is there.
        ValueError: a file is missing, truncated, altered or of another format; the message names it.
    """
    verify_checkpoint(folder)
    optimizer = folder / "optimizer.safetensors"
    return Checkpoint(
        model_config=read_model_config(folder),
        weights=read_adapter(folder).tensors if holds_adapter(folder) else load_file(folder / SINGLE),
        tokenizer=Tokenizer.load(folder),
        optimizer=load_file(optimizer) if with_optimizer and optimizer.exists() else {},
        state=json.loads((folder / "state.json").read_text()),
    )


def open_checkpoint(folder: Path) -> SavedModel:
    """The model of a checkpoint folder, its weights left in their file; every byte is checked, as in `load_checkpoint`.

    Raises:
        FileNotFoundError: no checkpoint is there.
        ValueError: a file is missing, truncated, altered or of another format, or the weights are another model's.
    """
    verify_checkpoint(folder)
    config = read_model_config(folder)
    tensors = tensors_in(folder / SINGLE)
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    check_shapes(shapes, parameter_shapes(config), source=folder)
    return SavedModel(folder=folder, model_config=config, tensors=tensors, tokenizer=Tokenizer.load(folder))


def is_checkpoint(folder: Path) -> bool:
    """Whether this is a checkpoint folder, complete or damaged."""
    return (folder / "manifest.json").exists()


def read_model_config(folder: Path) -> ModelConfig:
    """The shape of the model in a checkpoint, or of the one that the adapter there belongs to."""
    return from_json(ModelConfig, (folder / "model.json").read_text())


def verify_checkpoint(folder: Path) -> None:
    """Compare every file of a checkpoint with its manifest.

    Raises:
        FileNotFoundError: no checkpoint is there.
        ValueError: something is missing or damaged; the message names it.
    """
    manifest = folder / "manifest.json"
    if not manifest.exists():
        raise FileNotFoundError(f"{folder} is no checkpoint: it holds no manifest.json")
    try:
        content = json.loads(manifest.read_text())
        version = content["format"]
        files = {name: (entry["bytes"], entry["sha256"]) for name, entry in content["files"].items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{manifest} is damaged: use an earlier checkpoint") from error
    if version != FORMAT:
        raise ValueError(f"{folder} has checkpoint format {version}; this version of illada reads format {FORMAT}")
    for name, (size, digest) in files.items():
        path = folder / name
        if not path.exists():
            raise ValueError(f"checkpoint {folder} is damaged: {name} is missing; use an earlier checkpoint")
        if path.stat().st_size != size or sha256(path) != digest:
            raise ValueError(f"checkpoint {folder} is damaged: {name} was altered; use an earlier checkpoint")


def load_weights(model: Transformer, weights: Mapping[str, Tensor], *, source: str) -> None:
    """Copy weights into a model; a tensor that is missing, unexpected or of another shape is an error by name.

    Raises:
        ValueError: the weights are not those of such a model; `source` says in the message where they are from.
    """
    copy_tensors(model.state_dict(), weights, source=source)


def copy_tensors(own: Mapping[str, Tensor], weights: Mapping[str, Tensor], *, source: str) -> None:
    """Overwrite some of a model's tensors, all of them and no others: `load_weights` for a part of a model.

    Raises:
        ValueError: as there.
    """
    wrong = [f"{name} is missing" for name in own if name not in weights]
    wrong += [f"{name} is not part of the model" for name in weights if name not in own]
    wrong += [
        f"{name} is {list(weights[name].shape)} and should be {list(own[name].shape)}"
        for name in own
        if name in weights and weights[name].shape != own[name].shape
    ]
    if wrong:
        more = f" (and {len(wrong) - 3} more)" if len(wrong) > 3 else ""
        raise ValueError(f"{source} does not fit the model: {'; '.join(wrong[:3])}{more}")
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(weights[name])


def list_checkpoints(root: Path) -> list[tuple[int, Path]]:
    """(step, folder) of the complete checkpoints under `root`, oldest first."""
    if not root.is_dir():
        return []
    found = [(int(match[1]), path) for path in root.iterdir() if (match := _NAME.fullmatch(path.name))]
    return sorted((step, path) for step, path in found if is_checkpoint(path))


def find_checkpoint(path: Path) -> Path:
    """The checkpoint that a user means by `path`: itself, the newest of the run folder, or an embedded model's.

    Raises:
        FileNotFoundError: there is none.
    """
    if not path.exists():
        if (embedded := embedded_model(str(path))) is not None:
            return embedded
        names = "".join(f" or {name!r}" for name in embedded_models())
        raise FileNotFoundError(f"{path} does not exist: give a run folder or a checkpoint folder{names}")
    if is_checkpoint(path):
        return path
    checkpoints = list_checkpoints(path / "checkpoints") or list_checkpoints(path)
    if not checkpoints:
        raise FileNotFoundError(f"{path} holds no checkpoint: give a run folder or a checkpoint folder")
    return checkpoints[-1][1]


def retain(root: Path, *, last: int, every: int | None = None) -> None:
    """Delete all but the newest `last` checkpoints and those whose step is a multiple of `every`."""
    for step, path in list_checkpoints(root)[:-last]:
        if every is None or step % every:
            # without its manifest it is no checkpoint: a deletion that is cut short leaves nothing that loads
            (path / "manifest.json").unlink()
            shutil.rmtree(path)
