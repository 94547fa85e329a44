import hashlib

import numpy as np
import pytest

from illada.data.checksums import BLOCK, CheckedFile, block_sums, sums_size
from illada.data.storage import open_folder

CONTENT = np.random.default_rng(0).integers(0, 256, 2 * BLOCK + 1000, dtype=np.uint8).tobytes()


class Recording:
    """A folder with one file, and the ranges that were read of it."""

    location = "somewhere"

    def __init__(self, content: bytes) -> None:
        self.content = bytearray(content)
        self.ranges: list[tuple[int, int]] = []

    def sizes(self, pattern: str = "*") -> dict[str, int]:
        return {"file": len(self.content)}

    def read(self, name: str, start: int = 0, stop: int | None = None):
        self.ranges.append((start, len(self.content) if stop is None else stop))
        return np.frombuffer(bytes(self.content[start:stop]), np.uint8)


def checked(folder: Recording) -> CheckedFile:
    return CheckedFile(folder, "file", size=len(CONTENT), sums=block_sums(CONTENT))


def test_there_is_a_sha256_for_every_block():
    blocks = [CONTENT[:BLOCK], CONTENT[BLOCK : 2 * BLOCK], CONTENT[2 * BLOCK :]]
    assert block_sums(CONTENT) == b"".join(hashlib.sha256(block).digest() for block in blocks)
    assert block_sums(memoryview(CONTENT)) == block_sums(CONTENT)
    assert block_sums(b"") == b""


@pytest.mark.parametrize("size", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK])
def test_the_size_of_checksums_is_known_beforehand(size):
    assert sums_size(size) == len(block_sums(bytes(size)))


@pytest.mark.parametrize("start", [0, 5, BLOCK - 1, BLOCK, 2 * BLOCK + 3, len(CONTENT)])
@pytest.mark.parametrize("count", [0, 1, BLOCK, 10 * BLOCK])
def test_a_range_is_what_it_is_in_the_file(start, count):
    file, stop = checked(Recording(CONTENT)), min(start + count, len(CONTENT))
    assert file.read(start, stop).tobytes() == CONTENT[start:stop]
    assert file.read(start, stop).tobytes() == CONTENT[start:stop], "checked before, read by itself"


def test_the_blocks_that_a_range_touches_are_read_whole_and_once():
    folder = Recording(CONTENT)
    file = checked(folder)
    file.read(BLOCK + 10, BLOCK + 20)
    file.read(BLOCK + 30, BLOCK + 40)
    file.read(BLOCK - 1, BLOCK + 1)
    file.read(5, 2 * BLOCK)
    assert folder.ranges == [(BLOCK, 2 * BLOCK), (BLOCK + 30, BLOCK + 40), (0, 2 * BLOCK), (5, 2 * BLOCK)]


def test_an_altered_block_is_named_where_it_is_touched():
    folder = Recording(CONTENT)
    folder.content[BLOCK + 7] ^= 1
    file = checked(folder)
    assert file.read(0, BLOCK).tobytes() == CONTENT[:BLOCK]
    assert file.read(2 * BLOCK, len(CONTENT)).tobytes() == CONTENT[2 * BLOCK :]
    for _ in range(2):
        with pytest.raises(ValueError, match="the shard file somewhere/file was altered, its SHA-256 differs"):
            file.read(BLOCK + 500, BLOCK + 501)
    with pytest.raises(ValueError, match="somewhere/file was altered"):
        file.check()


def test_a_whole_file_can_be_checked(tmp_path):
    (tmp_path / "file").write_bytes(CONTENT)
    CheckedFile(open_folder(tmp_path), "file", size=len(CONTENT), sums=block_sums(CONTENT)).check()


def test_a_file_that_was_cut_off_does_not_pass(tmp_path):
    (tmp_path / "file").write_bytes(CONTENT[:-1])
    file = CheckedFile(open_folder(tmp_path), "file", size=len(CONTENT), sums=block_sums(CONTENT))
    with pytest.raises(ValueError, match="was altered"):
        file.check()
