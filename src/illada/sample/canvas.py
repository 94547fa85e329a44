"""Canvases: rows of tokens with holes, before and after they are filled."""

from dataclasses import dataclass, field
from functools import cached_property

from illada.sample.stopping import Cut


@dataclass(frozen=True, kw_only=True)
class Canvas:
    """A row to complete: `tokens` with None where a token is to be found."""

    tokens: tuple[int | None, ...]
    seed: int = 0
    prompt_length: int | None = None
    """How many leading tokens are prompt, hidden by guidance; None: every token that is given."""

    @cached_property
    def holes(self) -> list[int]:
        """The positions to fill, from left to right."""
        return [position for position, token in enumerate(self.tokens) if token is None]


@dataclass(frozen=True, kw_only=True)
class FilledCanvas:
    """A canvas without holes; one that left early ends before its first open hole."""

    tokens: tuple[int, ...]
    revealed_at: tuple[int, ...]
    """For every position the forward, counted from 1, that filled it; 0 where it was given."""
    forwards: int
    positions: int
    """Token positions computed, summed over the forwards; twice that with guidance."""
    cut: Cut | None = None
    """Where the text ends, if its end was looked for and found."""
    seconds: float = field(default=0.0, compare=False)
    """From the first forward to the last."""
