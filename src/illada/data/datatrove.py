"""Token files of the `datatrove` library, read as its tokenizer and its merger write them, in whatever order they lie.

A file `NAME.ds` holds raw little-endian tokens, uint16 or, for a vocabulary above 65,536, uint32; `NAME.ds.index` where
every document ends (uint64, in tokens). What the files hold is what is trained on: no token is added or left out. Where
there is a `NAME.ds.sums` (`illada.data.checksums.block_sums` of the file) the tokens are compared with it.

To open a folder takes a list of its files and a few bytes of the first: the others are looked at when they are read.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from illada.data.checksums import CheckedFile, sums_size
from illada.data.storage import Bytes, Folder, open_folder
from illada.data.token_files import OPEN_AT_ONCE, TokenFiles
from illada.data.tokenizer import Tokenizer

_END = np.dtype("<u8")
_SAMPLE = 1 << 22  # tokens that tell how many bytes of text one stands for
_LOOKED_AT = 16  # documents that tell which tokenizer wrote them


class DatatroveShards(TokenFiles):
    """The tokens of all `.ds` files of a folder, as one long sequence: `len()` counts its tokens."""

    def __init__(
        self, folder: Folder, sizes: dict[str, int], *, tokenizer: Tokenizer, dtype: np.dtype[np.uint]
    ) -> None:
        self._names = _token_files(sizes)
        super().__init__(folder.location, [sizes[name] // dtype.itemsize for name in self._names])
        self._folder, self._sizes, self._tokenizer, self._dtype = folder, sizes, tokenizer, dtype
        self._opened: Callable[[int], _Read] = lru_cache(OPEN_AT_ONCE)(self._open)
        self._begins: Callable[[int], npt.NDArray[np.integer]] = lru_cache(OPEN_AT_ONCE)(self._read_begins)

    @staticmethod
    def open(location: str | Path, *, tokenizer: Tokenizer, pattern: str = "**/*.ds") -> "DatatroveShards":
        """Open the files at a path or URL that match `pattern`, written with `tokenizer`.

        Raises:
            FileNotFoundError: there is no such folder, no such file in it, or a file has no index.
            ValueError: the files say that they were written otherwise than with `tokenizer`, or hold loss masks.
        """
        folder = open_folder(location)
        # whatever lies beside the token files has their name and more
        sizes = folder.sizes(pattern if pattern.endswith("*") else f"{pattern}*")
        names = _token_files(sizes)
        if not names:
            raise FileNotFoundError(f"no token shards in {location}: no .ds file that matches {pattern!r} holds tokens")
        for name in names:
            if f"{name}.index" not in sizes:
                raise FileNotFoundError(f"{location}/{name} has no .index: let datatrove write it, save_index=True")
            if f"{name}.loss" in sizes:
                raise ValueError(f"{location}/{name} comes with loss masks, which are not read: remove {name}.loss")
        shards = DatatroveShards(folder, sizes, tokenizer=tokenizer, dtype=_dtype(folder, names[0], sizes))
        shards._check_end_of_text()
        return shards

    @cached_property
    def identity(self) -> str:
        """A hash of the names and sizes of the files, and of the tokenizer's."""
        content = [self._tokenizer.fingerprint, [(name, self._sizes[name]) for name in self._names]]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    @cached_property
    def bytes_per_token(self) -> float:
        """Of the first four million tokens."""
        sample = self.read(0, min(len(self), _SAMPLE))
        return float(self._tokenizer.byte_lengths[sample].sum()) / len(sample)

    def _tokens(self, file: int, low: int, high: int) -> npt.NDArray[np.unsignedinteger]:
        size = self._dtype.itemsize
        tokens = self._opened(file)(low * size, high * size).view(self._dtype)
        if (highest := int(tokens.max())) >= self._tokenizer.vocab_size:
            raise ValueError(
                f"{self.location}/{self._names[file]} holds the token {highest}, but the tokenizer has "
                f"{self._tokenizer.vocab_size} entries: give the one that wrote it"
            )
        return tokens

    def _document_starts(self, file: int) -> npt.NDArray[np.integer]:
        self._opened(file)
        return self._begins(file)

    def _read_begins(self, file: int) -> npt.NDArray[np.integer]:
        ends = self._folder.read(f"{self._names[file]}.index").view(_END).astype(np.int64)
        return np.concatenate(([0], ends[:-1]))

    def _open(self, number: int) -> "_Read":
        """How the bytes of one file are read, after a look at whether it is complete."""
        name = self._names[number]
        size = self._sizes[name]
        counted = _last_end(self._folder, name, self._sizes) * self._dtype.itemsize
        if counted != size:
            raise ValueError(
                f"{self.location}/{name} has {size} bytes, but its index counts {counted}: it is cut off, or its "
                f"tokens are not of {self._dtype.itemsize} bytes as those of {self._names[0]}"
            )
        if self._sizes.get(f"{name}.sums") is None:
            return lambda start, stop: self._folder.read(name, start, stop)
        sums = self._folder.read(f"{name}.sums").tobytes()
        if len(sums) != sums_size(size):
            raise ValueError(f"{self.location}/{name}.sums has {len(sums)} bytes instead of {sums_size(size)}")
        return CheckedFile(self._folder, name, size=size, sums=sums).read

    def _check_end_of_text(self) -> None:
        """Some of the first documents must end as the tokenizer ends one: shuffled in chunks, not all of them do."""
        ends = self._folder.read(f"{self._names[0]}.index", 0, _LOOKED_AT * _END.itemsize).view(_END)
        last = [int(self.read(int(end) - 1, 1)[0]) for end in ends]
        if self._tokenizer.specials.eos not in last:
            raise ValueError(
                f"no document of {self.location}/{self._names[0]} ends with the end of text of the tokenizer, "
                f"{self._tokenizer.specials.eos}, but with {last[0]}: give the tokenizer that wrote it, or let "
                f"datatrove write an end of text"
            )


_Read = Callable[[int, int], Bytes]


def _token_files(sizes: dict[str, int]) -> Sequence[str]:
    """The files that hold tokens; a task of a pipeline that got no document leaves an empty one."""
    return [name for name, size in sizes.items() if name.endswith(".ds") and size > 0]


def _dtype(folder: Folder, name: str, sizes: dict[str, int]) -> np.dtype[np.uint]:
    """The type of the tokens, from how many there are and how many bytes they take."""
    tokens = _last_end(folder, name, sizes)
    for dtype in ("<u2", "<u4"):
        if tokens * np.dtype(dtype).itemsize == sizes[name]:
            return np.dtype(dtype)
    raise ValueError(
        f"{folder.location}/{name} has {sizes[name]} bytes for the {tokens} tokens of its index, neither 2 nor 4 for "
        f"each: it is damaged"
    )


def _last_end(folder: Folder, name: str, sizes: dict[str, int]) -> int:
    """How many tokens the index of a file counts."""
    size = sizes[f"{name}.index"]
    if size < _END.itemsize or size % _END.itemsize:
        raise ValueError(f"{folder.location}/{name}.index has {size} bytes, but 8 for every document: it is damaged")
    return int(folder.read(f"{name}.index", size - _END.itemsize, size).view(_END)[0])
