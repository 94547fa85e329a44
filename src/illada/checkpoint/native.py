"""Our own checkpoint folder.

    step_00000500/
        manifest.json            sizes and SHA-256 of every other file, written last
        model.json               the ModelConfig
        model.safetensors        the weights; of an adapter, its own two files (see `illada.checkpoint.adapter`)
        tokenizer.json ...       the tokenizer, in the Hugging Face layout
        optimizer.safetensors    what training alone needs
        state.json               step, loader, learning rate, running means

Where several processes write, the tensors lie in several files (`illada.checkpoint.pieces`).

The folder appears in one rename: a process killed while it saves leaves the checkpoint before it untouched and none
that loads half-written.
"""

import hashlib
import json
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from illada.assets import embedded_model, embedded_models
from illada.checkpoint.adapter import AdapterCard, holds_adapter, read_adapter, write_adapter
from illada.checkpoint.pieces import INDEX, Index, open_tensors, read_tensors
from illada.checkpoint.saved import SavedModel, check_shapes, parameter_shapes
from illada.checkpoint.stored import SINGLE, save_tensors
from illada.config import from_json, to_json
from illada.data.tokenizer import Tokenizer
from illada.durable import atomic_folder, sha256, sweep
from illada.model.config import ModelConfig
from illada.model.transformer import Transformer

FORMAT = 1
FORMAT_IN_PIECES = 2
_NAME = re.compile(r"step_(\d{8,})")


class DamagedError(ValueError):
    """A checkpoint is not what was written; the message names the file."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what}; use an earlier checkpoint")
        self.what = what


@dataclass(frozen=True, kw_only=True)
class FileRecord:
    """What the manifest says of a file."""

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Particulars:
    """What a checkpoint holds beside its tensors."""

    model_config: ModelConfig
    tokenizer: Tokenizer
    state: Mapping[str, Any]
    adapter: AdapterCard | None = None
    """Where the tensors are an adapter's, not a model's."""


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
        if optimizer is not None:
            save_tensors(optimizer, folder / "optimizer.safetensors")
        complete(folder, Particulars(model_config=model_config, tokenizer=tokenizer, state=state or {}))


def complete(
    folder: Path, particulars: Particulars, *, index: Index | None = None, written: Sequence[FileRecord] = ()
) -> None:
    """Write what a checkpoint holds beside its tensors, and last the manifest of all files.

    Args:
        folder: where the tensors lie already.
        particulars: what is written.
        index: which block lies where, if the tensors are in pieces.
        written: files whose checksums are known; the others are read for theirs.
    """
    (folder / "model.json").write_text(to_json(particulars.model_config))
    particulars.tokenizer.save(folder)
    (folder / "state.json").write_text(json.dumps(dict(particulars.state), indent=2) + "\n")
    if index is not None:
        (folder / INDEX).write_text(to_json(index))
    records = {record.name: record for record in written}
    records |= {path.name: record_of(path) for path in folder.iterdir() if path.name not in records}
    files = {name: {"bytes": record.bytes, "sha256": record.sha256} for name, record in sorted(records.items())}
    content = {"format": FORMAT if index is None else FORMAT_IN_PIECES, "files": files}
    (folder / "manifest.json").write_text(_text_of(content | {"sha256": _digest(content)}))


def record_of(path: Path) -> FileRecord:
    """Size and checksum of a file, as it is on the disk."""
    return FileRecord(name=path.name, bytes=path.stat().st_size, sha256=sha256(path))


def load_checkpoint(folder: Path, *, with_optimizer: bool = False) -> Checkpoint:
    """Read a checkpoint folder, every byte checked against its manifest first.

    Raises:
        FileNotFoundError: no checkpoint is there.
        ValueError: a file is missing, truncated, altered or of another format; the message names it.
    """
    verify_checkpoint(folder)
    return Checkpoint(
        model_config=read_model_config(folder),
        weights=read_adapter(folder).tensors if holds_adapter(folder) else read_tensors(folder, "model"),
        tokenizer=Tokenizer.load(folder),
        optimizer=read_tensors(folder, "optimizer") if with_optimizer else {},
        state=read_state(folder),
    )


def read_state(folder: Path) -> dict[str, Any]:
    """The part of a checkpoint that is no tensor, but for model and tokenizer; it is not checked here."""
    state: dict[str, Any] = json.loads((folder / "state.json").read_text())
    return state


def open_checkpoint(folder: Path) -> SavedModel:
    """The model of a checkpoint folder, its weights left on the disk; every byte is checked, as in `load_checkpoint`.

    Raises:
        FileNotFoundError: no checkpoint is there.
        ValueError: a file is missing, truncated, altered or of another format, or the weights are another model's.
    """
    verify_checkpoint(folder)
    config = read_model_config(folder)
    tensors = open_tensors(folder, "model")
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    check_shapes(shapes, parameter_shapes(config), source=folder)
    return SavedModel(folder=folder, model_config=config, tensors=tensors, tokenizer=Tokenizer.load(folder))


def is_checkpoint(folder: Path) -> bool:
    """Whether this is a checkpoint folder, complete or damaged."""
    return (folder / "manifest.json").exists()


def read_model_config(folder: Path) -> ModelConfig:
    """The shape of the model in a checkpoint, or of the one that the adapter there belongs to."""
    return from_json(ModelConfig, (folder / "model.json").read_text())


def verify_checkpoint(folder: Path, *, part: int = 0, parts: int = 1) -> None:
    """Compare the files of a checkpoint with its manifest; of several `parts`, one reads the content of its share.

    Raises:
        FileNotFoundError: no checkpoint is there.
        ValueError: it has another format; or, as `DamagedError`, something is missing or damaged. The message names it.
    """
    for number, record in enumerate(_read_manifest(folder)):
        path = folder / record.name
        if not path.exists():
            raise DamagedError(f"checkpoint {folder} is damaged: {record.name} is missing")
        altered = path.stat().st_size != record.bytes
        if altered or (number % parts == part and sha256(path) != record.sha256):
            raise DamagedError(f"checkpoint {folder} is damaged: {record.name} was altered")


def _read_manifest(folder: Path) -> list[FileRecord]:
    manifest = folder / "manifest.json"
    if not manifest.exists():
        raise FileNotFoundError(f"{folder} is no checkpoint: it holds no manifest.json")
    try:
        text = manifest.read_text()
        content = json.loads(text)
        # all are written in one way, down to the blanks; the first had no sum of their own
        whole = text == _text_of(content)
        told = content.pop("sha256", None)
        if not whole or set(content) != {"format", "files"} or told not in (None, _digest(content)):
            raise ValueError("it is not what was written")
        version = content["format"]
        files = [
            FileRecord(name=name, bytes=entry["bytes"], sha256=entry["sha256"])
            for name, entry in content["files"].items()
        ]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DamagedError(f"{manifest} is damaged") from error
    if version not in (FORMAT, FORMAT_IN_PIECES):
        raise ValueError(
            f"{folder} has checkpoint format {version}; this version of illada reads formats {FORMAT} and "
            f"{FORMAT_IN_PIECES}"
        )
    return files


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
    check_fit(
        {name: tuple(tensor.shape) for name, tensor in own.items()},
        {name: tuple(tensor.shape) for name, tensor in weights.items()},
        source=source,
    )
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(weights[name])


def check_fit(
    own: Mapping[str, tuple[int, ...]], given: Mapping[str, tuple[int, ...]], *, source: str, what: str = "the model"
) -> None:
    """Refuse tensors that are missing, unexpected or of another shape than `own` has.

    Raises:
        ValueError: there are such; `source` says in the message where they are from.
    """
    wrong = [f"{name} is missing" for name in own if name not in given]
    wrong += [f"{name} is not part of {what}" for name in given if name not in own]
    wrong += [
        f"{name} is {list(given[name])} and should be {list(own[name])}"
        for name in own
        if name in given and given[name] != own[name]
    ]
    if wrong:
        more = f" (and {len(wrong) - 3} more)" if len(wrong) > 3 else ""
        raise ValueError(f"{source} does not fit {what}: {'; '.join(wrong[:3])}{more}")


def list_checkpoints(root: Path) -> list[tuple[int, Path]]:
    """(step, folder) of the complete checkpoints under `root`, oldest first."""
    found = [(int(match[1]), path) for path in _entries(root) if (match := _NAME.fullmatch(path.name))]
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


def set_aside(checkpoint: Path) -> Path:
    """Rename a damaged checkpoint so that none finds it, and its step can be saved again; returns its new place."""
    taken = checkpoint.parent.glob(f"{checkpoint.name}.damaged*")
    aside = checkpoint.with_name(f"{checkpoint.name}.damaged-{len(list(taken)) + 1}")
    checkpoint.rename(aside)
    return aside


def sweep_partial(root: Path) -> None:
    """Remove what dead processes of this machine left of checkpoints that they did not complete."""
    names = {match[1] for path in _entries(root) if (match := re.match(r"\.(step_\d{8,})\.partial-", path.name))}
    for name in names:
        sweep(root / name)


def _text_of(manifest: Mapping[str, Any]) -> str:
    return json.dumps(manifest, indent=2) + "\n"


def _digest(content: Mapping[str, Any]) -> str:
    """Of format and files: what is said of the files is as sure as the files."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _entries(root: Path) -> Iterable[Path]:
    return list(root.iterdir()) if root.is_dir() else []
