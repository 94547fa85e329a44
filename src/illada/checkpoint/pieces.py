"""Tensors on disk, whole or in pieces, and how any block of one is read.

A checkpoint of one process holds whole tensors: `model.safetensors`, `optimizer.safetensors`. Of several processes each
writes the blocks it has, `model-00001-of-00004.safetensors` ..., and `index.json` says which block lies where:

    {"tensors": {"model": {"norm.weight": {"dtype": "F32", "shape": [64], "pieces": [
        {"file": "model-00001-of-00004.safetensors", "at": [0], "shape": [32]}, ...

Reading asks for blocks, so what was written by four processes is read by three, or by one: nobody needs the whole.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Literal

import safetensors
import safetensors.torch
import torch
from safetensors import safe_open
from torch import Tensor

from illada.checkpoint.stored import Stored, pieces_of, tensors_in
from illada.config import from_json

Kind = Literal["model", "optimizer"]
Block = tuple[slice, ...]
"""Where a block lies in its tensor: one slice per dimension, with start and stop."""

INDEX = "index.json"

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""Types by the names that safetensors gives them."""


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A block of a tensor, in a file of its own or beside others."""

    file: str
    at: tuple[int, ...]
    shape: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class IndexEntry:
    """Where the pieces of a tensor lie; they cover it and do not overlap."""

    dtype: str
    """One of `DTYPES`."""
    shape: tuple[int, ...]
    pieces: tuple[Piece, ...]


@dataclass(frozen=True, kw_only=True)
class Index:
    """Where the tensors of each kind lie."""

    tensors: dict[str, dict[str, IndexEntry]]


def read_index(folder: Path, kind: Kind) -> dict[str, IndexEntry]:
    """The tensors of one kind in a checkpoint folder; none where it holds none.

    Raises:
        ValueError: the index is no such thing.
    """
    whole = folder / f"{kind}.safetensors"
    if whole.exists():
        return _of_whole_tensors(whole)
    index = folder / INDEX
    return from_json(Index, index.read_text()).tensors.get(kind, {}) if index.exists() else {}


def read_tensors(folder: Path, kind: Kind) -> dict[str, Tensor]:
    """All tensors of one kind, each put together from its pieces."""
    whole = folder / f"{kind}.safetensors"
    if whole.exists():
        return safetensors.torch.load_file(whole)
    index = read_index(folder, kind)
    tensors = {name: torch.empty(stored.shape, dtype=DTYPES[stored.dtype]) for name, stored in index.items()}
    read_blocks(folder, index, {name: (tensor, whole_block(tensor)) for name, tensor in tensors.items()})
    return tensors


def open_tensors(folder: Path, kind: Kind) -> dict[str, Stored]:
    """The tensors of one kind, left on the disk."""
    whole = folder / f"{kind}.safetensors"
    if whole.exists():
        return dict(tensors_in(whole))
    return {
        name: TensorInPieces(folder=folder, name=name, entry=entry) for name, entry in read_index(folder, kind).items()
    }


@dataclass(frozen=True, kw_only=True)
class TensorInPieces:
    """A tensor that several processes wrote, left on the disk."""

    folder: Path
    name: str
    entry: IndexEntry

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the whole of it."""
        return self.entry.shape

    def read(self) -> Tensor:
        """The whole of it, in the dtype of the files, on the CPU."""
        return self._block(tuple(slice(0, size) for size in self.shape))

    def rows(self, start: int, stop: int) -> Tensor:
        """Entries `start` to `stop` of the first dimension."""
        return self._block((slice(start, stop), *(slice(0, size) for size in self.shape[1:])))

    def pieces(self) -> Iterator[tuple[int, int]]:
        """(start, stop) over the first dimension, each of 128 MiB at most where a single row is no larger."""
        return pieces_of(self.shape[0], prod(self.shape) * DTYPES[self.entry.dtype].itemsize)

    def _block(self, block: Block) -> Tensor:
        shape = [part.stop - part.start for part in block]
        tensor = torch.empty(shape, dtype=DTYPES[self.entry.dtype])
        read_blocks(self.folder, {self.name: self.entry}, {self.name: (tensor, block)})
        return tensor


@torch.no_grad()
def read_blocks(folder: Path, index: Mapping[str, IndexEntry], into: Mapping[str, tuple[Tensor, Block]]) -> None:
    """Fill each tensor of `into` with the block of the stored tensor of that name.

    Raises:
        ValueError: the pieces do not cover a block.
    """
    missing = {name: target.numel() for name, (target, _) in into.items()}
    by_file: dict[str, list[tuple[str, Piece]]] = {}
    for name in into:
        for piece in index[name].pieces:
            by_file.setdefault(piece.file, []).append((name, piece))
    for file, pieces in by_file.items():
        with safe_open(folder / file, framework="pt") as stored:
            for name, piece in pieces:
                missing[name] -= _copy_overlap(stored.get_slice(name), piece, *into[name])
    if holes := [name for name, count in missing.items() if count]:
        raise ValueError(f"{folder} does not hold all of {holes[0]}: {missing[holes[0]]} numbers are missing")


def whole_block(tensor: Tensor) -> Block:
    """All of a tensor."""
    return tuple(slice(0, size) for size in tensor.shape)


def _of_whole_tensors(path: Path) -> dict[str, IndexEntry]:
    stored = {}
    with safe_open(path, framework="pt") as file:
        for name in file.keys():  # noqa: SIM118  # no mapping: it has keys and cannot be iterated
            view = file.get_slice(name)
            shape = tuple(view.get_shape())
            piece = Piece(file=path.name, at=(0,) * len(shape), shape=shape)
            stored[name] = IndexEntry(dtype=view.get_dtype(), shape=shape, pieces=(piece,))
    return stored


def _copy_overlap(stored: Any, piece: Piece, target: Tensor, block: Block) -> int:
    """Copy what a piece and a block have in common; returns how many numbers that is."""
    source, place = [], []
    for at, size, wanted in zip(piece.at, piece.shape, block, strict=True):
        low, high = max(at, wanted.start), min(at + size, wanted.stop)
        if low >= high:
            return 0
        source.append(slice(low - at, high - at))
        place.append(slice(low - wanted.start, high - wanted.start))
    copied: Tensor = stored[tuple(source)] if source else stored[...]
    target[tuple(place)] = copied
    return copied.numel()
