"""Batches from a weighted mix of row sources: the n-th example of a run is the same however it is reached.

Which source it comes from follows from the counts of those before it, which row of the source from a permutation
that is computed element by element. So batches of any size, any number of processes and any interruption give one
and the same sequence, and the state of a loader is a handful of integers.
"""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import torch

from illada.data.packing import Batch, Row, RowSource
from illada.seeding import Stream

_ORDERED_AT_ONCE = 1024  # positions whose rows are computed together: a permutation of one costs nearly as much


class _Order:
    """The rows of one source in the order they are visited: a new permutation for every epoch."""

    def __init__(self, size: int, noise: Stream) -> None:
        self._size, self._noise = size, noise
        self._known: dict[tuple[int, int], list[int]] = {}

    def __getitem__(self, position: int) -> tuple[int, int]:
        """(row, epoch) of the `position`-th row that is ever taken."""
        epoch, inside = divmod(position, self._size)
        block, number = divmod(inside, _ORDERED_AT_ONCE)
        if (epoch, block) not in self._known:
            if len(self._known) >= 2:  # a batch crosses into the next block; those before are done with
                del self._known[next(iter(self._known))]
            start = block * _ORDERED_AT_ONCE
            inside_block = torch.arange(start, min(start + _ORDERED_AT_ONCE, self._size))
            self._known[epoch, block] = self._noise.permute(inside_block, self._size, epoch=epoch).tolist()
        row: int = self._known[epoch, block][number]
        return row, epoch


class _Place(NamedTuple):
    """Where a loader stands: the examples that were given out, and how many of them each source gave."""

    example: int
    taken: tuple[int, ...]


class _Share(NamedTuple):
    """What of the examples behind a place is wanted: the part of process `rank` of a batch."""

    batch_size: int
    rank: int
    world: int
    multiple: int


class Loader:
    """The endless sequence of examples of several (source, weight) pairs; `next` gives it out in batches."""

    def __init__(self, sources: Sequence[tuple[RowSource, float]], *, seed: int, readers: int = 1) -> None:
        """Mix the sources in proportion to their weights; `readers` rows are read at a time.

        Raises:
            ValueError: there is no source, a weight is not positive, or the sources differ in length.
        """
        if not sources:
            raise ValueError("there are 0 sources, but a loader needs at least 1")
        self._sources = [source for source, _ in sources]
        weights = [float(weight) for _, weight in sources]
        if min(weights) <= 0:
            raise ValueError(f"the weights of the sources are {weights}, but each must be above 0")
        lengths = sorted({source.length for source in self._sources})
        if len(lengths) > 1:
            raise ValueError(f"the sources have rows of lengths {lengths}, but one batch holds one length")
        self._shares = [weight / sum(weights) for weight in weights]
        self._orders = [
            _Order(source.rows, Stream(seed, f"order/{number}")) for number, source in enumerate(self._sources)
        ]
        self._place = _Place(0, (0,) * len(sources))
        self._background = ThreadPoolExecutor(1, thread_name_prefix="batches")
        self._readers = ThreadPoolExecutor(readers, thread_name_prefix="rows") if readers > 1 else None
        self._ahead: dict[tuple[_Place, _Share], Future[tuple[Batch, _Place]]] = {}

    def next(self, batch_size: int, *, rank: int = 0, world: int = 1, multiple: int = 1) -> Batch:
        """Advance by `batch_size` examples and return the share of process `rank` of `world`, in order.

        Rows that need not be as long as they are come shortened, to a multiple of `multiple` positions.

        Raises:
            ValueError: `batch_size` is not positive or does not divide by `world`, or there is no such rank.
        """
        if batch_size < 1 or batch_size % world != 0:
            raise ValueError(f"batch_size is {batch_size}, but must be a positive multiple of the {world} processes")
        if not 0 <= rank < world:
            raise ValueError(f"rank is {rank}, but the {world} processes are numbered from 0")
        wanted = (self._place, _Share(batch_size, rank, world, multiple))
        reading = self._ahead.pop(wanted, None) or self._background.submit(self._read, *wanted)
        self._ahead.clear()  # what was read for nothing: another share is wanted than before, or a state was loaded
        batch, self._place = reading.result()
        following = (self._place, wanted[1])
        self._ahead[following] = self._background.submit(self._read, *following)
        return batch

    @property
    def example(self) -> int:
        """The number of the next example."""
        return self._place.example

    def skip(self, count: int) -> None:
        """Pass over so many examples as if they had been given out."""
        _, self._place = self._choose(self._place, count)

    def state(self) -> dict[str, Any]:
        """Where the loader stands, as plain data for JSON."""
        return {"example": self._place.example, "taken": list(self._place.taken)}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on where the loader of `state` stood.

        Raises:
            ValueError: the state is that of a loader with another number of sources, or no state at all.
        """
        if not isinstance(state.get("example"), int) or not isinstance(state.get("taken"), list):
            raise ValueError(f"not the state of a loader: {state}")
        if len(state["taken"]) != len(self._sources):
            raise ValueError(
                f"the saved loader had {len(state['taken'])} sources, but there are {len(self._sources)} now"
            )
        if sum(state["taken"]) != state["example"]:
            raise ValueError(f"the state of the loader contradicts itself: {state}")
        self._place = _Place(state["example"], tuple(state["taken"]))

    def _read(self, place: _Place, share: _Share) -> tuple[Batch, _Place]:
        """A process's share of the batch behind a place, and the place behind the batch."""
        chosen, following = self._choose(place, share.batch_size)
        size = share.batch_size // share.world
        batch = self._rows(chosen, size, share.rank, place)
        if batch.parts is None:
            return batch, following
        width = batch.used_width
        if share.world > 1 and batch.stretches:
            # ends of text reach up to the longest example of the batch, which another process may hold
            width = max(self._rows(chosen, size, rank, place).used_width for rank in range(share.world))
        return batch.cut(-(-width // share.multiple) * share.multiple), following

    def _rows(self, chosen: Sequence[tuple[int, int]], size: int, rank: int, place: _Place) -> Batch:
        """The `size` rows of one process, of those that were chosen behind `place`."""
        first = place.example + rank * size
        addressed = [
            (self._sources[source], *self._orders[source][position], example)
            for example, (source, position) in enumerate(chosen[rank * size : (rank + 1) * size], start=first)
        ]
        rows = list(map(_row, addressed) if self._readers is None else self._readers.map(_row, addressed))
        parts = [row.parts for row in rows if row.parts is not None]
        return Batch(
            tokens=torch.from_numpy(np.stack([row.tokens for row in rows])),
            segments=torch.from_numpy(np.stack([row.segments for row in rows])),
            example=torch.arange(first, first + size),
            epoch=torch.tensor([epoch for _, _, epoch, _ in addressed]),
            parts=torch.from_numpy(np.stack(parts)) if parts else None,
        )

    def _choose(self, place: _Place, count: int) -> tuple[list[tuple[int, int]], _Place]:
        """(source, how many rows of it were taken before) of the next `count` examples, and the place behind them."""
        taken, chosen = list(place.taken), []
        for example in range(place.example, place.example + count):
            source = self._source_of(example, taken)
            chosen.append((source, taken[source]))
            taken[source] += 1
        return chosen, _Place(place.example + count, tuple(taken))

    def _source_of(self, example: int, taken: Sequence[int]) -> int:
        """Tijdeman's rule ("The chairman assignment problem", 1980): no count strays a whole example from its share.

        Of the sources that are owed at least `slack` examples, the one that must be served soonest. To serve the
        source that is owed most looks simpler, but lets the others fall behind by more than one.
        """
        if len(self._shares) == 1:
            return 0
        slack = 1 / (2 * len(self._shares) - 2)
        owed = [share * (example + 1) - count for share, count in zip(self._shares, taken, strict=True)]
        eligible = [number for number, debt in enumerate(owed) if debt >= slack]
        if not eligible:  # the rule always leaves one, but for rounding
            return max(range(len(owed)), key=owed.__getitem__)
        return min(eligible, key=lambda number: (1 - slack - owed[number]) / self._shares[number])


def _row(addressed: tuple[RowSource, int, int, int]) -> Row:
    source, row, epoch, example = addressed
    return source.read(row, example=example, epoch=epoch)
