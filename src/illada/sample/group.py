"""Rows that are asked for in the same way: each policy is called once for all of them."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from illada.sample.caching import Caching, EntropyTriggered
from illada.sample.job import Job, Request
from illada.sample.request import SamplingParams
from illada.sample.unmasking import Unmasking

Slots = slice | Tensor
"""Some slots; all of them as a slice, which makes views of the tables instead of copies."""


@dataclass(frozen=True, kw_only=True)
class CachingGroup:
    """Rows with the same caching policy."""

    slots: Slots
    caching: Caching


@dataclass(frozen=True, kw_only=True)
class Group:
    """Rows whose tokens are chosen and unmasked in the same way."""

    slots: Slots
    members: tuple[int, ...]
    """The same slots as numbers."""
    params: SamplingParams
    """Of one of them: what they have in common is read from it."""
    unmasking: Unmasking
    suppress: Tensor
    """Ids that cannot be chosen, [MASK] among them."""
    reveal_last: Tensor
    ends: Tensor
    """Ids that end a text."""
    marker: tuple[int, ...]
    surprises: bool
    """A caching policy of one of them asks for the entropy of what becomes text."""


@dataclass(frozen=True, kw_only=True)
class Groups:
    """The rows at work, grouped in both ways."""

    caching: list[CachingGroup]
    choosing: list[Group]

    @classmethod
    def of(cls, jobs: Sequence[Job], *, mask_id: int, device: torch.device) -> "Groups":
        """Group jobs, each in the slot of its place in the list."""
        by_caching = _gathered(jobs, lambda request: request.params.caching)
        by_choice = _gathered(jobs, _choice)
        return cls(
            caching=[
                CachingGroup(slots=_slots(slots, jobs, device), caching=jobs[slots[0]].request.params.caching_policy)
                for slots in by_caching
            ],
            choosing=[_group(slots, jobs, mask_id=mask_id, device=device) for slots in by_choice],
        )


def _gathered(jobs: Sequence[Job], key: Callable[[Request], Hashable]) -> list[list[int]]:
    members: dict[Hashable, list[int]] = {}
    for slot, job in enumerate(jobs):
        members.setdefault(key(job.request), []).append(slot)
    return list(members.values())


def _choice(request: Request) -> Hashable:
    """All that decides which token is chosen and when it becomes text, but for what is a row's own."""
    params = request.params
    thinking = (params.thinking_power, request.marker) if params.thinking_strength else None
    return (
        params.unmasking,
        params.temperature,
        params.top_p,
        params.guidance,
        params.suppress,
        params.reveal_last,
        params.thinking_strength,
        thinking,
        _ends(request),
    )


def _ends(request: Request) -> tuple[int, ...]:
    return () if request.stopping is None else tuple(sorted(request.stopping.end_ids))


def _slots(slots: list[int], jobs: Sequence[Job], device: torch.device) -> Slots:
    return slice(0, len(jobs)) if len(slots) == len(jobs) else torch.tensor(slots, device=device)


def _group(slots: list[int], jobs: Sequence[Job], *, mask_id: int, device: torch.device) -> Group:
    request = jobs[slots[0]].request
    params = request.params
    return Group(
        slots=_slots(slots, jobs, device),
        members=tuple(slots),
        params=params,
        unmasking=params.unmasking_policy,
        suppress=torch.tensor(sorted({mask_id, *params.suppress}), device=device),
        reveal_last=torch.tensor(params.reveal_last, dtype=torch.int64, device=device),
        ends=torch.tensor(_ends(request), dtype=torch.int64, device=device),
        marker=request.marker,
        surprises=any(isinstance(jobs[slot].request.params.caching_policy, EntropyTriggered) for slot in slots),
    )
