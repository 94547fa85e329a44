"""What follows from a forward: tokens are chosen for the open holes, and some of them become text."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from illada.sample.choice import choose_tokens
from illada.sample.computing import Read
from illada.sample.group import Group
from illada.sample.job import Job
from illada.sample.table import Table
from illada.sample.thinking import EndOfThinking
from illada.sample.unmasking import Block
from illada.seeding import Stream

PerRow = Int[Tensor, " rows"]

_ORDER = Stream(0, "unmasking")
_MOST_HOLES = 1 << 16


def denoise(
    table: Table,
    group: Group,
    read: Read,
    *,
    rows: PerRow,
    mask_id: int,
    hole_start: PerRow,
    hole_stop: PerRow,
    count: PerRow,
    taking_part: Bool[Tensor, " rows"],
    forward: PerRow,
    seed: PerRow,
    jobs: Sequence[Job],
) -> tuple[PerRow, Bool[Tensor, " rows"]]:
    """One step of the rows of a group.

    Returns:
        How many holes of the blocks at work are filled from the left without a gap, and whether an end of text is among
        them.
    """
    width = int(max(job.hole_stop - job.hole_start for job in jobs))
    hole = hole_start[:, None] + torch.arange(width, device=rows.device)
    at_work = (hole < hole_stop[:, None]) & taking_part[:, None]
    position = table.holes[group.slots].gather(1, hole.clamp(max=table.places - 1))
    before = table.tokens[group.slots].gather(1, position)
    masked = at_work & (before == mask_id)
    member, column = masked.nonzero(as_tuple=True)
    logits = read.logits(rows[member], position[member, column], guidance=group.params.guidance)
    if group.params.thinking_strength and group.marker:
        logits = _boosted(logits, table, group, jobs, member, position[member, column])
    logits = logits.index_fill(-1, group.suppress, -torch.inf)
    chosen, confidence = choose_tokens(
        logits,
        reveal_last=group.reveal_last,
        temperature=group.params.temperature,
        top_p=group.params.top_p,
        seed=seed[member],
        step=forward[member] - 1,
        hole=hole[member, column],
    )
    block = Block(
        masked=masked,
        settled=at_work & ~masked,
        count=count,
        confidence=table.confidence[group.slots].gather(1, position).masked_scatter(masked, confidence),
        logits=logits,
        noise=lambda: _noise(seed, forward - 1, hole),
    )
    holds = group.unmasking.select(block)
    after = torch.where(masked, before.masked_scatter(masked, chosen), before)
    after = torch.where(at_work & ~holds, mask_id, after)
    _write(table, rows, position, block, holds, after=after, forward=forward)
    if group.surprises:
        revealed = torch.where(masked & holds, block.entropy, -torch.inf)
        table.surprise[group.slots] = torch.where(taking_part, revealed.amax(1), table.surprise[group.slots])
    prefix = (holds | ~at_work).int().cumprod(1).bool() & at_work
    ended = (prefix & torch.isin(after, group.ends)).any(1)
    return prefix.sum(1), ended


def _write(
    table: Table, rows: PerRow, position: Tensor, block: Block, holds: Tensor, *, after: Tensor, forward: PerRow
) -> None:
    """Put what has changed into the table."""
    member, column = ((block.masked & holds) | (block.settled & ~holds)).nonzero(as_tuple=True)
    slot, place = rows[member], position[member, column]
    is_text = holds[member, column]
    table.tokens[slot, place] = after[member, column]
    table.revealed_at[slot, place] = torch.where(is_text, forward[member], 0)
    table.confidence[slot, place] = block.confidence[member, column]


def _boosted(
    logits: Tensor, table: Table, group: Group, jobs: Sequence[Job], member: Tensor, position: Tensor
) -> Tensor:
    """Logits with the end-of-thinking boost at the first mask of each row."""
    if len(member) == 0:
        return logits
    device = logits.device
    start = torch.tensor([job.place(0) for job in jobs], device=device)
    sight = torch.tensor([job.sight for job in jobs], device=device)
    budget = torch.tensor([len(job.request.canvas.holes) for job in jobs], device=device)
    place = start[:, None] + torch.arange(max(job.sight - job.place(0) for job in jobs), device=device)
    written = table.tokens[group.slots].gather(1, place.clamp(max=table.places - 1))
    written = written.masked_fill(place >= sight[:, None], -1)
    row = torch.arange(len(jobs), device=device)
    first = torch.searchsorted(member, row).clamp(max=len(member) - 1)
    boost = EndOfThinking(
        marker=group.marker, strength=group.params.thinking_strength, power=group.params.thinking_power
    )
    token, bonus = boost.of(written, position[first] - start, budget=budget)
    bonus = torch.where(member[first] == row, bonus, 0.0).to(logits.dtype)
    return logits.index_put((first, token), bonus, accumulate=True)


def _noise(seed: PerRow, step: PerRow, hole: Int[Tensor, "rows window"]) -> Float[Tensor, "rows window"]:
    """One number in [0, 1) per position of the window, addressed by (seed, step, hole)."""
    index = seed[:, None].expand_as(hole)
    return _ORDER.uniform(index, 1, epoch=step[:, None] * _MOST_HOLES + hole).squeeze(-1)
