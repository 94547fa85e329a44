"""Writing behind a prompt from left to right, one token per forward: what an autoregressive model does.

Every forward computes the whole text anew. That is slow and plainly right: the reference for whatever keeps something.
"""

from collections.abc import Generator, Sequence

import torch
from torch import Tensor

from illada.model.transformer import Transformer
from illada.sample.canvas import BatchState
from illada.sample.choice import choose_tokens
from illada.sample.plan import PlannedStep
from illada.sample.request import SamplingParams
from illada.sample.sampler import Step, check_request
from illada.sample.stopping import Stopping
from illada.sample.thinking import EndOfThinking, boost
from illada.sample.writing import Prompt, Writing, begin

_ONE_TOKEN = [PlannedStep(start=0, stop=1, reveals=1)]
_OF_DIFFUSION = ("canvas", "block_length", "steps", "guidance", "unmasking", "reveal_last")


def check_causal(params: SamplingParams) -> None:
    """Refuse what only a diffusion model can be told.

    Raises:
        ValueError: one of these parameters is not at its default.
    """
    defaults = SamplingParams()
    changed = [name for name in _OF_DIFFUSION if getattr(params, name) != getattr(defaults, name)]
    for name in ["end"] * (params.end == "last") + changed:
        raise ValueError(
            f"a causal model writes one token after the other: {name} says nothing to it; leave it at "
            f"{getattr(defaults, name)!r}, got {getattr(params, name)!r}"
        )


def write_autoregressively(
    model: Transformer,
    prompts: Sequence[Prompt],
    params: SamplingParams,
    *,
    mask_id: int,
    stopping: Stopping,
    thinking_marker: Sequence[int] = (),
) -> Generator[Step, None, list[Writing]]:
    """Continue every prompt, a forward at a time; the generator's value is the result.

    The counterpart of `illada.sample.writing.write` for a causal model, with the same budgets, ends and addresses of
    noise. [MASK] is never chosen. Rows share the forwards and each gets what it would get alone; it leaves with its
    end of text, a stop string, or the last token of its budget.

    Raises:
        ValueError: a prompt is empty or leaves no room, or a parameter does not fit the model.
    """
    check_causal(params)
    if any(not prompt.tokens for prompt in prompts):
        raise ValueError("a causal model continues what is there, but a prompt has 0 tokens: begin it with BOS")
    writings = begin(model.config.max_length, prompts, params)
    check_request(model, [writing.canvas(0) for writing in writings], params, mask_id=mask_id)
    number = 0
    while at_work := [writing for writing in writings if writing.cut is None and len(writing.tokens) < writing.budget]:
        number += 1
        adjust = boost(
            list(thinking_marker),
            strength=params.thinking_strength,
            power=params.thinking_power,
            budgets=[writing.budget for writing in at_work],
        )
        # the mode is left before every yield: it belongs to the thread, and the caller has the thread then
        with torch.inference_mode():
            state, revealed = _next_tokens(model, at_work, params, mask_id=mask_id, adjust=adjust)
        for row, writing in enumerate(at_work):
            writing.positions += len(state.canvases[row].tokens) - 1
            writing.take(state.result(row, steps_done=1, holes=1))
            writing.cut = stopping.find(writing.tokens)
        yield Step(number=number, state=state, revealed=revealed)
    return writings


def _next_tokens(
    model: Transformer,
    at_work: Sequence[Writing],
    params: SamplingParams,
    *,
    mask_id: int,
    adjust: EndOfThinking | None,
) -> tuple[BatchState, Tensor]:
    """The rows with one more token each, and where it stands: bool, [rows, length]."""
    canvases = [writing.canvas(1) for writing in at_work]
    device = model.embedding.weight.device
    state = BatchState.build(canvases, [_ONE_TOKEN] * len(canvases), mask_id=mask_id, device=device)
    place = state.hole_positions
    logits = _logits_before(model, state, place)
    if adjust is not None:
        logits = adjust(logits, state, place)
    tokens, _ = choose_tokens(
        logits,
        suppress=torch.tensor(sorted({mask_id, *params.suppress}), device=device),
        reveal_last=torch.tensor([], dtype=torch.int64, device=device),
        temperature=params.temperature,
        top_p=params.top_p,
        noise_at=state.noise[:, :2],
        hole=state.noise[:, 2:],
    )
    state.tokens.scatter_(1, place, tokens)
    state.masked[:] = False
    state.revealed_at[:] = 1
    return state, torch.zeros_like(state.tokens, dtype=torch.bool).scatter_(1, place, value=True)


def _logits_before(model: Transformer, state: BatchState, place: Tensor) -> Tensor:
    """Logits [rows, 1, vocab] at the positions in front of `place`: about the tokens that are to stand there.

    The last column holds nothing but holes, and is left out; the hole of a shorter row stays, behind all that is read,
    where a causal model does not see it.
    """
    segments = None if state.segments is None else state.segments[:, :-1]
    hidden = model(state.tokens[:, :-1], segments)
    before = (place - 1)[..., None].expand(-1, -1, hidden.shape[-1])
    return model.logits(hidden.gather(1, before)).float()
