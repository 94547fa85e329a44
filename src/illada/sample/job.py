"""One request on its way through the engine: which holes it is filling, and how far it has come."""

import time
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby

from illada.sample.canvas import Canvas, FilledCanvas
from illada.sample.plan import reveal_plan
from illada.sample.request import SamplingParams
from illada.sample.stopping import Cut, Stopping


@dataclass(frozen=True, kw_only=True)
class Request:
    """A canvas to fill, and how."""

    canvas: Canvas
    params: SamplingParams
    grows: bool = False
    """Masks behind the blocks at work are out of sight; the holes are then the end of the canvas."""
    stopping: Stopping | None = None
    """Finds the end of the text."""
    early: bool | None = None
    """Leave as soon as the end of the text is certain, masks behind it or not; None: if the canvas grows."""
    marker: tuple[int, ...] = ()
    """What the end-of-thinking boost favours."""

    @property
    def leaves_early(self) -> bool:
        """The end of the text is looked for after every forward."""
        return self.grows if self.early is None else self.early

    @cached_property
    def blocks(self) -> list["PlannedBlock"]:
        """The blocks in order, each with how many holes its forwards reveal."""
        holes = len(self.canvas.holes)
        steps = min(self.params.steps or holes, holes)
        plan = reveal_plan(holes, block_length=self.params.block_length, steps=steps) if holes else []
        return [
            PlannedBlock(start=start, stop=stop, reveals=tuple(step.reveals for step in steps))
            for (start, stop), steps in groupby(plan, key=lambda step: (step.start, step.stop))
        ]


@dataclass(frozen=True, kw_only=True)
class PlannedBlock:
    """The holes number `start` .. `stop - 1`, counted from the left."""

    start: int
    stop: int
    reveals: tuple[int, ...]
    """How many of them each forward reveals."""


@dataclass(kw_only=True)
class Job:
    """A request in a slot of the engine, or waiting for one."""

    number: int
    request: Request
    block: int = 0
    """The first block that has open holes."""
    block_forwards: int = 0
    """Forwards since it came to be the first."""
    forwards: int = 0
    positions: int = 0
    known: int = 0
    """Holes filled from the left on, as far as they were looked at."""
    cut: Cut | None = None
    began: float = field(default_factory=time.perf_counter)

    @property
    def done(self) -> bool:
        """Nothing is left to do."""
        return self.cut is not None or self.block == len(self.request.blocks)

    @property
    def hole_start(self) -> int:
        """The first hole of the blocks at work."""
        return self.request.blocks[self.block].start

    @property
    def hole_stop(self) -> int:
        """The hole behind the last of them."""
        blocks = self.request.blocks
        return blocks[min(self.block + self.request.params.blocks, len(blocks)) - 1].stop

    @property
    def count(self) -> int:
        """How many holes the plan reveals with the next forward."""
        reveals = self.request.blocks[self.block].reveals
        # a policy that works on several blocks may need more forwards for the first of them than are planned
        return reveals[min(self.block_forwards, len(reveals) - 1)]

    def place(self, hole: int) -> int:
        """The position of a hole."""
        return self.request.canvas.holes[hole]

    @property
    def sight(self) -> int:
        """Positions that the model sees."""
        return self.place(self.hole_stop - 1) + 1 if self.request.grows else len(self.request.canvas.tokens)

    def advance(self, settled: int) -> bool:
        """Take note that `settled` holes of the blocks at work are filled without a gap; True if a block is full."""
        self.block_forwards += 1
        reached, before = self.hole_start + settled, self.block
        blocks = self.request.blocks
        while self.block < len(blocks) and reached >= blocks[self.block].stop:
            self.block, self.block_forwards = self.block + 1, 0
        return self.block > before

    def result(self, tokens: list[int], revealed_at: list[int], *, holes: int) -> FilledCanvas:
        """The canvas as it stands, up to its hole number `holes`."""
        canvas = self.request.canvas
        end = canvas.holes[holes] if holes < len(canvas.holes) else len(canvas.tokens)
        return FilledCanvas(
            tokens=tuple(tokens[:end]),
            revealed_at=tuple(revealed_at[:end]),
            forwards=self.forwards,
            positions=self.positions,
            cut=self.cut,
            seconds=time.perf_counter() - self.began,
        )
