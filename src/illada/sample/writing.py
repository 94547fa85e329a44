"""Writing behind a prompt: block after block until the text ends, or on one fixed canvas.

On the variable canvas the model sees the prompt, what is written, and one block of masks (iLLaDA, arXiv 2606.25331,
section 2.3). The plan of steps is that of the fixed canvas; only what lies behind the block is out of sight.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from illada.model.transformer import Transformer
from illada.sample.canvas import Canvas, FilledCanvas
from illada.sample.plan import PlannedStep, reveal_plan
from illada.sample.request import SamplingParams
from illada.sample.sampler import Step, denoise
from illada.sample.stopping import Cut, Stopping
from illada.sample.thinking import boost


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """One text to continue."""

    tokens: tuple[int, ...]
    seed: int = 0


@dataclass(kw_only=True)
class Writing:
    """What has been written behind one prompt."""

    prompt: Prompt
    budget: int
    """Tokens that may be written in all."""
    clipped: bool
    """The context left less room than was asked for."""
    tokens: list[int] = field(default_factory=list)
    revealed_at: list[int] = field(default_factory=list)
    """For every token the forward, counted from 1, that wrote it."""
    forwards: int = 0
    positions: int = 0
    """Token positions computed: the length of the row, summed over its forwards; twice that with guidance."""
    cut: Cut | None = None

    def canvas(self, size: int) -> Canvas:
        """Prompt, what is written, and `size` holes."""
        return Canvas(
            tokens=(*self.prompt.tokens, *self.tokens, *[None] * size),
            seed=self.prompt.seed,
            first_step=self.forwards,
            first_hole=len(self.tokens),
            prompt_length=len(self.prompt.tokens),
        )

    def take(self, filled: FilledCanvas) -> None:
        """Put a filled canvas behind what is written."""
        known = len(self.prompt.tokens) + len(self.tokens)
        self.tokens += filled.tokens[known:]
        self.revealed_at += [self.forwards + step for step in filled.revealed_at[known:]]
        self.forwards += filled.forwards


def budget_within(context: int, *, prompt: int, params: SamplingParams) -> tuple[int, bool]:
    """(tokens that may be written behind a prompt of so many, whether the context cut it down).

    On the variable canvas a budget that does not fit is cut to what is left, in whole blocks (the rule of iLLaDA's
    evaluation), or to the one shorter block that there is room for.

    Raises:
        ValueError: there is no room at all, or not for the whole of a fixed canvas.
    """
    left = context - prompt
    if params.length <= left:
        return params.length, False
    if params.canvas == "fixed":
        raise ValueError(
            f"prompt and completion need {prompt + params.length} tokens, but the model's context holds {context}: "
            "shorten the prompt or ask for a smaller length"
        )
    if left < 1:
        raise ValueError(
            f"the prompt has {prompt} tokens and fills the model's context of {context}: shorten it to leave room for "
            "an answer"
        )
    return left // params.block_length * params.block_length or left, True


def begin(context: int, prompts: Sequence[Prompt], params: SamplingParams) -> list[Writing]:
    """Nothing written yet behind each prompt.

    Raises:
        ValueError: a prompt leaves no room.
    """
    room = [budget_within(context, prompt=len(prompt.tokens), params=params) for prompt in prompts]
    return [
        Writing(prompt=prompt, budget=budget, clipped=clipped)
        for prompt, (budget, clipped) in zip(prompts, room, strict=True)
    ]


def write(
    model: Transformer,
    prompts: Sequence[Prompt],
    params: SamplingParams,
    *,
    mask_id: int,
    stopping: Stopping,
    thinking_marker: Sequence[int] = (),
) -> Generator[Step, None, list[Writing]]:
    """Continue every prompt, a forward at a time; the generator's value is the result.

    Rows share the forwards and each gets what it would get alone. On the variable canvas a row leaves as soon as its
    end is certain: at an end of text or a stop string with no mask before it.

    Raises:
        ValueError: a prompt leaves no room, or a parameter does not fit the model.
    """
    writings = begin(model.config.max_length, prompts, params)
    plans = [_blocks(writing.budget, params) for writing in writings]
    number = 0
    while at_work := [
        (writing, blocks[number])
        for writing, blocks in zip(writings, plans, strict=True)
        if writing.cut is None and number < len(blocks)
    ]:
        yield from _write_block(model, at_work, params, mask_id=mask_id, stopping=stopping, marker=thinking_marker)
        number += 1
    return writings


def _write_block(
    model: Transformer,
    at_work: Sequence[tuple[Writing, list[PlannedStep]]],
    params: SamplingParams,
    *,
    mask_id: int,
    stopping: Stopping,
    marker: Sequence[int],
) -> Generator[Step, None, None]:
    """Denoise the next canvas of every row that goes on."""
    writings = [writing for writing, _ in at_work]
    canvases = [writing.canvas(max((step.stop for step in plan), default=0)) for writing, plan in at_work]

    def leaves(row: int, filled: tuple[int, ...]) -> bool:
        writings[row].cut = stopping.find([*writings[row].tokens, *filled])
        return writings[row].cut is not None

    steps = denoise(
        model,
        canvases,
        [plan for _, plan in at_work],
        params,
        mask_id=mask_id,
        leaves=leaves if params.canvas == "variable" else None,
        adjust=boost(
            list(marker),
            strength=params.thinking_strength,
            power=params.thinking_power,
            budgets=[writing.budget for writing in writings],
        ),
    )
    filled = yield from steps
    guided = params.guidance > 0
    for writing, canvas, row in zip(writings, canvases, filled, strict=True):
        writing.take(row)
        writing.positions += row.forwards * len(canvas.tokens) * (2 if guided else 1)
        if writing.cut is None:
            writing.cut = stopping.find(writing.tokens)


def _blocks(budget: int, params: SamplingParams) -> list[list[PlannedStep]]:
    """The plan of every canvas, its holes counted from its own start: one for each block, or one for all."""
    steps = min(params.steps or budget, budget)
    plan = reveal_plan(budget, block_length=params.block_length, steps=steps)
    if params.canvas == "fixed":
        return [plan]
    blocks = []
    for (start, stop), group in groupby(plan, key=lambda step: (step.start, step.stop)):
        blocks.append([PlannedStep(start=0, stop=stop - start, reveals=step.reveals) for step in group])
    return blocks
