"""Filling the holes of canvases: forward, choose, unmask, until none is left.

A canvas is any row of tokens in which some positions are holes: a prompt with masks behind it, a gap between a prefix
and a suffix, a sudoku. Rows of different lengths and different numbers of holes share the forwards; each is padded,
isolated and numbered so that it gets what it would get alone.
"""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from illada.model.transformer import Transformer
from illada.sample.canvas import BatchState, Canvas, FilledCanvas
from illada.sample.choice import choose_tokens
from illada.sample.plan import PlannedStep, reveal_plan
from illada.sample.request import SamplingParams
from illada.seeding import Stream

_ORDER = Stream(0, "unmasking")
_MOST_HOLES = 1 << 16

OnStep = Callable[[int, Tensor, Tensor], None]
"""Called after every step with its number (from 1), the tokens [rows, length] and what it revealed (bool, alike)."""

Leaves = Callable[[int, tuple[int, ...]], bool]
"""Whether canvas number n is done, given the tokens that fill its holes from the left without a gap."""

Adjust = Callable[[Tensor, BatchState, Tensor], Tensor]
"""Changes logits [rows, window, vocab] of the holes [rows, window] before a token is chosen."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """What one forward did: the rows at work after it, and which positions it revealed (bool, [rows, length])."""

    number: int
    """From 1, over the whole request."""
    state: BatchState
    revealed: Tensor


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
        ValueError: the model is causal, a canvas exceeds its context or holds [MASK] as a given token, or
            `params.suppress` names an id that there is not, or leaves none to choose.
    """
    plans = [_plan(len(canvas.holes), params) for canvas in canvases]
    return exhaust(denoise(model, canvases, plans, params, mask_id=mask_id), on_step)


def denoise(
    model: Transformer,
    canvases: Sequence[Canvas],
    plans: Sequence[Sequence[PlannedStep]],
    params: SamplingParams,
    *,
    mask_id: int,
    leaves: Leaves | None = None,
    adjust: Adjust | None = None,
) -> Generator[Step, None, list[FilledCanvas]]:
    """Carry out one plan per canvas, a forward at a time; the generator's value is the result.

    A canvas whose further holes do not matter leaves the batch as soon as `leaves` says so, and costs nothing more.

    Raises:
        ValueError: as `fill` does.
    """
    if model.config.attention == "causal":
        raise ValueError("a causal model does not see what stands behind a gap: it continues texts and fills no holes")
    check_request(model, canvases, params, mask_id=mask_id)
    if not canvases:
        return []
    results: dict[int, FilledCanvas] = {}
    with torch.inference_mode():
        state = BatchState.build(canvases, plans, mask_id=mask_id, device=model.embedding.weight.device)
    suppress = torch.tensor(sorted({mask_id, *params.suppress}), device=state.tokens.device)
    known = [0] * len(canvases)
    for number in range(state.steps):
        # the mode is left before every yield: it belongs to the thread, and the caller has the thread then
        with torch.inference_mode():
            revealed = _step(model, state, params, number, mask_id=mask_id, suppress=suppress, adjust=adjust)
        yield Step(number=number + 1 + max(row.first_step for row in canvases), state=state, revealed=revealed)
        with torch.inference_mode():
            if leaves is not None and _let_leave(state, leaves, known, results, steps_done=number + 1):
                break
    for row, canvas in enumerate(state.canvases):
        if state.numbers[row] not in results:
            results[state.numbers[row]] = state.result(row, steps_done=state.steps, holes=len(canvas.holes))
    return [results[number] for number in range(len(canvases))]


ResultT = TypeVar("ResultT")


def exhaust(steps: Generator[Step, None, ResultT], on_step: OnStep | None = None) -> ResultT:
    """Take every step, tell `on_step` of each, and return what comes out."""
    while True:
        try:
            step = next(steps)
        except StopIteration as end:
            result: ResultT = end.value
            return result
        if on_step is not None:
            on_step(step.number, step.state.tokens, step.revealed)


def _let_leave(
    state: BatchState, leaves: Leaves, known: list[int], results: dict[int, FilledCanvas], *, steps_done: int
) -> bool:
    """Take out the rows that are done; True when none is left. `known` is how far each canvas was looked at."""
    stay = []
    for row, frontier in enumerate(state.frontiers()):
        number = state.numbers[row]
        grown, known[number] = frontier > known[number], frontier
        if grown and leaves(number, state.filled(row, frontier)):
            results[number] = state.result(row, steps_done=steps_done, holes=frontier)
        else:
            stay.append(row)
    if 0 < len(stay) < len(state.canvases):
        state.keep(stay)
    return not stay


def _step(
    model: Transformer,
    state: BatchState,
    params: SamplingParams,
    number: int,
    *,
    mask_id: int,
    suppress: Tensor,
    adjust: Adjust | None,
) -> Tensor:
    """One forward and what follows from it; returns the positions it revealed, [rows, length]."""
    hole = state.starts[:, number, None] + torch.arange(state.window, device=state.tokens.device)
    inside = hole < state.stops[:, number, None]
    hole = hole.clamp(max=state.masked.shape[1] - 1)
    position = state.hole_positions.gather(1, hole)
    open_holes = state.masked.gather(1, hole) & inside
    logits = _window_logits(model, state, position, params.guidance, mask_id=mask_id)
    if adjust is not None:
        logits = adjust(logits, state, torch.where(open_holes, position, -1))
    seeds, steps, holes = state.noise[:, 0], state.noise[:, 1] + number, state.noise[:, 2:] + hole
    chosen, confidence = choose_tokens(
        logits,
        suppress=suppress,
        reveal_last=torch.tensor(params.reveal_last, dtype=torch.int64, device=suppress.device),
        temperature=params.temperature,
        top_p=params.top_p,
        noise_at=torch.stack((seeds, steps), dim=1),
        hole=holes,
    )
    reveal = params.policy.select(
        confidence,
        masked=open_holes,
        count=state.reveals[:, number],
        uniform=_position_noise(seeds, steps, holes),
    )
    row, column = reveal.nonzero(as_tuple=True)
    where, at = position[row, column], hole[row, column]
    state.tokens[row, where] = chosen[row, column]
    state.masked[row, at] = False
    state.revealed_at[row, at] = number + 1
    revealed = torch.zeros_like(state.prompt)
    revealed[row, where] = True
    return revealed


def _window_logits(model: Transformer, state: BatchState, position: Tensor, guidance: float, *, mask_id: int) -> Tensor:
    """Logits [rows, window, vocab]: only the window's positions meet the vocabulary."""
    tokens, segments = state.tokens, state.segments
    if guidance:
        tokens = torch.cat((tokens, tokens.masked_fill(state.prompt, mask_id)))
        segments = None if segments is None else segments.repeat(2, 1)
        position = position.repeat(2, 1)
    hidden = model(tokens, segments)
    logits = model.logits(hidden.gather(1, position[..., None].expand(-1, -1, hidden.shape[-1]))).float()
    if guidance:
        conditional, unconditional = logits.chunk(2)
        logits = unconditional + (guidance + 1) * (conditional - unconditional)
    return logits


def _position_noise(seeds: Tensor, steps: Tensor, holes: Tensor) -> Tensor:
    """One number in [0, 1) per position of the window, addressed by (seed, step, hole)."""
    index = seeds[:, None].expand_as(holes)
    return _ORDER.uniform(index, 1, epoch=steps[:, None] * _MOST_HOLES + holes).squeeze(-1)


def check_request(model: Transformer, canvases: Sequence[Canvas], params: SamplingParams, *, mask_id: int) -> None:
    """Refuse canvases and parameters that do not fit the model.

    Raises:
        ValueError: as `fill` does.
    """
    vocabulary, limit = model.config.vocab_size, model.config.max_length
    for canvas in canvases:
        if mask_id in canvas.tokens:
            raise ValueError(f"a given token has the id of [MASK], {mask_id}: mark a hole with None instead")
        if len(canvas.tokens) > limit:
            raise ValueError(f"a canvas of {len(canvas.tokens)} tokens exceeds the model's context of {limit}")
    named = {mask_id, *params.suppress, *params.reveal_last}
    if unknown := [token for token in named if not 0 <= token < vocabulary]:
        raise ValueError(f"cannot suppress token {unknown[0]}: the model's ids run from 0 to {vocabulary - 1}")
    if len(named) == vocabulary:
        raise ValueError(f"all {vocabulary} tokens are suppressed: leave one to choose")


def _plan(holes: int, params: SamplingParams) -> list[PlannedStep]:
    if holes == 0:
        return []
    return reveal_plan(holes, block_length=params.block_length, steps=min(params.steps or holes, holes))
