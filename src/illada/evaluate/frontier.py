"""Quality against speed: the same questions with many settings of sampling, and which of them lose nothing.

questions x settings -> points (exact match, tokens per forward, seconds) -> area, and the settings that lose nothing
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, product
from typing import Any

from illada.evaluate.bootstrap import Difference, mcnemar, paired_difference
from illada.evaluate.fitting import Room
from illada.evaluate.run import Model, Prepared, answer
from illada.evaluate.summary import AnswerLine, Part, part_of
from illada.sample.request import SamplingParams

CACHING = ("none", "dual", "delayed", "delayed,refresh=0", "elastic", "entropy", "block_reuse")
UNMASKING = (
    "low_confidence",
    "threshold,tau=0.99",
    "threshold,tau=0.95",
    "threshold,tau=0.9",
    "threshold,tau=0.7",
    "factor",
    "entropy_threshold",
)
BLOCKS = (32,)
TOLERATED = 0.01
"""A setting loses nothing if it is right as often as the baseline, give or take so much, and McNemar's test finds no
difference: of all questions together, and of none of the tasks, lest what one loses be hidden by others that the model
cannot do anyway."""
SIGNIFICANT = 0.05

Pair = tuple[AnswerLine, AnswerLine]
"""The baseline's answer to a question, and a setting's."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """What one setting of sampling comes to."""

    caching: str
    unmasking: str
    block_length: int
    right: Part
    """Share of right answers."""
    difference: Difference
    """To the baseline, on the same questions."""
    p_value: float
    """McNemar's, that it is right as often as the baseline."""
    losing: tuple[str, ...] = ()
    """The tasks in which it is right less often, by McNemar's test of the task alone."""
    tokens_per_forward: float
    """Tokens of all texts over the forwards of all."""
    forwards: float
    positions: float
    """The last two: per answer."""
    seconds: float
    """Per answer."""
    tokens_per_second: float

    @property
    def loses_nothing(self) -> bool:
        """It is as good as the baseline, as far as one can tell, in all tasks."""
        as_good = self.p_value > SIGNIFICANT or self.difference.value >= 0
        return not self.losing and as_good and self.difference.value >= -TOLERATED

    def data(self) -> dict[str, Any]:
        """The point as plain data."""
        return {
            "caching": self.caching,
            "unmasking": self.unmasking,
            "block_length": self.block_length,
            "count": self.right.count,
            "correct": self.right.correct,
            "exact_match": self.right.share,
            "interval": vars(self.right.interval),
            "difference": {"value": self.difference.value, "interval": vars(self.difference.interval)},
            "p_value": self.p_value,
            "losing": list(self.losing),
            "loses_nothing": self.loses_nothing,
            "tokens_per_forward": self.tokens_per_forward,
            "forwards": self.forwards,
            "positions": self.positions,
            "seconds": self.seconds,
            "tokens_per_second": self.tokens_per_second,
        }


def grid(
    caching: Sequence[str] = CACHING,
    unmasking: Sequence[str] = UNMASKING,
    block_lengths: Sequence[int] = BLOCKS,
    *,
    length: int = 128,
) -> list[SamplingParams]:
    """Every combination; the first is the baseline: no cache, one token per forward, low-confidence unmasking.

    Raises:
        ValueError: a policy that there is not.
    """
    baseline = SamplingParams(length=length)
    combined = [
        SamplingParams(length=length, caching=cache, unmasking=reveal, block_length=block)
        for block, cache, reveal in product(block_lengths, caching, unmasking)
    ]
    return [baseline, *(params for params in combined if params != baseline)]


def measure(
    model: Model,
    tasks: Sequence[Prepared],
    settings: Sequence[SamplingParams],
    *,
    room: Room,
    batch_size: int = 64,
    on_progress: Callable[[int], None] | None = None,
) -> list[Point]:
    """A point for each setting; the first is what the others are compared with.

    Args:
        model: what is asked.
        tasks: with written answers.
        settings: how, in turn.
        room: how much text fits the model.
        batch_size: questions that are asked together.
        on_progress: called with the number of settings that are done.
    """
    points: list[Point] = []
    before: list[AnswerLine] = []
    for number, params in enumerate(settings, start=1):
        began = time.perf_counter()
        lines = [line for task in tasks for line in _asked(model, task, params, room, batch_size)]
        points.append(_point(params, lines, before or lines, seconds=time.perf_counter() - began))
        before = before or lines
        if on_progress is not None:
            on_progress(number)
    return points


def _asked(model: Model, task: Prepared, params: SamplingParams, room: Room, batch_size: int) -> list[AnswerLine]:
    asked = replace(task, asking=replace(task.asking, sampling=params))
    starts = range(0, len(task.questions), batch_size)
    return [
        line for start in starts for line in answer(model, asked, task.questions[start : start + batch_size], room=room)
    ]


def _point(
    params: SamplingParams, lines: Sequence[AnswerLine], before: Sequence[AnswerLine], *, seconds: float
) -> Point:
    pairs = list(zip(before, lines, strict=True))
    tokens, forwards = sum(line.tokens for line in lines), sum(line.forwards for line in lines)
    return Point(
        caching=params.caching,
        unmasking=params.unmasking,
        block_length=params.block_length,
        right=part_of(lines),
        difference=paired_difference(
            [float(one.correct) for one, _ in pairs], [float(two.correct) for _, two in pairs]
        ),
        p_value=mcnemar(*_discordant(pairs)),
        losing=tuple(task for task, some in _by_task(pairs).items() if _loses(some)),
        tokens_per_forward=tokens / forwards,
        forwards=forwards / len(lines),
        positions=sum(line.positions for line in lines) / len(lines),
        seconds=seconds / len(lines),
        tokens_per_second=tokens / seconds,
    )


def _by_task(pairs: Sequence[Pair]) -> dict[str, list[Pair]]:
    tasks = dict.fromkeys(one.task for one, _ in pairs)
    return {task: [pair for pair in pairs if pair[0].task == task] for task in tasks}


def _discordant(pairs: Sequence[Pair]) -> tuple[int, int]:
    """(answers that the baseline alone has right, answers that the setting alone has right)."""
    alone = [(one.correct, two.correct) for one, two in pairs]
    return alone.count((True, False)), alone.count((False, True))


def _loses(pairs: Sequence[Pair]) -> bool:
    lost, gained = _discordant(pairs)
    return lost > gained and mcnemar(lost, gained) <= SIGNIFICANT


def best(points: Sequence[Point]) -> Point:
    """The cheapest setting among those that lose nothing; the baseline is one of them.

    Cheapest by the positions it computes, then by its forwards: these are the same on any machine, and seconds are not.
    """
    return min((point for point in points if point.loses_nothing), key=lambda point: (point.positions, point.forwards))


def area(points: Sequence[Point]) -> float:
    """Area under exact match over tokens per forward: how much parallelism is worth, at what quality.

    The frontier is the best exact match that is to be had at so many tokens per forward or more; between points it is a
    step, and it begins at 0 tokens per forward. So each setting only adds what no faster one gives: a model that loses
    nothing at n tokens per forward has n times its exact match.
    """
    total, reached = 0.0, 0.0
    ordered = sorted(points, key=lambda point: point.tokens_per_forward)
    for number, point in enumerate(ordered):
        total += (point.tokens_per_forward - reached) * max(later.right.share for later in ordered[number:])
        reached = point.tokens_per_forward
    return total


def frontier(points: Sequence[Point]) -> list[Point]:
    """The points that no other beats in both exact match and tokens per forward, the slowest first."""
    ordered = sorted(points, key=lambda point: (point.tokens_per_forward, point.right.share))
    kept = [
        point
        for number, point in enumerate(ordered)
        if all(later.right.share < point.right.share for later in ordered[number + 1 :])
    ]
    assert all(one.right.share > two.right.share for one, two in pairwise(kept))
    return kept
