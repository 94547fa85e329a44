"""Where a text ends: at the end of text, or before a stop string."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Cut:
    """The end of a completion."""

    tokens: int
    """How many tokens lie wholly before it."""
    data: bytes
    """The text before it; more than the tokens give where a stop string begins inside a token."""
    stop_string: str | None = None
    """The string that ended it; None: an end of text."""


@dataclass(frozen=True, kw_only=True)
class Stopping:
    """Finds the end in what has been generated so far.

    The first end of text ends it, or the stop string that is complete first; of several that are complete with the
    same byte, the longest. So the answer does not depend on how much has been generated behind it.
    """

    end_ids: Collection[int]
    strings: tuple[str, ...] = ()
    decode: Callable[[Sequence[int]], bytes]
    """The bytes of token ids; stop strings are looked for in them, so that one may straddle tokens and blocks."""

    def find(self, tokens: Sequence[int]) -> Cut | None:
        """The end, if these tokens hold one."""
        end = next((place for place, token in enumerate(tokens) if token in self.end_ids), None)
        visible = tokens[:end]
        if self.strings:
            data = self.decode(visible)
            found = [(at + len(text), at, string) for string, text in self._texts() if (at := data.find(text)) >= 0]
            if found:
                _, at, string = min(found, key=lambda match: match[:2])
                return Cut(tokens=self._tokens_within(visible, at), data=data[:at], stop_string=string)
        return None if end is None else Cut(tokens=end, data=self.decode(visible))

    def held_back(self, data: bytes) -> int:
        """How many bytes at the end of a text may yet turn out to be the beginning of a stop string."""
        return max(
            (
                size
                for _, text in self._texts()
                for size in range(1, min(len(text), len(data) + 1))
                if data.endswith(text[:size])
            ),
            default=0,
        )

    def _texts(self) -> list[tuple[str, bytes]]:
        return [(string, string.encode()) for string in self.strings]

    def _tokens_within(self, tokens: Sequence[int], size: int) -> int:
        """How many tokens from the front have at most `size` bytes together."""
        held = 0
        for count, token in enumerate(tokens):
            held += len(self.decode([token]))
            if held > size:
                return count
        return len(tokens)
