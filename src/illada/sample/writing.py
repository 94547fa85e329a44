"""Writing behind a prompt: block after block until the text ends, or on one fixed canvas.

On the variable canvas the model sees the prompt, what is written, and one block of masks (iLLaDA, arXiv 2606.25331,
section 2.3). The plan of steps is that of the fixed canvas; only what lies behind the block is out of sight.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from illada.model.config import ModelConfig
from illada.model.transformer import Transformer
from illada.sample.autoregressive import one_by_one
from illada.sample.canvas import Canvas, FilledCanvas
from illada.sample.engine import Engine
from illada.sample.job import Request
from illada.sample.request import SamplingParams
from illada.sample.sampler import OnStep, run
from illada.sample.stopping import Cut, Stopping


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """One text to continue."""

    tokens: tuple[int, ...]
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Writing:
    """What has been written behind one prompt."""

    prompt: Prompt
    clipped: bool
    """The context left less room than was asked for."""
    tokens: tuple[int, ...]
    revealed_at: tuple[int, ...]
    """For every token the forward, counted from 1, that wrote it."""
    forwards: int
    positions: int
    """Token positions computed, summed over the forwards; twice that with guidance."""
    cut: Cut | None
    seconds: float = field(default=0.0, compare=False)

    @classmethod
    def of(cls, prompt: Prompt, filled: FilledCanvas, *, params: SamplingParams, context: int) -> "Writing":
        """What a filled canvas holds behind its prompt."""
        known = len(prompt.tokens)
        return cls(
            prompt=prompt,
            clipped=budget_within(context, prompt=known, params=params)[1],
            tokens=filled.tokens[known:],
            revealed_at=filled.revealed_at[known:],
            forwards=filled.forwards,
            positions=filled.positions,
            cut=filled.cut,
            seconds=filled.seconds,
        )


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


def write(
    model: Transformer,
    prompts: Sequence[Prompt],
    params: SamplingParams,
    *,
    mask_id: int,
    stopping: Stopping,
    thinking_marker: Sequence[int] = (),
    on_step: OnStep | None = None,
) -> list[Writing]:
    """Continue every prompt.

    Rows share the forwards and each gets what it would get alone. On the variable canvas a row leaves as soon as its
    end is certain: at an end of text or a stop string with no mask before it.

    Raises:
        ValueError: a prompt leaves no room, or a parameter does not fit the model.
    """
    marker, context = tuple(thinking_marker), model.config.max_length
    requests = [
        writing_request(prompt, params, config=model.config, stopping=stopping, marker=marker) for prompt in prompts
    ]
    filled = run(Engine(model, mask_id=mask_id), requests, on_step=on_step)
    return [
        Writing.of(prompt, row, params=params, context=context) for prompt, row in zip(prompts, filled, strict=True)
    ]


def writing_request(
    prompt: Prompt, params: SamplingParams, *, config: ModelConfig, stopping: Stopping, marker: tuple[int, ...] = ()
) -> Request:
    """A prompt as the engine takes it.

    Raises:
        ValueError: it leaves no room, or a parameter says nothing to a causal model.
    """
    budget, _ = budget_within(config.max_length, prompt=len(prompt.tokens), params=params)
    if config.attention == "causal":
        params = one_by_one(params)
    canvas = Canvas(tokens=(*prompt.tokens, *[None] * budget), seed=prompt.seed, prompt_length=len(prompt.tokens))
    grows = params.canvas == "variable"
    return Request(canvas=canvas, params=params, grows=grows, stopping=stopping, marker=marker)
