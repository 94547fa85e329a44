"""Filling canvases to the end: what `Engine` does, for those who want nothing but the result.

A canvas is any row of tokens in which some positions are holes: a prompt with masks behind it, a gap between a prefix
and a suffix, a sudoku. Canvases of different lengths and different numbers of holes share the forwards, and each gets
what it would get alone.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from illada.model.transformer import Transformer
from illada.sample.canvas import Canvas, FilledCanvas
from illada.sample.engine import Engine, EngineLimits
from illada.sample.job import Request
from illada.sample.request import SamplingParams

OnStep = Callable[[int, Tensor, Tensor], None]
"""Called after every step with its number (from 1), the tokens [rows, length] of all requests in their order, and what
it revealed (bool, alike). Rows that wait or are shorter than others are padded with 0."""


def fill(
    model: Transformer,
    canvases: Sequence[Canvas],
    params: SamplingParams,
    *,
    mask_id: int,
    on_step: OnStep | None = None,
    limits: EngineLimits | None = None,
) -> list[FilledCanvas]:
    """Fill every hole of every canvas; none is left and no [MASK] is put in.

    `params.length` is not read: the canvases say how much is to be filled; `params.steps` None means one per hole.

    Raises:
        ValueError: the model is causal, a canvas exceeds its context or holds [MASK] as a given token, or
            `params.suppress` names an id that there is not, or leaves none to choose.
    """
    requests = [Request(canvas=canvas, params=params) for canvas in canvases]
    return run(Engine(model, mask_id=mask_id, limits=limits), requests, on_step=on_step)


def run(engine: Engine, requests: Sequence[Request], *, on_step: OnStep | None = None) -> list[FilledCanvas]:
    """Submit all, step until they are done, and return the results in their order.

    Raises:
        ValueError: as `Engine.submit`, before the first step.
    """
    numbers = [engine.submit(request) for request in requests]
    watcher = None if on_step is None else _Watcher(numbers, on_step)
    results: dict[int, FilledCanvas] = {}
    while len(results) < len(numbers):
        results |= engine.step()
        if watcher is not None:
            watcher.look(engine, results)
    return [results[number] for number in numbers]


class _Watcher:
    """Tells a callback of every step what it did."""

    def __init__(self, numbers: Sequence[int], on_step: OnStep) -> None:
        self._numbers, self._on_step = numbers, on_step
        self._seen: list[list[int]] = [[] for _ in numbers]
        self._steps = 0

    def look(self, engine: Engine, results: dict[int, FilledCanvas]) -> None:
        """Compare with what was there before."""
        states = [self._state(engine, number, results) for number in self._numbers]
        fresh = [_changed(before, after) for before, (_, after) in zip(self._seen, states, strict=True)]
        self._seen = [list(after) for _, after in states]
        if any(map(any, fresh)):
            self._steps += 1
            self._on_step(self._steps, _padded([tokens for tokens, _ in states]), _padded(fresh).bool())

    def _state(
        self, engine: Engine, number: int, results: dict[int, FilledCanvas]
    ) -> tuple[Sequence[int], Sequence[int]]:
        if number in results:
            return results[number].tokens, results[number].revealed_at
        found = engine.look(number)
        return ((), ()) if found is None else (found.tokens, found.revealed_at)


def _changed(before: Sequence[int], after: Sequence[int]) -> list[int]:
    """1 where a position became text: its time is another than it was, and not 0."""
    known = [*before, *[0] * (len(after) - len(before))]
    return [int(now != 0 and now != then) for then, now in zip(known, after, strict=False)]


def _padded(rows: Sequence[Sequence[int]]) -> Tensor:
    longest = max(map(len, rows), default=0)
    return torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows], dtype=torch.int64)
