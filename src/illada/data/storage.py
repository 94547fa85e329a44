"""Where data lies: a folder on a local disk or in an object store, read by name and by range.

A location with `://` is a URL that fsspec knows: `s3://bucket/corpus`, `memory://corpus`, or a chain of two such as
`filecache::s3://bucket/corpus`, which keeps every file on the local disk that was touched. Anything else is a local
path.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, Literal, Protocol, runtime_checkable

import fsspec
import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]

_MAPPED_AT_ONCE = 1024  # files of one folder: a process may not map any number of them


@runtime_checkable
class Folder(Protocol):
    """Files by name; names are relative to the folder, with `/` between their parts."""

    @property
    def location(self) -> str:
        """The path or URL, for messages."""
        ...

    def sizes(self, pattern: str = "*") -> dict[str, int]:
        """How many bytes each file that matches `pattern` holds, in the order of their names.

        Raises:
            FileNotFoundError: there is no such folder.
        """
        ...

    def read(self, name: str, start: int = 0, stop: int | None = None) -> Bytes:
        """Bytes `start` .. `stop - 1` of a file; the whole file if nothing else is said."""
        ...


def is_url(location: str) -> bool:
    """Whether a location is a URL and no local path."""
    return "://" in location


def open_folder(location: str | Path) -> Folder:
    """The folder at a path or URL; nothing is read yet.

    Raises:
        ValueError: fsspec knows no such kind of URL.
        ImportError: the library for this kind of URL is not installed.
    """
    return _ObjectStore(location) if isinstance(location, str) and is_url(location) else _LocalFolder(Path(location))


def file_system(url: str) -> tuple[Any, str]:
    """(fsspec's file system, the path inside it) of a URL.

    Raises:
        ValueError: fsspec knows no such kind of URL.
        ImportError: the library for this kind of URL is not installed.
    """
    try:
        files, path = fsspec.core.url_to_fs(url)
    except ImportError as error:
        raise ImportError(f"{url} cannot be read: {error}") from error
    except ValueError as error:
        raise ValueError(f"{url} cannot be read: {error}") from error
    return files, path


@dataclass(frozen=True)
class RemoteFile:
    """A file in an object store, with what a reader asks of a path."""

    url: str

    def __str__(self) -> str:
        return self.url

    @property
    def suffixes(self) -> list[str]:
        """The endings of its name: `.jsonl`, `.gz`."""
        return PurePosixPath(self.url).suffixes

    @property
    def suffix(self) -> str:
        """The last of its endings."""
        return PurePosixPath(self.url).suffix

    def is_file(self) -> bool:
        """Whether it is there."""
        files, path = file_system(self.url)
        return bool(files.isfile(path))

    def open(self, mode: Literal["rb"] = "rb") -> io.BufferedReader:
        """A stream that reads ahead, some megabytes per request."""
        files, path = file_system(self.url)
        return io.BufferedReader(files.open(path, mode))

    def state(self) -> tuple[str, int, str]:
        """(URL, size, a key of the store that changes when the file does)."""
        files, path = file_system(self.url)
        return self.url, int(files.size(path)), str(files.ukey(path))


def remote_files(url: str, pattern: str) -> list[RemoteFile]:
    """The file at a URL, or those below it that match `pattern`, in the order of their names; hidden ones are not seen.

    Raises:
        FileNotFoundError: there is neither.
        ValueError, ImportError: as for `file_system`.
    """
    files, path = file_system(url)
    if files.isfile(path):
        return [RemoteFile(url)]
    names = open_folder(url).sizes(pattern)
    return [RemoteFile(f"{url.rstrip('/')}/{name}") for name in names if not _hidden(name)]


def _hidden(name: str) -> bool:
    return any(part.startswith(".") for part in name.split("/"))


class _LocalFolder:
    """Files are mapped into memory: what is read of them is what is touched."""

    def __init__(self, root: Path) -> None:
        self.location = str(root)
        self._root = root
        self._mapped: Callable[[str], Bytes] = lru_cache(_MAPPED_AT_ONCE)(self._map)

    def sizes(self, pattern: str = "*") -> dict[str, int]:
        if not self._root.is_dir():
            raise FileNotFoundError(f"there is no folder {self._root}")
        found = [path for path in self._root.glob(pattern) if path.is_file()]
        return dict(sorted((path.relative_to(self._root).as_posix(), path.stat().st_size) for path in found))

    def read(self, name: str, start: int = 0, stop: int | None = None) -> Bytes:
        return self._mapped(name)[start:stop]

    def _map(self, name: str) -> Bytes:
        path = self._root / name
        if path.stat().st_size == 0:  # nothing can be mapped there
            return np.empty(0, np.uint8)
        return np.memmap(path, dtype=np.uint8, mode="r")


class _ObjectStore:
    """Every read is a request for a range of bytes."""

    def __init__(self, url: str) -> None:
        self.location = url.rstrip("/")
        self._files, root = file_system(url)
        self._root = root.rstrip("/")

    def sizes(self, pattern: str = "*") -> dict[str, int]:
        found = self._files.glob(f"{self._root}/{pattern}", detail=True)
        prefix = len(self._root) + 1
        files = {path[prefix:]: info["size"] for path, info in found.items() if info["type"] == "file"}
        if not files and not self._files.isdir(self._root):
            raise FileNotFoundError(f"there is no folder {self.location}")
        return dict(sorted(files.items()))

    def read(self, name: str, start: int = 0, stop: int | None = None) -> Bytes:
        return np.frombuffer(self._files.cat_file(f"{self._root}/{name}", start=start, end=stop), np.uint8)
