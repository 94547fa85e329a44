"""Checksums of blocks: a file is compared with them where it is read, and not from end to end before the first row."""

import hashlib

import numpy as np

from illada.data.storage import Bytes, Folder

BLOCK = 1 << 18
"""Bytes under one checksum. A row of 8192 tokens has 32 KiB at most: it lies in one block or two."""

_DIGEST = hashlib.sha256().digest_size


def block_sums(content: bytes | memoryview) -> bytes:
    """The SHA-256 of every block of `content`, one behind the other."""
    blocks = (content[start : start + BLOCK] for start in range(0, len(content), BLOCK))
    return b"".join(hashlib.sha256(block).digest() for block in blocks)


def sums_size(size: int) -> int:
    """How many bytes the checksums of a file of `size` bytes take."""
    return -(-size // BLOCK) * _DIGEST


class CheckedFile:
    """A file whose blocks are compared with their checksums when they are read for the first time."""

    def __init__(self, folder: Folder, name: str, *, size: int, sums: bytes) -> None:
        assert len(sums) == sums_size(size), f"{name}: {len(sums)} bytes of checksums for a file of {size}"
        self._folder, self._name, self._size, self._sums = folder, name, size, sums
        self._checked = np.zeros(-(-size // BLOCK), dtype=bool)

    def read(self, start: int, stop: int) -> Bytes:
        """Bytes `start` .. `stop - 1`.

        Raises:
            ValueError: a block that they touch is not what it was when the checksums were taken.
        """
        first, last = start // BLOCK, -(-stop // BLOCK)
        if self._checked[first:last].all():
            return self._folder.read(self._name, start, stop)
        low = first * BLOCK
        blocks = self._folder.read(self._name, low, min(last * BLOCK, self._size))
        if block_sums(blocks.data) != self._sums[first * _DIGEST : last * _DIGEST]:
            raise ValueError(
                f"the shard file {self._folder.location}/{self._name} was altered, its SHA-256 differs: "
                f"write the shards again"
            )
        self._checked[first:last] = True
        return blocks[start - low : stop - low]

    def check(self) -> None:
        """Compare every block.

        Raises:
            ValueError: one of them was altered.
        """
        for start in range(0, self._size, BLOCK):
            self.read(start, min(start + BLOCK, self._size))
