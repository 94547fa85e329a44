"""One forward of the engine: which positions of which rows it computes, and how to read what came of it."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from jaxtyping import Float, Int
from torch import Tensor

from illada.model.cache import Selection
from illada.model.transformer import Transformer
from illada.sample.caching import Elastic, Places, RowView
from illada.sample.elastic import DriftWatch
from illada.sample.group import CachingGroup
from illada.sample.job import Job
from illada.sample.table import Table

PerRow = Int[Tensor, " rows"]


@dataclass(frozen=True, kw_only=True)
class Columns:
    """What is known of the rows before the forward: one number per row."""

    length: PerRow
    """Positions that the model sees."""
    start: PerRow
    stop: PerRow
    previous: PerRow
    forward: PerRow
    block_forward: PerRow
    """The last five: see `illada.sample.caching.RowView`."""
    hole_start: PerRow
    hole_stop: PerRow
    """The holes of the blocks at work."""
    count: PerRow
    """Holes that the plan reveals."""
    seed: PerRow

    @classmethod
    def of(cls, jobs: Sequence[Job], *, causal: bool, device: torch.device) -> "Columns":
        """Gather them from the jobs, in one transfer."""
        rows = []
        for job in jobs:
            start, stop = job.hole_start, job.hole_stop
            before = job.request.blocks[job.block - 1].start if job.block else start
            # a causal model is not shown the position that it is to predict
            sight = job.place(start) if causal else job.sight
            places = (sight, job.place(start), job.place(stop - 1) + 1, job.place(before))
            forwards = (job.forwards + 1, job.block_forwards + 1)
            rows.append([*places, *forwards, start, stop, job.count, job.request.canvas.seed])
        columns = torch.tensor(rows, dtype=torch.int64, device=device).unbind(1)
        return cls(**{field.name: column for field, column in zip(fields(cls), columns, strict=True)})


@dataclass(frozen=True, kw_only=True)
class Read:
    """The hidden states of a forward, and where each position's is."""

    model: Transformer
    hidden: Float[Tensor, "selected hidden"]
    unconditional: Float[Tensor, "selected hidden"] | None
    order: Int[Tensor, "rows places"]
    """Which of the selected a position is, if it is."""
    lag: int
    """A hidden state says something of the token so many places behind it; the first of a row also of its own."""

    def logits(
        self, row: Int[Tensor, " masked"], position: Int[Tensor, " masked"], *, guidance: float
    ) -> Float[Tensor, "masked vocab"]:
        """About the tokens at some positions; only these meet the vocabulary."""
        which = self.order[row, (position - self.lag).clamp(min=0)]
        logits = self.model.logits(self.hidden[which]).float()
        if guidance and self.unconditional is not None:
            without = self.model.logits(self.unconditional[which]).float()
            logits = without + (guidance + 1) * (logits - without)
        return logits


def positions_wanted(
    table: Table, jobs: Sequence[Job], groups: Sequence[CachingGroup], columns: Columns, *, mask_id: int
) -> Places:
    """[rows, places]: what the forward computes, if all rows take part."""
    rows, longest = len(jobs), max(job.sight for job in jobs)
    place = torch.arange(longest, device=columns.start.device)
    inside = place < columns.length[:, None]
    fresh = inside & ~table.computed[:rows, :longest]
    if table.causal:
        return fresh
    masked = inside & (table.tokens[:rows, :longest] == mask_id)
    at_work = masked & (place >= columns.start[:, None]) & (place < columns.stop[:, None])
    wanted = fresh | at_work
    if table.lag:  # what tells of a mask stands before it
        wanted[:, :-1] |= at_work[:, 1:]
    for group in groups:
        slots = group.slots
        view = RowView(
            inside=inside[slots],
            masked=masked[slots],
            start=columns.start[slots],
            stop=columns.stop[slots],
            previous=columns.previous[slots],
            forward=columns.forward[slots],
            block_forward=columns.block_forward[slots],
            revealed_at=table.revealed_at[:rows, :longest][slots],
            surprise=table.surprise[:rows][slots],
        )
        wanted[slots] |= group.caching.recompute(view)
        if isinstance(group.caching, Elastic):
            watched = table.watch_attention().watched[:, :rows].T[slots]
            wanted[slots] |= (watched[..., None] == place).any(1) & view.inside
    return wanted


def forward(
    model: Transformer,
    table: Table,
    jobs: Sequence[Job],
    groups: Sequence[CachingGroup],
    columns: Columns,
    *,
    wanted: Places,
    turn: Sequence[int],
    mask_id: int,
) -> tuple[Read, list[int]]:
    """Compute what is wanted of the rows in `turn`.

    Returns:
        How hidden states are looked up, and how many positions each row took.
    """
    slot, position = wanted.nonzero(as_tuple=True)
    counts = wanted.sum(1).tolist()
    selection = Selection(
        slot=slot,
        position=position,
        slots=turn,
        counts=[counts[slot] for slot in turn],
        lengths=[jobs[slot].place(jobs[slot].hole_start) if table.causal else jobs[slot].sight for slot in turn],
        causal=table.causal,
    )
    tokens = table.tokens[slot, position]
    watch = _watch(table, groups, columns, wanted=wanted, selection=selection, mask_id=mask_id)
    hidden = model.recompute(tokens, table.cache, selection, watch)
    unconditional = None
    if table.unconditional is not None:
        # unguided rows come along: they are rarely beside guided ones
        hidden_tokens = tokens.masked_fill(table.prompt[slot, position], mask_id)
        unconditional = model.recompute(hidden_tokens, table.unconditional, selection)
        counts = [count * (2 if job.request.params.guidance else 1) for count, job in zip(counts, jobs, strict=True)]
    if watch is not None:
        wanted, counts = watch.wanted, watch.work.div(model.config.layers, rounding_mode="floor").tolist()
    table.computed[slot, position] = True
    order = wanted.flatten().cumsum(0).view_as(wanted) - 1
    read = Read(model=model, hidden=hidden, unconditional=unconditional, order=order, lag=table.lag)
    return read, counts


def _watch(
    table: Table,
    groups: Sequence[CachingGroup],
    columns: Columns,
    *,
    wanted: Places,
    selection: Selection,
    mask_id: int,
) -> DriftWatch | None:
    """What looks on in the layers; None where no row asks for it."""
    elastic = [(group, group.caching) for group in groups if isinstance(group.caching, Elastic)]
    if not elastic:
        return None
    gamma = torch.full_like(columns.length, -torch.inf, dtype=torch.float32)
    for group, caching in elastic:
        gamma[group.slots] = caching.gamma
    rows, longest = wanted.shape
    inside = torch.arange(longest, device=wanted.device) < columns.length[:, None]
    return DriftWatch(
        memory=table.watch_attention(),
        gamma=gamma,
        inside=inside,
        text=inside & (table.tokens[:rows, :longest] != mask_id),
        wanted=wanted,
        selection=selection,
        drifted=torch.zeros(rows, dtype=torch.bool, device=wanted.device),
        taking_part=wanted.any(1),
        work=torch.zeros_like(columns.length),
    )
