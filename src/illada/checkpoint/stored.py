"""Tensors in safetensors files, read one at a time or a few rows at a time; nothing is read before it is asked for.

A file that is open is mapped into memory, and the pages that were read of it stay there until it is closed. So every
read opens the file anew: what has been copied out of it is given back at once.
"""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import safetensors
from safetensors.torch import save_file
from torch import Tensor

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"

_FLOATS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
_PIECE = 1 << 27
"""Bytes that are read at a time: 128 MiB."""


@runtime_checkable
class Stored(Protocol):
    """A tensor of floating-point numbers on disk, in one file or divided among several."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the whole of it."""
        ...

    def read(self) -> Tensor:
        """The whole of it, in the dtype of the file, on the CPU."""
        ...

    def rows(self, start: int, stop: int) -> Tensor:
        """Entries `start` to `stop` of the first dimension."""
        ...

    def pieces(self) -> Iterator[tuple[int, int]]:
        """(start, stop) over the first dimension, each of 128 MiB at most where a single row is no larger."""
        ...


@dataclass(frozen=True, kw_only=True)
class StoredTensor:
    """A tensor of floating-point numbers in a file."""

    file: Path
    name: str
    """What the file calls it."""
    shape: tuple[int, ...]
    dtype: str
    """As safetensors writes it: F32, BF16, F16 or F64."""

    @property
    def bytes(self) -> int:
        """Its size in the file."""
        return math.prod(self.shape) * _FLOATS[self.dtype]

    def read(self) -> Tensor:
        """The whole of it, in the dtype of the file, on the CPU."""
        with _opened(self.file) as file:
            tensor: Tensor = file.get_tensor(self.name)
        return tensor

    def rows(self, start: int, stop: int) -> Tensor:
        """Entries `start` to `stop` of the first dimension: what one process of several needs."""
        with _opened(self.file) as file:
            tensor: Tensor = file.get_slice(self.name)[start:stop]
        return tensor

    def pieces(self) -> Iterator[tuple[int, int]]:
        """(start, stop) over the first dimension, each of 128 MiB at most where a single row is no larger."""
        return pieces_of(self.shape[0], self.bytes)


def pieces_of(rows: int, size: int) -> Iterator[tuple[int, int]]:
    """(start, stop) over the rows of a tensor of `size` bytes, each of 128 MiB at most or of a single row."""
    step = max(1, _PIECE * rows // max(1, size))
    yield from ((start, min(start + step, rows)) for start in range(0, rows, step))


def weight_files(folder: Path) -> list[Path]:
    """The files of weights: `model.safetensors`, or all that an index names.

    Raises:
        FileNotFoundError: there are none, or one that the index names is missing.
        ValueError: the index cannot be read.
    """
    if (folder / SINGLE).is_file():
        return [folder / SINGLE]
    if not (folder / INDEX).is_file():
        raise FileNotFoundError(f"{folder} holds no weights: neither {SINGLE} nor {INDEX}{_pickled(folder)}")
    files = [folder / name for name in sorted(set(_weight_map(folder / INDEX).values()))]
    if missing := [file.name for file in files if not file.is_file()]:
        raise FileNotFoundError(f"{folder} is incomplete: {missing[0]}, which {INDEX} names, is missing")
    return files


def stored_tensors(folder: Path) -> dict[str, StoredTensor]:
    """All tensors of a folder with `model.safetensors`, or with several files and an index, in the order of the files.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is damaged, files and index contradict each other, or a tensor holds no floating-point
            numbers; the message names it.
    """
    files = weight_files(folder)
    if files == [folder / SINGLE]:
        return tensors_in(files[0])
    place = _weight_map(folder / INDEX)
    found: dict[str, StoredTensor] = {}
    for file in files:
        tensors = tensors_in(file)
        if strays := [tensor for tensor in tensors if place.get(tensor) != file.name]:
            raise ValueError(f"{file} holds {strays[0]}, but {INDEX} says otherwise")
        found |= tensors
    if missing := [f"{tensor} is not in {name}" for tensor, name in place.items() if tensor not in found]:
        raise ValueError(f"{folder / INDEX} is wrong: {missing[0]}")
    return found


def tensors_in(path: Path) -> dict[str, StoredTensor]:
    """The tensors of one file, in the order in which they lie there.

    Raises:
        ValueError: the file is damaged, or a tensor holds no floating-point numbers.
    """
    found = {}
    with _opened(path) as file:
        for name in file.offset_keys():
            entry = file.get_slice(name)
            if (dtype := entry.get_dtype()) not in _FLOATS:
                raise ValueError(f"{path}: {name} is stored as {dtype}, but weights must be {', '.join(_FLOATS)}")
            found[name] = StoredTensor(file=path, name=name, shape=tuple(entry.get_shape()), dtype=dtype)
    return found


def save_tensors(tensors: Mapping[str, Tensor], path: Path, *, metadata: dict[str, str] | None = None) -> None:
    """Write a file of tensors.

    Raises:
        OSError: it could not be written: the disk is full, for one.
    """
    try:
        whole = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
        save_file(whole, path, metadata)
    except safetensors.SafetensorError as error:
        # the library reports a failed write as an error of its own
        raise OSError(f"cannot write {path.name}: {error}") from error


def _opened(path: Path) -> Any:
    try:
        return safetensors.safe_open(path, framework="pt")
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} is damaged or no safetensors file: {error}") from error


def _weight_map(path: Path) -> Mapping[str, str]:
    try:
        place = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
        # a name that leads out of the folder is none
        if not all(Path(name).name == name for name in place.values()):
            raise ValueError("it names files outside of the folder")
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{path} is no readable index: {error}") from error
    return {str(tensor): str(name) for tensor, name in place.items()}


def _pickled(folder: Path) -> str:
    if any(folder.glob("*.bin")) or any(folder.glob("*.pt*")):
        return "; the weights there are pickles, which can run code and are not read: convert them to safetensors"
    return ""
