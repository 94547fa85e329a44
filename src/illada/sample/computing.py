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
    order: Int[Tensor, "rows places"]
    """Which of the selected a position is, if it is."""
    unconditional: "Read | None"
    """The same without the prompts, of the guided rows alone; None where there are none."""
    lag: int
    """A hidden state says something of the token so many places behind it; the first of a row also of its own."""

    def logits(
        self, row: Int[Tensor, " masked"], position: Int[Tensor, " masked"], *, guidance: float
    ) -> Float[Tensor, "masked vocab"]:
        """About the tokens at some positions; only these meet the vocabulary."""
        which = self.order[row, (position - self.lag).clamp(min=0)]
        logits = self.model.logits(self.hidden[which]).float()
        if guidance and self.unconditional is not None:
            without = self.unconditional.logits(row, position, guidance=0.0)
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
    counts = wanted.sum(1).tolist()
    selection = _selection(table, jobs, wanted, counts, slots=turn)
    tokens = table.tokens[selection.slot, selection.position]
    watch = _watch(table, groups, columns, wanted=wanted, selection=selection, mask_id=mask_id)
    hidden = model.recompute(tokens, table.cache, selection, watch)
    unconditional, guided = None, [slot for slot in turn if jobs[slot].request.params.guidance]
    if guided:
        unconditional = _unconditional(model, table, jobs, wanted, counts, guided=guided, mask_id=mask_id)
        counts = [2 * count if slot in guided else count for slot, count in enumerate(counts)]
    if watch is not None:
        wanted = watch.wanted
        watched = watch.work.div(model.config.layers, rounding_mode="floor").tolist()
        # guided rows are not watched, but come beside those that are
        counts = [count if slot in guided else watched[slot] for slot, count in enumerate(counts)]
    table.computed[selection.slot, selection.position] = True
    return _read(model, table, hidden, wanted, unconditional=unconditional), counts


def _unconditional(
    model: Transformer,
    table: Table,
    jobs: Sequence[Job],
    wanted: Places,
    counts: Sequence[int],
    *,
    guided: Sequence[int],
    mask_id: int,
) -> Read:
    """The forward of the guided rows without their prompts."""
    assert table.unconditional is not None
    theirs = torch.zeros_like(wanted)
    theirs[guided] = wanted[guided]
    selection = _selection(table, jobs, theirs, counts, slots=guided)
    where = (selection.slot, selection.position)
    tokens = table.tokens[where].masked_fill(table.prompt[where], mask_id)
    return _read(model, table, model.recompute(tokens, table.unconditional, selection), theirs, unconditional=None)


def _selection(
    table: Table, jobs: Sequence[Job], wanted: Places, counts: Sequence[int], *, slots: Sequence[int]
) -> Selection:
    """What is wanted of the rows in some slots, all that is."""
    slot, position = wanted.nonzero(as_tuple=True)
    return Selection(
        slot=slot,
        position=position,
        slots=slots,
        counts=[counts[slot] for slot in slots],
        lengths=[jobs[slot].place(jobs[slot].hole_start) if table.causal else jobs[slot].sight for slot in slots],
        causal=table.causal,
    )


def _read(model: Transformer, table: Table, hidden: Tensor, computed: Places, *, unconditional: Read | None) -> Read:
    order = computed.flatten().cumsum(0).view_as(computed) - 1
    return Read(model=model, hidden=hidden, order=order, unconditional=unconditional, lag=table.lag)


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
