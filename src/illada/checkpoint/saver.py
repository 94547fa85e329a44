"""The checkpoints of a run, written beside the training: a step is held up while its tensors are copied, no longer.

    copy the tensors -> (in a thread) write, hash, flush, rename, delete what need not be kept

One checkpoint is written at a time. What goes wrong in the thread is told when the next one is due, or sooner by
`failed`.
"""

import shutil
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import cast

import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.default_planner import DefaultSavePlanner
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions
from torch.distributed.checkpoint.state_dict_saver import save as save_planned

from illada.checkpoint.native import (
    FileRecord,
    Particulars,
    checkpoint_path,
    complete,
    retain,
    save_checkpoint,
)
from illada.checkpoint.pieces import Index, Kind
from illada.checkpoint.together import PiecesWriter, qualified
from illada.durable import begin_folder, publish_folder

Tensors = Mapping[Kind, dict[str, Tensor]]


class Saver:
    """Writes the checkpoints of a run into one folder, by this process or by all of a job together."""

    def __init__(
        self, root: Path, *, keep_last: int, keep_every: int | None = None, background: bool = True, cuda: bool = False
    ) -> None:
        """Where to write, what to keep, and whether the training goes on meanwhile.

        All processes of a job make one, in the same order of groups: it talks over a group of its own.
        """
        self._root, self._last, self._every = root, keep_last, keep_every
        self._group = dist.new_group(backend="gloo") if dist.is_initialized() and dist.get_world_size() > 1 else None
        self._stager = DefaultStager(
            StagingOptions(
                use_pinned_memory=cuda, use_shared_memory=False, use_async_staging=False, use_non_blocking_copy=cuda
            )
        )
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint") if background else None
        self._pending: Future[None] | None = None
        self._timings: dict[str, float] = {}

    def prepare(self, tensors: Tensors) -> None:
        """Take the memory for copies of `tensors` now: where it is too little, that shows before any work is done."""
        if self._thread is not None:
            self._copy(tensors)

    @property
    def failed(self) -> bool:
        """Whether the checkpoint that was being written could not be."""
        return self._pending is not None and self._pending.done() and self._pending.exception() is not None

    def save(self, step: int, tensors: Tensors, particulars: Particulars, *, wait: bool = False) -> None:
        """Begin to write the checkpoint of a step, after the one before it is done; `wait` for this one, too.

        Raises:
            OSError: one of them could not be written; the complete ones stay.
        """
        self.wait()
        began = time.perf_counter()
        if self._thread is None:
            self._write(step, tensors, particulars)
        else:
            self._pending = self._thread.submit(self._write, step, self._copy(tensors), particulars)
            if wait:
                self.wait()
        self._timings["checkpoint/blocked_seconds"] = time.perf_counter() - began

    def wait(self) -> None:
        """Return when nothing is being written.

        Raises:
            OSError: what was being written could not be.
        """
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def timings(self) -> dict[str, float]:
        """What the checkpoints since the last call took: the step that they held up, and the writing."""
        timings, self._timings = self._timings, {}
        return timings

    def close(self) -> None:
        """Stop the thread, when what it is writing is completed, and leave the group: a job may make many of them."""
        if self._thread is not None:
            self._thread.shutdown()
        self._stager.close()
        if self._group is not None:
            dist.destroy_process_group(self._group)
            self._group = None

    def _copy(self, tensors: Tensors) -> Tensors:
        copies = self._stager.stage({str(kind): named for kind, named in tensors.items()})
        return cast(Tensors, copies)

    def _write(self, step: int, tensors: Tensors, particulars: Particulars) -> None:
        began = time.perf_counter()
        target = checkpoint_path(self._root, step)
        if self._group is not None:
            _write_together(target, tensors, particulars, self._group)
        else:
            save_checkpoint(
                target,
                model_config=particulars.model_config,
                weights=tensors["model"],
                tokenizer=particulars.tokenizer,
                optimizer=tensors["optimizer"],
                state=particulars.state,
                adapter=particulars.adapter,
            )
        if self._group is None or dist.get_rank() == 0:
            retain(self._root, last=self._last, every=self._every)
        self._timings["checkpoint/write_seconds"] = time.perf_counter() - began


def _write_together(target: Path, tensors: Tensors, particulars: Particulars, group: dist.ProcessGroup) -> None:
    begun: list[Path] = []

    def begin() -> Path:
        begun.append(begin_folder(target))
        return begun[0]

    def end(index: Index, written: Sequence[FileRecord]) -> None:
        complete(begun[0], particulars, index=index, written=written)
        publish_folder(begun[0], target)

    writer = PiecesWriter(number=dist.get_rank(), count=dist.get_world_size(), begin=begin, complete=end)
    planner = DefaultSavePlanner(flatten_state_dict=False, flatten_sharded_tensors=False)
    try:
        save_planned(qualified(tensors), storage_writer=writer, planner=planner, process_group=group)
    except CheckpointException as error:
        for folder in begun:
            shutil.rmtree(folder, ignore_errors=True)
        raise _of_one_process(error) from error


def _of_one_process(error: CheckpointException) -> Exception:
    """What went wrong on the first process that something went wrong on."""
    failures = [failure for _, (failure, _) in sorted(error.failures.items())]
    for failure in failures:
        if isinstance(failure, OSError):
            return OSError(str(failure)) if failure.errno is None else failure
    return RuntimeError(f"the checkpoint was not written: {failures[0]!r}" if failures else str(error))
