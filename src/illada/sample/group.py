"""Rows that are asked for in the same way: they are denoised together, in one call of each policy."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from illada.sample.caching import Caching
from illada.sample.job import Job, Request
from illada.sample.request import SamplingParams
from illada.sample.unmasking import Unmasking


@dataclass(frozen=True, kw_only=True)
class Group:
    """Some slots, and what their rows have in common."""

    slots: slice | Tensor
    members: tuple[int, ...]
    """The same slots as numbers."""
    params: SamplingParams
    unmasking: Unmasking
    caching: Caching
    suppress: Tensor
    """Ids that cannot be chosen, [MASK] among them."""
    reveal_last: Tensor
    ends: Tensor
    """Ids that end a text."""
    marker: tuple[int, ...]


def group_jobs(jobs: Sequence[Job], *, mask_id: int, device: torch.device) -> list[Group]:
    """The jobs, each in the slot of its place in the list, by what they have in common."""
    members: dict[tuple[object, ...], list[int]] = {}
    for slot, job in enumerate(jobs):
        members.setdefault(_likeness(job.request), []).append(slot)
    whole = len(members) == 1
    return [
        _group(jobs[slots[0]].request, slots, whole=whole, mask_id=mask_id, device=device) for slots in members.values()
    ]


def _likeness(request: Request) -> tuple[object, ...]:
    """Equal for requests that can share a group: seed, lengths and stop strings are a row's own."""
    common = replace(request.params, seed=0, length=request.params.block_length, steps=None, stop=())
    ends = () if request.stopping is None else tuple(sorted(request.stopping.end_ids))
    return common, request.marker, ends


def _group(request: Request, slots: list[int], *, whole: bool, mask_id: int, device: torch.device) -> Group:
    params = request.params
    ends = () if request.stopping is None else tuple(request.stopping.end_ids)
    return Group(
        # all rows: views of the tables instead of copies
        slots=slice(0, len(slots)) if whole else torch.tensor(slots, device=device),
        members=tuple(slots),
        params=params,
        unmasking=params.unmasking_policy,
        caching=params.caching_policy,
        suppress=torch.tensor(sorted({mask_id, *params.suppress}), device=device),
        reveal_last=torch.tensor(params.reveal_last, dtype=torch.int64, device=device),
        ends=torch.tensor(ends, dtype=torch.int64, device=device),
        marker=request.marker,
    )
