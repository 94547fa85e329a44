"""What the engine keeps of every row at work, on the device: tokens, when they came, and keys and values.

A row has a slot. The slots in use are the first ones: when a row leaves, the last takes its place, so that the cache
of all rows can be read as it stands.
"""

import torch

from illada.model.cache import KeyValueCache
from illada.model.config import ModelConfig
from illada.sample.canvas import Canvas
from illada.sample.elastic import DriftMemory

_STEP = 64
"""Places are added by so many."""


class Table:
    """Tensors with a row per slot; they grow when more or longer rows come."""

    def __init__(self, config: ModelConfig, *, mask_id: int, dtype: torch.dtype, device: torch.device) -> None:
        self._config, self._mask, self._dtype, self._device = config, mask_id, dtype, device
        self.causal = config.attention == "causal"
        """Holes are not shown to the model."""
        self.lag = config.lag
        """A hidden state says something of the token so many places behind it."""
        self.slots = self.places = 0
        self.tokens = torch.zeros(0, 0, dtype=torch.int64, device=device)
        """[slots, places]; behind the end of a row whatever was there."""
        self.revealed_at = torch.zeros_like(self.tokens)
        """[slots, places]: the forward that made it text, from 1; 0 where it was given or is masked."""
        self.holes = torch.zeros_like(self.tokens)
        """[slots, places]: the positions of the holes, in order."""
        self.computed = torch.zeros(0, 0, dtype=torch.bool, device=device)
        """[slots, places]: keys and values are there."""
        self.prompt = torch.zeros_like(self.computed)
        """[slots, places]: hidden by guidance."""
        self.confidence = torch.zeros(0, 0, device=device)
        """[slots, places]: of text, the confidence with which it was revealed."""
        self.surprise = torch.zeros(0, device=device)
        """[slots]: see `illada.sample.caching.RowView`."""
        self.cache = self._empty_cache()
        self.unconditional: KeyValueCache | None = None
        """Of the rows without their prompts; made when a row needs guidance."""

        self.drift: DriftMemory | None = None
        """Of the rows that watch their attention; made when there is one."""

    _NAMES = ("tokens", "revealed_at", "holes", "computed", "prompt", "confidence", "surprise")

    def put(self, slot: int, canvas: Canvas, *, guided: bool) -> None:
        """Begin a row."""
        self.reserve(slots=slot + 1, places=len(canvas.tokens))
        length = len(canvas.tokens)
        for name in self._NAMES:
            getattr(self, name)[slot] = 0
        self.surprise[slot] = torch.inf
        tokens = [self._mask if token is None else token for token in canvas.tokens]
        self.tokens[slot, :length] = torch.tensor(tokens, device=self._device)
        self.holes[slot, : len(canvas.holes)] = torch.tensor(canvas.holes, device=self._device)
        limit = length if canvas.prompt_length is None else canvas.prompt_length
        if self.drift is not None:
            self.drift.forget(slot)
        if guided:
            given = [token is not None and place < limit for place, token in enumerate(canvas.tokens)]
            self.prompt[slot, :length] = torch.tensor(given, device=self._device)
            if self.unconditional is None:
                self.unconditional = self._empty_cache()

    def move(self, source: int, target: int) -> None:
        """Let a row take another slot."""
        for name in self._NAMES:
            tensor = getattr(self, name)
            tensor[target] = tensor[source]
        for kept in (self.cache, self.unconditional, self.drift):
            if kept is not None:
                kept.move(source, target)

    def watch_attention(self) -> DriftMemory:
        """The memory of attention; it is made when it is first asked for."""
        if self.drift is None:
            self.drift = DriftMemory(self._config, slots=self.slots, places=self.places, like=self.cache.keys)
        return self.drift

    def reserve(self, *, slots: int, places: int) -> None:
        """Make room for so many rows of such a length."""
        slots = self.slots if slots <= self.slots else max(slots, 2 * self.slots)
        places = min(max(self.places, -(-places // _STEP) * _STEP), max(self._config.max_length, places))
        if (slots, places) == (self.slots, self.places):
            return
        for name in self._NAMES:
            before = getattr(self, name)
            after = before.new_zeros((slots, places)[: before.dim()])
            after[tuple(slice(size) for size in before.shape)] = before
            setattr(self, name, after)
        self.slots, self.places = slots, places
        self.cache = self._grown(self.cache)
        if self.unconditional is not None:
            self.unconditional = self._grown(self.unconditional)
        if self.drift is not None:
            self.drift = self.drift.grown(slots=slots, places=places)

    def _empty_cache(self) -> KeyValueCache:
        return KeyValueCache.empty(
            self._config, slots=self.slots, places=self.places, dtype=self._dtype, device=self._device
        )

    def _grown(self, cache: KeyValueCache) -> KeyValueCache:
        return cache.grown(slots=self.slots, places=self.places, config=self._config)

    def row(self, slot: int, length: int) -> tuple[list[int], list[int]]:
        """(tokens, when each was revealed) of the first `length` places."""
        tokens, revealed_at = torch.stack((self.tokens[slot, :length], self.revealed_at[slot, :length])).tolist()
        return tokens, revealed_at

    def between(self, slot: int, start: int, stop: int) -> list[int]:
        """Tokens at some places of a row."""
        values: list[int] = self.tokens[slot, start:stop].tolist()
        return values
