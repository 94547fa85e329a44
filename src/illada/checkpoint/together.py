"""Several processes write one checkpoint, through torch.distributed.checkpoint.

It plans who writes what (a tensor that several processes hold is written by one of them) and brings the outcome
together; the files are ours: safetensors and JSON in the place of its pickled metadata, so nothing that is read back
can run code. Each process writes, hashes and flushes its own files; then the first one writes the rest and gives the
folder its name.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from torch import Tensor
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata
from torch.distributed.checkpoint.planner import SavePlan, SavePlanner, WriteItem
from torch.distributed.checkpoint.storage import StorageWriter, WriteResult
from torch.futures import Future

from illada.checkpoint.native import FileRecord, record_of
from illada.checkpoint.pieces import DTYPES, Index, IndexEntry, Kind, Piece
from illada.checkpoint.stored import save_tensors
from illada.durable import flush


def qualified(tensors: Mapping[Kind, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """One flat dictionary, as torch.distributed.checkpoint plans it: `model/norm.weight` ..."""
    return {f"{kind}/{name}": tensor for kind, named in tensors.items() for name, tensor in named.items()}


class PiecesWriter(StorageWriter):
    """Writes the blocks of each process into files of its own."""

    def __init__(
        self,
        *,
        number: int,
        count: int,
        begin: Callable[[], Path],
        complete: Callable[[Index, Sequence[FileRecord]], object],
    ) -> None:
        """Files of process `number` of `count`.

        The first process calls `begin`, which makes the folder, before any writes, and `complete` after all have.
        """
        self._number, self._count = number, count
        self._begin, self._complete = begin, complete

    def reset(self, checkpoint_id: str | os.PathLike[str] | None = None) -> None:
        """Nothing is kept from one checkpoint to the next."""

    def set_up_storage_writer(self, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        """Nothing yet: there is no plan."""

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        """The plan as it is."""
        return plan

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        """On the first process: make the folder, and let the plans tell the others where it is."""
        folder = self._begin()
        return [replace(plan, storage_data=folder) for plan in plans]

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        """Write what the plan gives this process: one file of each kind."""
        results: list[WriteResult] = []
        for kind in get_args(Kind):
            items = [item for item in plan.items if item.index.fqn.startswith(f"{kind}/")]
            if items:
                results += self._write(plan.storage_data, kind, items, planner)
        done: Future[list[WriteResult]] = Future()
        done.set_result(results)
        return done

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        """On the first process: say which block lies where, and complete the checkpoint."""
        files: dict[str, FileRecord] = {}
        pieces: dict[str, list[Piece]] = {}
        for result in (result for own in results for result in own):
            record, piece = result.storage_data
            files[record.name] = record
            pieces.setdefault(result.index.fqn, []).append(piece)
        tensors: dict[str, dict[str, IndexEntry]] = {kind: {} for kind in get_args(Kind)}
        for key, stored in metadata.state_dict_metadata.items():
            assert isinstance(stored, TensorStorageMetadata), f"{key} is no tensor"
            kind, _, name = key.partition("/")
            tensors[kind][name] = IndexEntry(
                dtype=_NAMES[stored.properties.dtype], shape=tuple(stored.size), pieces=tuple(pieces[key])
            )
        self._complete(Index(tensors=tensors), list(files.values()))

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        """A writer is made for one folder: no other name will do."""
        del checkpoint_id
        return False

    def _write(self, folder: Path, kind: str, items: Sequence[WriteItem], planner: SavePlanner) -> list[WriteResult]:
        path = folder / f"{kind}-{self._number + 1:05}-of-{self._count:05}.safetensors"
        tensors = {item.index.fqn.partition("/")[2]: planner.resolve_data(item) for item in items}
        assert len(tensors) == len(items), "a process holds one block of a tensor"
        save_tensors(tensors, path)  # type: ignore[arg-type]  # bytes are for what is no tensor, and all of these are
        flush(path)
        record = record_of(path)
        return [WriteResult(item.index, _bytes_of(item), (record, _piece_of(item, path.name))) for item in items]


_NAMES = {dtype: name for name, dtype in DTYPES.items()}


def _bytes_of(item: WriteItem) -> int:
    return item.tensor_storage_size() or 0


def _piece_of(item: WriteItem, file: str) -> Piece:
    assert item.tensor_data is not None, f"{item.index.fqn} is no tensor"
    chunk = item.tensor_data.chunk
    return Piece(file=file, at=tuple(chunk.offsets), shape=tuple(chunk.sizes))
