"""Keys and values that are kept from one forward to the next, and forwards that compute only some positions anew.

A cache has a *slot* for every row at work and a place for each of its positions. A forward over a `Selection` of
(slot, position) pairs puts their new keys and values into these places and lets every selected position see all that
its slot holds, fresh or kept. With all positions selected that is the forward of `Transformer.forward`; with fewer it
is an approximation for a bidirectional model, and exact for a causal one.

The selected positions of all slots lie one behind the other, without padding, in everything but attention itself:
there, slots with about as many of them are padded to one another.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from illada.model.config import ModelConfig
from illada.model.rotary import Angles, rotary_angles


@dataclass(frozen=True, kw_only=True)
class KeyValueCache:
    """Keys (rotated) and values of every position of some slots."""

    keys: Float[Tensor, "layers slots places kv_heads head"]
    values: Float[Tensor, "layers slots places kv_heads head"]
    angles: Angles
    """Of all places."""

    @classmethod
    def empty(
        cls, config: ModelConfig, *, slots: int, places: int, dtype: torch.dtype, device: torch.device
    ) -> "KeyValueCache":
        """A cache in which nothing has been computed."""
        shape = (config.layers, slots, places, config.kv_heads, config.head_size)
        positions = torch.arange(places, device=device)[None]
        return cls(
            # zeros, not whatever was there: a masked key still meets a query, and 0 times a NaN is a NaN
            keys=torch.zeros(shape, dtype=dtype, device=device),
            values=torch.zeros(shape, dtype=dtype, device=device),
            angles=rotary_angles(positions, config.head_size, config.rope_theta),
        )

    @property
    def slots(self) -> int:
        """Rows that fit."""
        return self.keys.shape[1]

    @property
    def places(self) -> int:
        """Positions of each row that fit."""
        return self.keys.shape[2]

    def move(self, source: int, target: int) -> None:
        """Copy one slot over another."""
        self.keys[:, target] = self.keys[:, source]
        self.values[:, target] = self.values[:, source]

    def angles_at(self, position: Int[Tensor, " selected"]) -> Angles:
        """The rotary angles of some places."""
        cos, sin = self.angles
        return cos[:, :, position], sin[:, :, position]

    def layer(self, number: int, selection: "Selection", watch: "LayerWatch | None") -> "CachedLayer":
        """One layer's part."""
        keys, values = self.keys[number], self.values[number]
        return CachedLayer(number=number, keys=keys, values=values, selection=selection, watch=watch)

    def grown(self, *, slots: int, places: int, config: ModelConfig) -> "KeyValueCache":
        """A larger cache with the same content."""
        dtype, device = self.keys.dtype, self.keys.device
        larger = KeyValueCache.empty(config, slots=slots, places=places, dtype=dtype, device=device)
        larger.keys[:, : self.slots, : self.places] = self.keys
        larger.values[:, : self.slots, : self.places] = self.values
        return larger


def bytes_per_position(config: ModelConfig, dtype: torch.dtype) -> int:
    """What one place of one slot takes, in bytes: 2 · layers · kv_heads · head · element."""
    return 2 * config.layers * config.kv_heads * config.head_size * dtype.itemsize


@dataclass(frozen=True, kw_only=True)
class _Group:
    """Slots with about as many selected positions, which share one call of attention."""

    slots: Tensor | slice
    rows: int
    queries: Int[Tensor, "rows queries"] | None
    """Where the queries of each row lie among the selected, padded with others'; None: they are all of them, in rows of
    equal length."""
    keys: int
    """Places that the longest row looks at."""
    mask: Bool[Tensor, "rows 1 _ keys"] | None
    """Of each query, or of all queries of a row alike."""


class Selection:
    """Which positions of which slots a forward computes anew, and what they see.

    Args:
        slot: of each selected position; the positions of one slot lie together, and ascend.
        position: its place in the row.
        slots: the slots, in the order in which they appear.
        counts: how many selected positions each of them has.
        lengths: how many places of each hold something.
        causal: a position sees only itself and those before it.
    """

    def __init__(
        self,
        *,
        slot: Int[Tensor, " selected"],
        position: Int[Tensor, " selected"],
        slots: Sequence[int],
        counts: Sequence[int],
        lengths: Sequence[int],
        causal: bool,
    ) -> None:
        self.slot, self.position, self.causal = slot, position, causal
        self.slots, self._counts, self._lengths = slots, counts, lengths
        self._starts = [0, *accumulate(counts)]

    @cached_property
    def groups(self) -> list[_Group]:
        """The calls of attention: rows share one if their numbers of queries round up to the same power of two."""
        return [self._group(rows) for rows in self._members]

    @cached_property
    def back(self) -> Int[Tensor, " selected"] | None:
        """Where each selected position lies in the padded results of all groups; None: where it lies anyway."""
        if len(self.groups) == 1 and self.groups[0].queries is None:
            return None
        offset, shift = 0, [0] * len(self._counts)
        for rows in self._members:
            most = max(self._counts[row] for row in rows)
            for row in rows:
                shift[row] = offset - self._starts[row]
                offset += most
        device = self.position.device
        repeats = torch.tensor(self._counts, device=device)
        shifts = torch.tensor(shift, device=device).repeat_interleave(repeats, output_size=len(self.position))
        return torch.arange(len(self.position), device=device) + shifts

    @cached_property
    def _members(self) -> list[list[int]]:
        by_size: dict[int, list[int]] = {}
        for row, count in enumerate(self._counts):
            by_size.setdefault((count - 1).bit_length(), []).append(row)
        return list(by_size.values())

    def widened(self, wanted: Bool[Tensor, "slots places"]) -> "Selection":
        """More positions of the same slots: those that are True in their rows."""
        slot, position = wanted.nonzero(as_tuple=True)
        return Selection(
            slot=slot,
            position=position,
            slots=self.slots,
            counts=wanted.sum(1)[self._tensor(list(self.slots))].tolist(),
            lengths=self._lengths,
            causal=self.causal,
        )

    def numbers(self, group: _Group) -> Int[Tensor, " rows"]:
        """The slots of a group."""
        if isinstance(group.slots, slice):
            return torch.arange(group.slots.start, group.slots.stop, device=self.position.device)
        return group.slots

    def places(self, group: _Group) -> Int[Tensor, "rows queries"]:
        """The position of each query of a group, -1 for padding."""
        if group.queries is None:
            return self.position.view(group.rows, -1)
        own = self.slot[group.queries] == self.numbers(group)[:, None]
        # padding at the end of all repeats the last query
        own[:, 1:] &= group.queries[:, 1:] != group.queries[:, :-1]
        return torch.where(own, self.position[group.queries], -1)

    def _group(self, rows: list[int]) -> _Group:
        slots = [self.slots[row] for row in rows]
        counts, lengths = {self._counts[row] for row in rows}, [self._lengths[row] for row in rows]
        whole = len(rows) == len(self._counts) and len(counts) == 1
        queries = None if whole else self._queries(rows, max(counts))
        adjacent = slots == list(range(slots[0], slots[0] + len(slots)))
        return _Group(
            # a slice of the cache is a view, any other choice of slots a copy
            slots=slice(slots[0], slots[0] + len(slots)) if adjacent else self._tensor(slots),
            rows=len(rows),
            queries=queries,
            keys=max(lengths),
            mask=self._mask(queries, lengths, most=max(counts)),
        )

    def _queries(self, rows: list[int], most: int) -> Tensor:
        starts = self._tensor([self._starts[row] for row in rows])
        return (starts[:, None] + torch.arange(most, device=starts.device)).clamp(max=len(self.position) - 1)

    def _mask(self, queries: Tensor | None, lengths: list[int], *, most: int) -> Tensor | None:
        """True where a query sees a key; None where every query sees every key."""
        keys = torch.arange(max(lengths), device=self.position.device)
        if self.causal and most > 1:
            places = self.position.view(len(lengths), most) if queries is None else self.position[queries]
            return (keys <= places[..., None])[:, None]
        if len(set(lengths)) > 1:
            return keys < self._tensor(lengths)[:, None, None, None]
        return None

    def _tensor(self, values: list[int]) -> Tensor:
        return torch.tensor(values, device=self.position.device)


@runtime_checkable
class LayerWatch(Protocol):
    """Looks on as a forward goes from layer to layer, and may widen the selection for the layers to come."""

    selection: Selection

    def enter(self, layer: int, x: Float[Tensor, "1 selected hidden"]) -> Float[Tensor, "1 computed hidden"]:
        """What goes into a layer, of all positions that are selected from there on."""
        ...

    def attended(
        self,
        layer: int,
        slots: Int[Tensor, " part"],
        query: Float[Tensor, "part heads queries head"],
        key: Float[Tensor, "part kv_heads keys head"],
        place: Int[Tensor, "part queries"],
        mask: Tensor | None,
    ) -> None:
        """Some rows have attended: with these queries, at these places (-1 for padding), to these keys."""
        ...


@dataclass(frozen=True, kw_only=True)
class CachedLayer:
    """One layer's part of the cache during a forward: what `attend` reads and writes instead of a layout."""

    number: int
    keys: Float[Tensor, "slots places kv_heads head"]
    values: Float[Tensor, "slots places kv_heads head"]
    selection: Selection
    watch: LayerWatch | None = None

    def attend(
        self,
        query: Float[Tensor, "1 heads selected head"],
        key: Float[Tensor, "1 kv_heads selected head"],
        value: Float[Tensor, "1 kv_heads selected head"],
    ) -> Float[Tensor, "1 heads selected head"]:
        """Put the new keys and values into their places, and mix what each selected position sees."""
        selection = self.selection
        self.keys[selection.slot, selection.position] = key[0].transpose(0, 1)
        self.values[selection.slot, selection.position] = value[0].transpose(0, 1)
        mixed = [self._mixed(group, query[0]) for group in selection.groups]
        if selection.back is None:
            return mixed[0].transpose(0, 1).flatten(1, 2)[None]
        flat = torch.cat([part.transpose(1, 2).flatten(0, 1) for part in mixed])
        return flat[selection.back].transpose(0, 1)[None]

    def _mixed(self, group: _Group, query: Float[Tensor, "heads selected head"]) -> Tensor:
        """What the queries of a group mix: [rows, heads, queries, head]."""
        if group.queries is None:
            queries = query.view(query.shape[0], group.rows, -1, query.shape[2]).transpose(0, 1)
        else:
            queries = query[:, group.queries].transpose(0, 1)
        keys = self.keys[group.slots, : group.keys].transpose(1, 2)
        values = self.values[group.slots, : group.keys].transpose(1, 2)
        if self.watch is not None:
            place = self.selection.places(group)
            self.watch.attended(self.number, self.selection.numbers(group), queries, keys, place, group.mask)
        return F.scaled_dot_product_attention(
            queries, keys, values, attn_mask=group.mask, enable_gqa=queries.shape[1] != keys.shape[1]
        )
