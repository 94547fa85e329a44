"""Writing that happens or does not: a folder or a file appears under its name complete, or not at all."""

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_BLOCK = 1 << 20


@contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """A folder to write into that becomes `target` when the block ends, in one rename, its content on the disk.

    If the block raises, or the process dies, no `target` appears; what a dead process left is swept up by the next
    writer of the same name.

    Raises:
        FileExistsError: `target` is there already; nothing is overwritten.
        OSError: the disk is full, say; what was written of the new folder is removed.
    """
    if target.exists():
        raise FileExistsError(f"{target} exists already: choose another folder, or delete it first")
    target.parent.mkdir(parents=True, exist_ok=True)
    _sweep(target)
    partial = target.with_name(f".{target.name}.partial-{os.getpid()}")
    partial.mkdir()
    try:
        yield partial
        for path in sorted(partial.rglob("*")):
            _flush(path)
        _flush(partial)
        partial.rename(target)
        _flush(target.parent)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Replace a file in one rename."""
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        partial.write_text(text, encoding="utf-8")
        _flush(partial)
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _sweep(target: Path) -> None:
    for leftover in target.parent.glob(f".{target.name}.partial-*"):
        if not _alive(int(leftover.name.rsplit("-", 1)[1])):
            shutil.rmtree(leftover, ignore_errors=True)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _flush(path: Path) -> None:
    """Make sure that a file's content, or a folder's entries, are on the disk and not only on their way."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
