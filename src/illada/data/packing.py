"""Rows of fixed length from the stream of documents, each split into segments that do not see one another.

A row is a window of the token stream: it may begin and end inside a document. iLLaDA (arXiv 2606.25331, section 2.1)
splits 30 % of the rows at a random place; LLaDA (arXiv 2502.09992, section 2.2) shortens 1 % to a random length.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Int
from torch import Tensor

from illada.seeding import Stream
from illada.shapes import Segments, Tokens

PADDING = -1
"""The segment of a position that holds no token."""

_NOISE_BLOCK = 1024  # examples whose random numbers are computed together: one by one costs more than reading the row
_NOISE_BLOCKS = 4  # a batch touches few of them
_EPOCHS_KNOWN = 4  # and few epochs
_DRAWS = 4  # per example: split?, where, shorten?, to what length


@dataclass(frozen=True, kw_only=True)
class PackingConfig:
    """How rows are made: their length, how often they are split or shortened, and what their documents see."""

    length: int = 256
    split_probability: float = 0.3
    random_length_probability: float = 0.0
    isolate_documents: bool = False

    def __post_init__(self) -> None:
        if self.length < 1:
            raise ValueError(f"length is {self.length}, but a row needs at least 1 token")
        for name in ("split_probability", "random_length_probability"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}, but a probability lies between 0 and 1")


class Part(IntEnum):
    """What a position of an instruction example is."""

    PROMPT = 0
    RESPONSE = 1
    END = 2
    """The one end of text behind the response."""
    FILLER = 3
    """Further ends of text, up to the end of the canvas; they are learnt."""
    STRETCH = 4
    """The same, but only as far as the longest example of the batch reaches."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Rows to train on; `example` and `epoch` address the noise of each row (see `illada.seeding`)."""

    tokens: Tokens
    segments: Segments
    example: Int[Tensor, " batch"]
    epoch: Int[Tensor, " batch"]
    parts: Int[Tensor, "batch length"] | None = None
    """The `Part` of every position; None for plain text. Not read at padding."""

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def token_count(self) -> int:
        """How many positions hold a token: all but the padding."""
        return int((self.segments != PADDING).sum())

    def rows(self, start: int, stop: int) -> "Batch":
        """Rows `start` .. `stop - 1`."""
        part = slice(start, stop)
        return Batch(
            tokens=self.tokens[part],
            segments=self.segments[part],
            example=self.example[part],
            epoch=self.epoch[part],
            parts=None if self.parts is None else self.parts[part],
        )

    @property
    def stretches(self) -> bool:
        """Whether some of what is learnt depends on how long the other rows of the batch are."""
        return self.parts is not None and bool((self.parts == Part.STRETCH).any())

    @property
    def used_width(self) -> int:
        """Columns up to the last that is more than padding or stretch in some row; at least 1."""
        idle = self.segments == PADDING
        if self.parts is not None:
            idle |= self.parts == Part.STRETCH
        used = (~idle).any(0).nonzero()
        return int(used[-1]) + 1 if len(used) else 1

    def cut(self, width: int) -> "Batch":
        """The first `width` columns."""
        return Batch(
            tokens=self.tokens[:, :width],
            segments=self.segments[:, :width],
            example=self.example,
            epoch=self.epoch,
            parts=None if self.parts is None else self.parts[:, :width],
        )

    def to(self, device: torch.device | str) -> "Batch":
        """The same rows on another device."""
        return Batch(
            tokens=self.tokens.to(device),
            segments=self.segments.to(device),
            example=self.example.to(device),
            epoch=self.epoch.to(device),
            parts=None if self.parts is None else self.parts.to(device),
        )


class Row(NamedTuple):
    """One row; every array has shape [length]."""

    tokens: npt.NDArray[np.int64]
    segments: npt.NDArray[np.int64]
    parts: npt.NDArray[np.int64] | None = None


@runtime_checkable
class RowSource(Protocol):
    """Anything that has numbered rows of one length."""

    @property
    def rows(self) -> int:
        """How many rows an epoch has."""
        ...

    @property
    def length(self) -> int:
        """How many positions a row has."""
        ...

    def read(self, row: int, *, example: int, epoch: int) -> Row:
        """Row number `row` of `epoch`, as the `example`-th example of the run."""
        ...


@runtime_checkable
class TokenStream(Protocol):
    """Documents one behind the other, as `TokenShards` and `InstructionStream` hold them."""

    def __len__(self) -> int:
        """How many tokens there are."""
        ...

    def read(self, start: int, length: int) -> npt.NDArray[np.int64]:
        """The tokens from `start` on."""
        ...

    def document_starts(self, start: int, length: int) -> npt.NDArray[np.int64]:
        """Where documents begin among them, counted from `start`."""
        ...


class PackedRows:
    """The rows of a corpus: row i of epoch e is the window of `length` tokens from shift_e + i * length on.

    The shift is random for each epoch, so that rows begin elsewhere every time. There are
    rows = max(1, floor((tokens - length + 1) / length)) of them, and the shift is uniform over
    0 .. min(length - 1, tokens - rows * length): every window fits, whatever the shift.
    """

    def __init__(self, shards: TokenStream, config: PackingConfig, *, seed: int, pad: int) -> None:
        """Rows of `shards`; `seed` decides shifts and splits, `pad` is the id that fills shortened rows.

        Raises:
            ValueError: the corpus is shorter than one row.
        """
        if len(shards) < config.length:
            raise ValueError(
                f"the corpus has {len(shards)} tokens, too few for one row of {config.length}: use more text or a "
                f"smaller length"
            )
        self.length = config.length
        self.rows = max(1, (len(shards) - config.length + 1) // config.length)
        self._shifts = min(config.length - 1, len(shards) - self.rows * config.length) + 1
        self._shards, self._config, self._pad = shards, config, pad
        self._shift_noise = Stream(seed, "shift")
        self._row_noise = Stream(seed, "pack")
        # several threads may read rows at a time: these caches stand that
        self.shift: Callable[[int], int] = lru_cache(_EPOCHS_KNOWN)(self._draw_shift)
        """Where the first row of an epoch begins."""
        self._noise: Callable[[int, int], npt.NDArray[np.float64]] = lru_cache(_NOISE_BLOCKS)(self._draw_block)

    def read(self, row: int, *, example: int, epoch: int) -> Row:
        """Row number `row` of `epoch`; `example` addresses the noise of its split and length."""
        if not 0 <= row < self.rows:
            raise ValueError(f"there is no row {row}: the {self.rows} rows are numbered from 0")
        start = self.shift(epoch) + row * self.length
        tokens = self._shards.read(start, self.length)
        split, cut, shorten, size = self._draws(example, epoch)
        kept = self.length
        if shorten < self._config.random_length_probability:
            kept = 1 + int(size * self.length)
        begins = np.zeros(self.length, dtype=np.int64)  # 1 where a new segment begins
        if split < self._config.split_probability and kept > 1:
            begins[1 + int(cut * (kept - 1))] = 1
        if self._config.isolate_documents:
            begins[self._shards.document_starts(start, self.length)] = 1
        begins[0] = 0
        segments = np.cumsum(begins)
        tokens[kept:], segments[kept:] = self._pad, PADDING
        return Row(tokens, segments)

    def _draw_shift(self, epoch: int) -> int:
        return int(self._shift_noise.uniform64(torch.tensor(0), 1, epoch=epoch).item() * self._shifts)

    def _draws(self, example: int, epoch: int) -> list[float]:
        values: list[float] = self._noise(example // _NOISE_BLOCK, epoch)[example % _NOISE_BLOCK].tolist()
        return values

    def _draw_block(self, block: int, epoch: int) -> npt.NDArray[np.float64]:
        examples = torch.arange(block * _NOISE_BLOCK, (block + 1) * _NOISE_BLOCK)
        drawn = self._row_noise.uniform(examples, _DRAWS, epoch=epoch)
        return drawn.to(torch.float64).numpy()  # so that u * n < n exactly


class FixedRows:
    """Rows that are given as they are, each one segment: generated puzzles, tests, a validation set."""

    def __init__(self, tokens: Tokens) -> None:
        if len(tokens) == 0:
            raise ValueError("there are 0 rows, but at least 1 is needed")
        self._tokens = tokens.numpy(force=True).astype(np.int64)
        self.rows, self.length = self._tokens.shape

    def read(self, row: int, *, example: int, epoch: int) -> Row:  # noqa: ARG002  # fixed: no noise to address
        """Row number `row`, the same in every epoch."""
        return Row(self._tokens[row].copy(), np.zeros(self.length, dtype=np.int64))
