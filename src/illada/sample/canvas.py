"""Canvases, and the state of a batch of them while it is being filled."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from illada.sample.plan import PlannedStep


@dataclass(frozen=True, kw_only=True)
class Canvas:
    """A row to complete: `tokens` with None where a token is to be found."""

    tokens: tuple[int | None, ...]
    seed: int = 0
    first_step: int = 0
    """Forwards that this request has behind it: part of the address of its noise."""
    first_hole: int = 0
    """Holes that this request has behind it, likewise."""
    prompt_length: int | None = None
    """How many leading tokens are prompt, hidden by guidance; None: every token that is given."""

    @property
    def holes(self) -> list[int]:
        """The positions to fill, from left to right."""
        return [position for position, token in enumerate(self.tokens) if token is None]


@dataclass(frozen=True, kw_only=True)
class FilledCanvas:
    """A canvas without holes; one that left early ends before its first open hole."""

    tokens: tuple[int, ...]
    revealed_at: tuple[int, ...]
    """For every position the forward, counted from 1, that filled it; 0 where it was given."""
    forwards: int


@dataclass(kw_only=True)
class BatchState:
    """The rows at work; positions are right-padded, holes numbered from the left."""

    canvases: list[Canvas]
    numbers: list[int]
    """Which canvas of the call each row is."""
    tokens: Tensor
    """[rows, length]"""
    segments: Tensor | None
    prompt: Tensor
    """[rows, length], True where guidance hides the token."""
    hole_positions: Tensor
    """[rows, holes], padded with 0."""
    masked: Tensor
    """[rows, holes], True where the hole is still open."""
    revealed_at: Tensor
    """[rows, holes]"""
    starts: Tensor
    stops: Tensor
    reveals: Tensor
    """[rows, steps]: the plan of each row; no reveals where a row needs fewer steps than others."""
    noise: Tensor
    """[rows, 3]: seed, first step, first hole."""
    window: int
    """Widest window of any step."""

    @property
    def steps(self) -> int:
        """Forwards that the rows at work take in all."""
        return self.starts.shape[1]

    @classmethod
    def build(
        cls,
        canvases: Sequence[Canvas],
        plans: Sequence[Sequence[PlannedStep]],
        *,
        mask_id: int,
        device: torch.device,
    ) -> "BatchState":
        """All rows before the first step."""
        longest = max(len(canvas.tokens) for canvas in canvases)
        holes = [canvas.holes for canvas in canvases]
        steps, most = max(map(len, plans)), max(map(len, holes))
        segments = _padded([[0] * len(canvas.tokens) for canvas in canvases], longest, fill=-1)
        tokens = [[mask_id if token is None else token for token in canvas.tokens] for canvas in canvases]
        idle = PlannedStep(start=0, stop=0, reveals=0)
        padded_plans = [[*plan, *[idle] * (steps - len(plan))] for plan in plans]
        return cls(
            canvases=list(canvases),
            numbers=list(range(len(canvases))),
            tokens=_padded(tokens, longest, fill=0).to(device),
            segments=segments.to(device) if bool((segments < 0).any()) else None,
            prompt=_padded([_prompt(canvas) for canvas in canvases], longest, fill=False).to(device),
            hole_positions=_padded(holes, most, fill=0).to(device),
            masked=_padded([[True] * len(row) for row in holes], most, fill=False).to(device),
            revealed_at=torch.zeros(len(canvases), most, dtype=torch.int64, device=device),
            starts=torch.tensor([[step.start for step in plan] for plan in padded_plans], device=device),
            stops=torch.tensor([[step.stop for step in plan] for plan in padded_plans], device=device),
            reveals=torch.tensor([[step.reveals for step in plan] for plan in padded_plans], device=device),
            noise=torch.tensor([[row.seed, row.first_step, row.first_hole] for row in canvases], device=device),
            window=max((step.stop - step.start for plan in plans for step in plan), default=0),
        )

    def frontiers(self) -> list[int]:
        """How many holes of each row are filled from the left on."""
        open_holes = torch.cat((self.masked, torch.ones_like(self.masked[:, :1])), dim=1)
        frontier = open_holes.int().argmax(1).tolist()
        return [min(place, len(row.holes)) for place, row in zip(frontier, self.canvases, strict=True)]

    def filled(self, row: int, holes: int) -> tuple[int, ...]:
        """The tokens in the first `holes` holes of a row."""
        return tuple(self.tokens[row, self.hole_positions[row, :holes]].tolist())

    def result(self, row: int, *, steps_done: int, holes: int) -> FilledCanvas:
        """A row as it stands, up to its hole number `holes`."""
        canvas = self.canvases[row]
        end = canvas.holes[holes] if holes < len(canvas.holes) else len(canvas.tokens)
        order = [0] * end
        for hole, step in enumerate(self.revealed_at[row, :holes].tolist()):
            order[canvas.holes[hole]] = step
        return FilledCanvas(
            tokens=tuple(self.tokens[row, :end].tolist()),
            revealed_at=tuple(order),
            forwards=int((self.reveals[row, :steps_done] > 0).sum()),
        )

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows alone; what only the others needed is cut off."""
        index = torch.tensor(rows, device=self.tokens.device)
        self.canvases = [self.canvases[row] for row in rows]
        self.numbers = [self.numbers[row] for row in rows]
        longest = max(len(canvas.tokens) for canvas in self.canvases)
        self.tokens, self.prompt = self.tokens[index, :longest], self.prompt[index, :longest]
        if self.segments is not None:
            segments = self.segments[index, :longest]
            self.segments = segments if bool((segments < 0).any()) else None
        for name in ("hole_positions", "masked", "revealed_at", "starts", "stops", "reveals", "noise"):
            setattr(self, name, getattr(self, name)[index])


def _prompt(canvas: Canvas) -> list[bool]:
    limit = len(canvas.tokens) if canvas.prompt_length is None else canvas.prompt_length
    return [token is not None and position < limit for position, token in enumerate(canvas.tokens)]


def _padded(rows: Sequence[Sequence[int]], length: int, *, fill: int) -> Tensor:
    return torch.tensor([[*row, *[fill] * (length - len(row))] for row in rows])
