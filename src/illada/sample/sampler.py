"""Filling the holes of a canvas: forward, choose, unmask, until none is left.

A canvas is any row of tokens in which some positions are holes: a prompt with masks behind it, a gap between a prefix
and a suffix, a sudoku. Rows of different lengths and different numbers of holes share the forwards; each is padded,
isolated and numbered so that it gets what it would get alone.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from illada.model.transformer import Transformer
from illada.sample.choice import choose_tokens
from illada.sample.plan import PlannedStep, reveal_plan
from illada.sample.request import SamplingParams
from illada.seeding import Stream

_ORDER = Stream(0, "unmasking")


@dataclass(frozen=True, kw_only=True)
class Canvas:
    """A row to complete: `tokens` with None where a token is to be found."""

    tokens: tuple[int | None, ...]
    seed: int = 0

    @property
    def holes(self) -> list[int]:
        """The positions to fill, from left to right."""
        return [position for position, token in enumerate(self.tokens) if token is None]


@dataclass(frozen=True, kw_only=True)
class FilledCanvas:
    """A canvas without holes."""

    tokens: tuple[int, ...]
    revealed_at: tuple[int, ...]
    """For every position the forward, counted from 1, that filled it; 0 where it was given."""
    forwards: int


OnStep = Callable[[int, Tensor, Tensor], None]
"""Called after every step with its number (from 1), the tokens [rows, length] and what it revealed (bool, alike)."""


@torch.inference_mode()
def fill(
    model: Transformer,
    canvases: Sequence[Canvas],
    params: SamplingParams,
    *,
    mask_id: int,
    on_step: OnStep | None = None,
) -> list[FilledCanvas]:
    """Fill every hole of every canvas; none is left and no [MASK] is put in.

    `params.length` is not read: the canvases say how much is to be filled; `params.steps` None means one per hole.

    Raises:
        ValueError: a canvas exceeds the model's context or holds [MASK] as a given token, or `params.suppress` names
            an id that there is not, or leaves none to choose.
    """
    if not canvases:
        return []
    _check(model, canvases, params, mask_id=mask_id)
    state = _State.build(canvases, params, mask_id=mask_id, device=model.embedding.weight.device)
    suppress = torch.tensor(sorted({mask_id, *params.suppress}), device=state.tokens.device)
    for number in range(state.steps):
        revealed = _step(model, state, params, number, mask_id=mask_id, suppress=suppress)
        if on_step is not None:
            on_step(number + 1, state.tokens, revealed)
    return state.results()


@dataclass(kw_only=True)
class _State:
    """The batch while it is being filled; positions are right-padded, holes numbered from the left."""

    canvases: Sequence[Canvas]
    tokens: Tensor
    """[rows, length]"""
    segments: Tensor | None
    given: Tensor
    """[rows, length], True where the caller gave a token: what guidance hides."""
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
    window: int
    """Widest window of any step."""
    seeds: Tensor

    @property
    def steps(self) -> int:
        """Forwards that the batch takes."""
        return self.starts.shape[1]

    @classmethod
    def build(
        cls, canvases: Sequence[Canvas], params: SamplingParams, *, mask_id: int, device: torch.device
    ) -> "_State":
        longest = max(len(canvas.tokens) for canvas in canvases)
        holes = [canvas.holes for canvas in canvases]
        plans = [_plan(len(row), params) for row in holes]
        steps, most = max(map(len, plans)), max(map(len, holes))
        segments = _padded([[0] * len(canvas.tokens) for canvas in canvases], longest, fill=-1)
        tokens = [[mask_id if token is None else token for token in canvas.tokens] for canvas in canvases]
        given = _padded([[token is not None for token in canvas.tokens] for canvas in canvases], longest, fill=False)
        idle = PlannedStep(start=0, stop=0, reveals=0)
        padded_plans = [plan + [idle] * (steps - len(plan)) for plan in plans]
        return cls(
            canvases=canvases,
            tokens=_padded(tokens, longest, fill=0).to(device),
            segments=segments.to(device) if bool((segments < 0).any()) else None,
            given=given.to(device),
            hole_positions=_padded(holes, most, fill=0).to(device),
            masked=_padded([[True] * len(row) for row in holes], most, fill=False).to(device),
            revealed_at=torch.zeros(len(canvases), most, dtype=torch.int64, device=device),
            starts=torch.tensor([[step.start for step in plan] for plan in padded_plans], device=device),
            stops=torch.tensor([[step.stop for step in plan] for plan in padded_plans], device=device),
            reveals=torch.tensor([[step.reveals for step in plan] for plan in padded_plans], device=device),
            window=max((step.stop - step.start for plan in plans for step in plan), default=0),
            seeds=torch.tensor([canvas.seed for canvas in canvases], device=device),
        )

    def results(self) -> list[FilledCanvas]:
        tokens, revealed_at = self.tokens.tolist(), self.revealed_at.tolist()
        forwards = (self.reveals > 0).sum(1).tolist()
        filled = []
        for row, canvas in enumerate(self.canvases):
            order = [0] * len(canvas.tokens)
            for hole, position in enumerate(canvas.holes):
                order[position] = revealed_at[row][hole]
            text = tuple(tokens[row][: len(canvas.tokens)])
            filled.append(FilledCanvas(tokens=text, revealed_at=tuple(order), forwards=forwards[row]))
        return filled


def _step(
    model: Transformer, state: _State, params: SamplingParams, number: int, *, mask_id: int, suppress: Tensor
) -> Tensor:
    """One forward and what follows from it; returns the positions it revealed, [rows, length]."""
    hole = state.starts[:, number, None] + torch.arange(state.window, device=state.tokens.device)
    inside = hole < state.stops[:, number, None]
    hole = hole.clamp(max=state.masked.shape[1] - 1)
    position = state.hole_positions.gather(1, hole)
    logits = _window_logits(model, state, position, params.guidance, mask_id=mask_id)
    chosen, confidence = choose_tokens(
        logits,
        suppress=suppress,
        temperature=params.temperature,
        top_p=params.top_p,
        noise_at=torch.stack((state.seeds, torch.full_like(state.seeds, number)), dim=1),
        hole=hole,
    )
    reveal = params.policy.select(
        confidence,
        masked=state.masked.gather(1, hole) & inside,
        count=state.reveals[:, number],
        uniform=_position_noise(state.seeds, number, hole),
    )
    row, column = reveal.nonzero(as_tuple=True)
    where, at = position[row, column], hole[row, column]
    state.tokens[row, where] = chosen[row, column]
    state.masked[row, at] = False
    state.revealed_at[row, at] = number + 1
    revealed = torch.zeros_like(state.given)
    revealed[row, where] = True
    return revealed


def _window_logits(model: Transformer, state: _State, position: Tensor, guidance: float, *, mask_id: int) -> Tensor:
    """Logits [rows, window, vocab]: only the window's positions meet the vocabulary."""
    tokens, segments = state.tokens, state.segments
    if guidance:
        tokens = torch.cat((tokens, tokens.masked_fill(state.given, mask_id)))
        segments = None if segments is None else segments.repeat(2, 1)
        position = position.repeat(2, 1)
    hidden = model(tokens, segments)
    logits = model.logits(hidden.gather(1, position[..., None].expand(-1, -1, hidden.shape[-1]))).float()
    if guidance:
        conditional, unconditional = logits.chunk(2)
        logits = unconditional + (guidance + 1) * (conditional - unconditional)
    return logits


def _position_noise(seeds: Tensor, number: int, hole: Tensor) -> Tensor:
    """One number in [0, 1) per position of the window, addressed by (seed, step, hole)."""
    index = seeds[:, None].expand_as(hole)
    return _ORDER.uniform(index, 1, epoch=number * (1 << 16) + hole).squeeze(-1)


def _check(model: Transformer, canvases: Sequence[Canvas], params: SamplingParams, *, mask_id: int) -> None:
    vocabulary, limit = model.config.vocab_size, model.config.max_length
    for canvas in canvases:
        if mask_id in canvas.tokens:
            raise ValueError(f"a given token has the id of [MASK], {mask_id}: mark a hole with None instead")
        if len(canvas.tokens) > limit:
            raise ValueError(f"a canvas of {len(canvas.tokens)} tokens exceeds the model's context of {limit}")
    if unknown := [token for token in params.suppress if not 0 <= token < vocabulary]:
        raise ValueError(f"cannot suppress token {unknown[0]}: the model's ids run from 0 to {vocabulary - 1}")
    if len({mask_id, *params.suppress}) == vocabulary:
        raise ValueError(f"all {vocabulary} tokens are suppressed: leave one to choose")


def _plan(holes: int, params: SamplingParams) -> list[PlannedStep]:
    if holes == 0:
        return []
    return reveal_plan(holes, block_length=params.block_length, steps=min(params.steps or holes, holes))


def _padded(rows: Sequence[Sequence[int]], length: int, *, fill: int) -> Tensor:
    return torch.tensor([[*row, *[fill] * (length - len(row))] for row in rows])
