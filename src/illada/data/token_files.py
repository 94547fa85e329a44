"""Files of tokens read as one long sequence, each opened when something of it is wanted."""

from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate

import numpy as np
import numpy.typing as npt

OPEN_AT_ONCE = 256
"""Files of which the checksums and the places of documents are kept in memory."""


class TokenFiles(ABC):
    """The tokens of several files, one behind the other: `len()` counts them."""

    def __init__(self, location: str, tokens: Sequence[int]) -> None:
        """`tokens` says how many each file holds."""
        self.location = location
        """The folder, as a path or a URL."""
        self._starts = [0, *accumulate(tokens)]

    def __len__(self) -> int:
        return self._starts[-1]

    @property
    @abstractmethod
    def identity(self) -> str:
        """A hash that is another when the content is: what a run remembers of its data."""

    @property
    @abstractmethod
    def bytes_per_token(self) -> float:
        """UTF-8 bytes of text per token, the special tokens counted as tokens of no bytes."""

    def read(self, start: int, count: int) -> npt.NDArray[np.int64]:
        """Tokens `start` .. `start + count - 1`, from as many files as it takes; shape [count].

        Raises:
            ValueError: the range does not lie inside, or a file is not what it was.
        """
        pieces = [self._tokens(file, low, high) for file, low, high in self._spans(start, count)]
        return np.concatenate(pieces or [np.empty(0, np.uint32)]).astype(np.int64)

    def document_starts(self, start: int, count: int) -> npt.NDArray[np.int64]:
        """Where in the range (0 = `start`) a document begins, ascending.

        Raises:
            ValueError: the range does not lie inside, or a file is not what it was.
        """
        found = [np.empty(0, dtype=np.int64)]
        for file, low, high in self._spans(start, count):
            begins = self._document_starts(file)
            first, last = np.searchsorted(begins, [low, high])
            found.append(begins[first:last].astype(np.int64) + (self._starts[file] - start))
        return np.concatenate(found)

    @abstractmethod
    def _tokens(self, file: int, low: int, high: int) -> npt.NDArray[np.unsignedinteger]:
        """Tokens `low` .. `high - 1` of one file."""

    @abstractmethod
    def _document_starts(self, file: int) -> npt.NDArray[np.integer]:
        """Where every document of one file begins, ascending, counted from the beginning of the file."""

    def _spans(self, start: int, count: int) -> Iterator[tuple[int, int, int]]:
        """(file, first, end) of every file that the range touches."""
        if start < 0 or count < 0 or start + count > len(self):
            raise ValueError(
                f"tokens {start} to {start + count} are not inside the {len(self)} tokens of {self.location}"
            )
        file = bisect_right(self._starts, start) - 1
        while count > 0:
            low = start - self._starts[file]
            high = min(low + count, self._starts[file + 1] - self._starts[file])
            if high > low:
                yield file, low, high
            start, count, file = start + high - low, count - (high - low), file + 1
