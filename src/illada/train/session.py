"""The checkpoints of a run while it goes on: which to begin from, saving through a full disk, going back from a fault.

All processes of a job do these things together, and decide them alike.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from illada.checkpoint.adapter import AdapterCard
from illada.checkpoint.native import (
    DamagedError,
    Particulars,
    list_checkpoints,
    set_aside,
    sweep_partial,
    verify_checkpoint,
)
from illada.checkpoint.saver import Saver
from illada.data.tokenizer import Tokenizer
from illada.distributed.mesh import Mesh
from illada.distributed.processes import Processes
from illada.model.config import ModelConfig
from illada.track.sinks import JsonlFile
from illada.train.faults import FaultConfig, FaultyStepError, Rollback, read_rollbacks
from illada.train.interrupt import GracefulStop
from illada.train.loop import TrainState
from illada.train.saving import restore, tensors_of

RETRY_SECONDS = 10.0
"""Between two attempts to write to a full disk."""


def newest_sound(root: Path, processes: Processes, *, report: Callable[[str], object]) -> Path | None:
    """The newest checkpoint under `root` whose every byte is what was written; None where there is none at all.

    A damaged one is named, and renamed so that it is not met again; the one before it is looked at next. Each process
    reads a share of the bytes.

    Raises:
        ValueError: there are checkpoints, and none is whole; or one is of another format.
    """
    damaged = []
    while True:
        newest = list_checkpoints(root)[-1:] if processes.first else []
        found = processes.told_by_first([str(path) for _, path in newest])
        if not found:
            break
        path = Path(found[0])
        problem = ""
        try:
            verify_checkpoint(path, part=processes.rank, parts=processes.size)
        except DamagedError as error:
            problem = error.what
        if not processes.anywhere(bool(problem))[0]:
            return path
        damaged.append(next(text for text in processes.told_by_all(problem) if text))
        if processes.first:
            report(f"{damaged[-1]}: it is kept as {set_aside(path).name}, and the one before it is used")
    if damaged:
        raise ValueError(f"none of the checkpoints in {root} is whole: {damaged[0]}")
    return None


@dataclass(kw_only=True)
class Session:
    """A run between its start, or resume, and its end."""

    folder: Path
    state: TrainState
    mesh: Mesh
    tokenizer: Tokenizer
    model_config: ModelConfig
    data_identity: list[str]
    faults: FaultConfig
    saver: Saver
    report: Callable[[str], object]
    """Tells a person; on the first process only."""
    adapter: AdapterCard | None = None
    """Where an adapter trains: what its checkpoints say of it."""
    stop: GracefulStop = field(default_factory=GracefulStop)

    @property
    def checkpoints(self) -> Path:
        """Where they lie."""
        return self.folder / "checkpoints"

    def begin(self) -> bool:
        """Go to the newest sound checkpoint; False where there is none and the run begins.

        Raises:
            ValueError: no checkpoint is whole, or it is not of this run.
        """
        processes = self.mesh.processes
        if processes.first:
            sweep_partial(self.checkpoints)
            self.state.rollbacks.entries = read_rollbacks(self._rollbacks)
        newest = newest_sound(self.checkpoints, processes, report=self.report)
        entries = [vars(entry) for entry in self.state.rollbacks.entries]
        self.state.rollbacks.entries = [Rollback(**entry) for entry in processes.told_by_first(entries)]
        if newest is not None:
            restore(self.state, newest, tokenizer=self.tokenizer, data_identity=self.data_identity)
        elif processes.first:
            self._rollbacks.unlink(missing_ok=True)
        self.saver.prepare(tensors_of(self.state))
        return newest is not None

    def save(self, wait: bool) -> None:
        """Save a checkpoint; where it cannot be written, tell so and try again until `pause_minutes` are over.

        Raises:
            OSError: it still cannot be written, or a signal asks to leave; the complete checkpoints stay.
        """
        state = self.state
        deadline = time.monotonic() + 60 * self.faults.pause_minutes
        paused = False
        while True:
            particulars = Particulars(
                model_config=self.model_config,
                tokenizer=self.tokenizer,
                state=state.plain() | {"corpus": self.data_identity},
                adapter=self.adapter,
            )
            try:
                self.saver.save(state.step, tensors_of(state), particulars, wait=wait or paused)
            except OSError as error:
                self._pause(error, deadline=deadline, told=paused)
                paused = True
            else:
                if paused:
                    self.report(f"step {state.step} is saved: the run goes on")
                return

    def roll_back(self, fault: FaultyStepError, metrics: JsonlFile | None) -> None:
        """Go back to the last checkpoint, and note which examples are passed over from now on.

        Raises:
            FaultyStepError: there is no checkpoint to go back to, or going back to it has not helped.
        """
        self.saver.wait()
        processes = self.mesh.processes
        newest = newest_sound(self.checkpoints, processes, report=self.report)
        if newest is None:
            raise fault
        restore(self.state, newest, tokenizer=self.tokenizer, data_identity=self.data_identity)
        if self.state.rollbacks.in_vain(self.state.step) >= self.faults.rollbacks:
            raise fault
        self.state.rollbacks.add(self._entry(fault))
        entry = self.state.rollbacks.entries[-1]
        if processes.first:
            self.state.rollbacks.save(self._rollbacks)
        self.report(entry.line())
        if metrics is not None:
            metrics.rewind(entry.back_to)
            told = {"fault/step": float(entry.step), "fault/examples_passed_over": float(entry.examples)}
            metrics.log(entry.back_to, told)

    @property
    def _rollbacks(self) -> Path:
        return self.folder / "rollbacks.jsonl"

    def _entry(self, fault: FaultyStepError) -> Rollback:
        first, count = fault.examples
        begin = max(self.state.loader.example, first - (self.faults.skip_steps - 1) * count)
        return Rollback(
            step=fault.step,
            reason=fault.what,
            back_to=self.state.step,
            first_example=begin,
            examples=first + count - begin,
            rate_factor=self.faults.rate_factor,
        )

    def _pause(self, error: OSError, *, deadline: float, told: bool) -> None:
        asked, late = self.mesh.processes.anywhere(self.stop.requested is not None, time.monotonic() >= deadline)
        if asked or late:
            raise error
        if not told:
            kept = list_checkpoints(self.checkpoints)
            safe = f"the checkpoint of step {kept[-1][0]} is whole" if kept else "there is no checkpoint yet"
            self.report(
                f"the checkpoint of step {self.state.step} cannot be written: {error}. Paused, for "
                f"{self.faults.pause_minutes:g} minutes at most: make room, and the run goes on; {safe}"
            )
        time.sleep(RETRY_SECONDS)
