"""Writing that happens or does not: a folder or a file appears under its name complete, or not at all."""

import errno
import hashlib
import os
import shutil
import socket
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
        FileExistsError: `target` is there already, or another process was faster; nothing is overwritten.
        OSError: the disk is full, say; what was written of the new folder is removed.
    """
    partial = begin_folder(target)
    try:
        yield partial
        publish_folder(partial, target)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def begin_folder(target: Path) -> Path:
    """A new, hidden folder beside `target` to write into; `publish_folder` gives it its name.

    Raises:
        FileExistsError: `target` is there already.
    """
    if target.exists():
        raise _taken(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    sweep(target)
    partial = target.with_name(f"{_partial_prefix(target)}{os.getpid()}")
    partial.mkdir()
    return partial


def publish_folder(partial: Path, target: Path) -> None:
    """Bring the content of a folder that `begin_folder` gave to the disk, then name it `target`, in one rename.

    Raises:
        FileExistsError: another process was faster; nothing is overwritten.
    """
    for path in sorted(partial.rglob("*")):
        flush(path)
    flush(partial)
    _rename(partial, target)
    flush(target.parent)


def write_text(path: Path, text: str) -> None:
    """Replace a file in one rename."""
    partial = path.with_name(f"{_partial_prefix(path)}{os.getpid()}")
    try:
        partial.write_text(text, encoding="utf-8")
        flush(partial)
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


def sweep(target: Path) -> None:
    """Remove what dead processes of this machine left of a folder or file that was to become `target`."""
    prefix = _partial_prefix(target)
    for leftover in list(target.parent.iterdir()):
        number = leftover.name.removeprefix(prefix)
        # our own number is that of an earlier process: in a container every run may be process 1
        if number != leftover.name and number.isdigit() and (int(number) == os.getpid() or not _alive(int(number))):
            shutil.rmtree(leftover, ignore_errors=True)


def flush(path: Path) -> None:
    """Make sure that a file's content, or a folder's entries, are on the disk and not only on their way."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _partial_prefix(target: Path) -> str:
    # the machine's name is part of it: on a shared disk, another machine's processes cannot be told dead from alive
    return f".{target.name}.partial-{socket.gethostname()}-"


def _taken(target: Path) -> FileExistsError:
    return FileExistsError(f"{target} exists already: choose another folder, or delete it first")


def _rename(partial: Path, target: Path) -> None:
    try:
        partial.rename(target)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise _taken(target) from error
        raise


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
