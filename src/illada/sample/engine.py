"""The engine: many requests at once, each a canvas with holes, filled by shared forwards.

    submit -> waiting -> slot -> [ which positions to compute -> forward -> which holes become text ] x steps -> result

A step is a choice of positions to compute (`illada.sample.caching`) and a choice of positions that become text
(`illada.sample.unmasking`). Rows of any length, at any block and with any settings share the forward; a row that is
done leaves, and the next one takes its place. What a row gets does not depend on the others.
"""

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from illada.model.cache import bytes_per_position
from illada.model.transformer import Transformer
from illada.sample.canvas import FilledCanvas
from illada.sample.computing import Columns, Read, forward, positions_wanted
from illada.sample.denoising import denoise
from illada.sample.group import Group, Groups
from illada.sample.job import Job, Request
from illada.sample.table import Table
from illada.sample.unmasking import RunningConfidence


@dataclass(frozen=True, kw_only=True)
class EngineLimits:
    """What the engine may use.

    Raises:
        ValueError: a limit below 1.
    """

    rows: int = 64
    """Requests at work at once."""
    positions: int = 8192
    """Token positions of a forward; a single row may have more."""
    logits: int = 1 << 28
    """Numbers that the LM head makes in a forward; a single row may make more."""
    cache_bytes: int = 8 << 30
    """For keys and values."""
    waiting: int = 1 << 16
    """Requests that wait for a slot."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name, value in vars(self).items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")


@dataclass(frozen=True, kw_only=True)
class RowState:
    """A request at work, as it stands."""

    tokens: list[int]
    """In sight, [MASK] in open holes."""
    revealed_at: list[int]
    """The forward that revealed each, from 1; 0 for given tokens and open holes."""
    start: int
    """The first position of the blocks at work: what stands before it will not change."""


class Engine:
    """Fills canvases. Call `submit`, then `step` until nothing is `busy`."""

    def __init__(self, model: Transformer, *, mask_id: int, limits: EngineLimits | None = None) -> None:
        weight = model.embedding.weight
        self._model, self._mask, self._limits = model, mask_id, limits or EngineLimits()
        self._device, self._causal = weight.device, model.config.attention == "causal"
        self._table = Table(model.config, mask_id=mask_id, dtype=weight.dtype, device=weight.device)
        self._row_bytes = bytes_per_position(model.config, weight.dtype)
        self._waiting: deque[Job] = deque()
        self._jobs: list[Job] = []
        self._groups: Groups | None = None
        self._next_slot = self._submitted = 0

    @property
    def busy(self) -> bool:
        """There is something to do."""
        return bool(self._jobs or self._waiting)

    def submit(self, request: Request) -> int:
        """Put a request behind those that wait; returns its number.

        Raises:
            ValueError: the canvas does not fit the model or the memory for keys and values, holds [MASK], or a token
                that is suppressed does not exist.
            RuntimeError: too many requests wait.
        """
        self._check(request)
        if len(self._waiting) >= self._limits.waiting:
            raise RuntimeError(f"{len(self._waiting)} requests are waiting already: submit fewer, or later")
        self._submitted += 1
        self._waiting.append(Job(number=self._submitted, request=request))
        return self._submitted

    @torch.inference_mode()
    def cancel(self, number: int) -> bool:
        """Forget a request before the next step; False if it is not here any more."""
        for job in self._waiting:
            if job.number == number:
                self._waiting.remove(job)
                return True
        for slot, job in enumerate(self._jobs):
            if job.number == number:
                self._retire([slot])
                return True
        return False

    def look(self, number: int) -> RowState | None:
        """How far a request has come; None for one that is waiting or not here any more."""
        for slot, job in enumerate(self._jobs):
            if job.number == number:
                tokens, revealed_at = self._table.row(slot, job.sight)
                return RowState(tokens=tokens, revealed_at=revealed_at, start=job.place(job.hole_start))
        return None

    @torch.inference_mode()
    def step(self) -> dict[int, FilledCanvas]:
        """One forward; returns the requests that it finished, by their numbers."""
        finished = self._admit()
        if not self._jobs:
            return finished
        columns = Columns.of(self._jobs, causal=self._causal, device=self._device)
        groups = self._grouped().caching
        wanted = positions_wanted(self._table, self._jobs, groups, columns, mask_id=self._mask)
        counts = wanted.sum(1).tolist()
        turn = self._turn(counts)
        if len(turn) < len(self._jobs):
            wanted &= torch.zeros_like(wanted[:, :1]).index_fill_(0, self._tensor(turn), True)
        read, work = forward(
            self._model, self._table, self._jobs, groups, columns, wanted=wanted, turn=turn, mask_id=self._mask
        )
        for slot in turn:
            self._jobs[slot].positions += work[slot]
        return finished | self._denoise(columns, turn, read)

    # --- who takes part ---------------------------------------------------------------------------------------

    def _admit(self) -> dict[int, FilledCanvas]:
        """Give slots to those who wait, as far as rows and memory go; returns those that have no hole."""
        finished = {}
        while self._waiting and len(self._jobs) < self._limits.rows:
            job = self._waiting[0]
            places = max(len(job.request.canvas.tokens), self._table.places)
            if self._jobs and self._bytes(len(self._jobs) + 1, places, job.request) > self._limits.cache_bytes:
                break
            self._waiting.popleft()
            if job.done:
                tokens = [token for token in job.request.canvas.tokens if token is not None]
                finished[job.number] = job.result(tokens, [0] * len(tokens), holes=0)
                continue
            job.began = time.perf_counter()
            self._table.put(len(self._jobs), job.request.canvas, guided=job.request.params.guidance > 0)
            self._jobs.append(job)
            self._groups = None
        return finished

    def _bytes(self, rows: int, places: int, request: Request) -> int:
        guided = request.params.guidance > 0 or self._table.unconditional is not None
        return rows * places * self._row_bytes * (2 if guided else 1)

    def _turn(self, counts: Sequence[int]) -> list[int]:
        """The slots that take part: all, or as many as the limits of a forward allow, one after another in turn."""
        most, vocabulary = self._limits.positions, self._model.config.vocab_size
        rows, positions, logits = len(counts), 0, 0
        turn: list[int] = []
        for slot in [*range(self._next_slot, rows), *range(min(self._next_slot, rows))]:
            job = self._jobs[slot]
            positions += counts[slot]
            logits += (job.hole_stop - job.hole_start) * vocabulary
            if turn and (positions > most or logits > self._limits.logits):
                self._next_slot = slot
                return sorted(turn)
            turn.append(slot)
        self._next_slot = 0
        return sorted(turn)

    def _retire(self, slots: Sequence[int]) -> None:
        """Take out rows; the last ones move into their places."""
        for slot in sorted(slots, reverse=True):
            last = len(self._jobs) - 1
            if slot < last:
                self._table.move(last, slot)
                self._jobs[slot] = self._jobs[last]
            self._jobs.pop()
        self._groups = None

    # --- one step ---------------------------------------------------------------------------------------------

    def _denoise(self, columns: Columns, turn: Sequence[int], read: Read) -> dict[int, FilledCanvas]:
        """Let holes become text, and rows go on or leave."""
        playing, leaving = set(turn), {}
        taking_part = torch.zeros(len(self._jobs), dtype=torch.bool, device=self._device)
        taking_part[self._tensor(turn)] = True
        for group in self._grouped().choosing:
            slots = group.slots
            settled, ended = denoise(
                self._table,
                group,
                read,
                rows=self._tensor(group.members),
                mask_id=self._mask,
                hole_start=columns.hole_start[slots],
                hole_stop=columns.hole_stop[slots],
                count=torch.where(taking_part[slots], columns.count[slots], 0),
                taking_part=taking_part[slots],
                forward=columns.forward[slots],
                seed=columns.seed[slots],
                jobs=[self._jobs[slot] for slot in group.members],
            )
            for slot, prefix, end in zip(group.members, settled.tolist(), ended.tolist(), strict=True):
                if slot in playing and self._go_on(slot, group, settled=prefix, ended=end):
                    leaving[slot] = self._jobs[slot]
        finished = {job.number: self._result(slot, job) for slot, job in leaving.items()}
        if leaving:
            self._retire(list(leaving))
        return finished

    def _go_on(self, slot: int, group: Group, *, settled: int, ended: bool) -> bool:
        """Account for a forward of a row; True when it is done."""
        job = self._jobs[slot]
        job.forwards += 1
        request, reached = job.request, job.hole_start + settled
        full = job.advance(settled)
        stopping = request.stopping
        if stopping is None or not (request.leaves_early or job.done):
            return job.done
        # text that may be revised is not looked at before its block is full
        certain = full or not isinstance(group.unmasking, RunningConfidence)
        if certain and reached > job.known and (ended or stopping.strings or job.done):
            first = job.place(0)
            job.cut = stopping.find(self._table.between(slot, first, first + reached))
            job.known = reached
        return job.done

    def _result(self, slot: int, job: Job) -> FilledCanvas:
        canvas = job.request.canvas
        tokens, revealed_at = self._table.row(slot, len(canvas.tokens))
        return job.result(tokens, revealed_at, holes=len(canvas.holes) if job.cut is None else job.known)

    # --- helpers ----------------------------------------------------------------------------------------------

    def _grouped(self) -> Groups:
        if self._groups is None:
            self._groups = Groups.of(self._jobs, mask_id=self._mask, device=self._device)
        return self._groups

    def _tensor(self, values: Sequence[int] | Sequence[Sequence[int]]) -> Tensor:
        return torch.tensor(values, dtype=torch.int64, device=self._device)

    def _check(self, request: Request) -> None:
        canvas, params, config = request.canvas, request.params, self._model.config
        if self._mask in canvas.tokens:
            raise ValueError(f"a given token has the id of [MASK], {self._mask}: mark a hole with None instead")
        if len(canvas.tokens) > config.max_length:
            raise ValueError(
                f"a canvas of {len(canvas.tokens)} tokens exceeds the model's context of {config.max_length}"
            )
        if self._causal and (not canvas.tokens or canvas.tokens[0] is None):
            raise ValueError("a causal model continues what is there, but a prompt has 0 tokens: begin it with BOS")
        if self._causal and not request.grows:
            raise ValueError(
                "a causal model does not see what stands behind a gap: it continues texts and fills no holes"
            )
        named = {self._mask, *params.suppress, *params.reveal_last}
        if unknown := [token for token in named if not 0 <= token < config.vocab_size]:
            raise ValueError(
                f"cannot suppress token {unknown[0]}: the model's ids run from 0 to {config.vocab_size - 1}"
            )
        if len(named) == config.vocab_size:
            raise ValueError(f"all {config.vocab_size} tokens are suppressed: leave one to choose")
        need = self._bytes(1, len(canvas.tokens), request)
        if need > self._limits.cache_bytes:
            raise ValueError(
                f"the keys and values of {len(canvas.tokens)} tokens take {need:,} bytes, but the engine may use "
                f"{self._limits.cache_bytes:,}: shorten the request or raise cache_bytes"
            )
