"""Where documents come from: files, folders, object stores, data sets, the standard library."""

import math
import os
import re
import sysconfig
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from illada.data.formats import DataFile, documents_of, plain_text_if_it_is, text_of
from illada.data.hub import hub_rows, optional
from illada.data.storage import RemoteFile, is_url, remote_files

_NOT_THE_LIBRARY = {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__"}


@dataclass(frozen=True, kw_only=True)
class Source:
    """One place to read documents from, and its share of the training mix.

    `path` is `stdlib` (the source code of the running Python's standard library), a file, a folder, a URL of either in
    an object store (`s3://BUCKET/FOLDER`), or `hf:NAME[/CONFIG]` (`hf:OWNER/NAME[/CONFIG]`), a Hugging Face data set.
    A file is read by its ending: `.jsonl` or `.ndjson` and `.parquet` hold many documents, in the column `field`;
    anything else is one document of plain text. `.gz` and `.zst` are decompressed. In a folder `glob` chooses the
    files; hidden files and those that are not UTF-8 text are passed over. `split` is the split of a data set.
    """

    path: str
    field: str = "text"
    glob: str = "**/*"
    split: str = "train"
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not self.path:
            raise ValueError("a source needs a path: PATH[,field=text][,glob=**/*.py][,split=train][,weight=1]")
        if not (math.isfinite(self.weight) and self.weight > 0):
            raise ValueError(f"the weight of source {self.path} is {self.weight}, but it must be above 0")

    def check(self) -> None:
        """Read as little as shows that there is something to read.

        Raises:
            FileNotFoundError: there is no such path.
            ValueError: nothing matches, the field is missing, an optional library is, or there is no text.
        """
        if next(self.documents(), None) is None:
            raise ValueError(f"source {self.path} holds no text")

    def files(self) -> list[DataFile]:
        """The files that are read, in order; none for a Hugging Face data set.

        Raises:
            FileNotFoundError: there is no such path.
            ValueError: nothing in the folder matches `glob`.
        """
        return _kind(self).files(self)

    def documents(self) -> Iterator[str]:
        """Every document that is not empty, always in the same order.

        Raises:
            FileNotFoundError: there is no such path.
            ValueError: a file cannot be read as what its name says; names the file, and the line if it has lines.
        """
        return (document for document in _kind(self).documents(self) if document)


def parse_source(spec: str) -> Source:
    """Read the command-line form `PATH[,field=text][,glob=**/*.py][,split=train][,weight=0.7]`.

    Raises:
        ValueError: an unknown or repeated key, or a weight that is no number above 0.
    """
    path, values = read_spec(spec, [field.name for field in fields(Source) if field.name != "path"])
    return Source(path=path, **values)


def read_spec(spec: str, known: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """The path and the options of `PATH[,key=value]...`; a `weight` becomes a number.

    Raises:
        ValueError: a key that is not `known` or comes twice, or a weight that is no number.
    """
    path, *options = re.split(r",(?=\w+=)", spec)
    values: dict[str, Any] = {}
    for option in options:
        key, value = option.split("=", 1)
        if key not in known:
            raise ValueError(f"unknown key {key!r} in source {spec!r}: choose among {', '.join(known)}")
        if key in values:
            raise ValueError(f"the key {key!r} occurs twice in source {spec!r}")
        values[key] = value
    if "weight" in values:
        try:
            values["weight"] = float(values["weight"])
        except ValueError as error:
            message = f"the weight in source {spec!r} is {values['weight']!r}, but it must be a number"
            raise ValueError(message) from error
    return path, values


def file_state(file: DataFile) -> tuple[str, int, int | str]:
    """(path, size, time of change): what a prepared result is remembered by.

    Raises:
        FileNotFoundError: there is no such file.
    """
    if isinstance(file, RemoteFile):
        return file.state()
    if not file.is_file():
        raise FileNotFoundError(f"no such file: {file}")
    state = file.stat()
    return str(file.resolve()), state.st_size, state.st_mtime_ns


# --- kinds of sources: the first that accepts a source reads it ---------------------------------------------------


@runtime_checkable
class _Kind(Protocol):
    def accepts(self, source: Source) -> bool: ...
    def files(self, source: Source) -> list[DataFile]: ...
    def documents(self, source: Source) -> Iterator[str]: ...


class _StandardLibrary:
    def accepts(self, source: Source) -> bool:
        return source.path == "stdlib"

    def files(self, source: Source) -> list[DataFile]:  # noqa: ARG002  # one method of every kind
        root = Path(sysconfig.get_path("stdlib"))
        found: list[Path] = []
        for folder, below, names in os.walk(root):
            below[:] = [name for name in below if name not in _NOT_THE_LIBRARY]
            found += [Path(folder) / name for name in names if name.endswith(".py")]
        if not found:
            raise FileNotFoundError(f"no source code of the standard library under {root}: give another source")
        return _in_order(found, root)

    def documents(self, source: Source) -> Iterator[str]:
        for file in self.files(source):
            yield from plain_text_if_it_is(file)


class _Folder:
    def accepts(self, source: Source) -> bool:
        return Path(source.path).is_dir()

    def files(self, source: Source) -> list[DataFile]:
        root = Path(source.path)
        matches = [path for path in root.glob(source.glob) if path.is_file() and not _hidden(path, root)]
        if not matches:
            raise ValueError(f"no file in the folder {root} matches the pattern {source.glob!r}")
        return _in_order(matches, root)

    def documents(self, source: Source) -> Iterator[str]:
        for file in self.files(source):
            yield from documents_of(file, source.field, lenient=True)


class _ObjectStore:
    def accepts(self, source: Source) -> bool:
        return is_url(source.path)

    def files(self, source: Source) -> list[DataFile]:
        found = remote_files(source.path, source.glob)
        if not found:
            raise ValueError(f"no file in {source.path} matches the pattern {source.glob!r}")
        return list(found)

    def documents(self, source: Source) -> Iterator[str]:
        files = self.files(source)
        for file in files:
            yield from documents_of(file, source.field, lenient=str(file) != source.path)


class _File:
    def accepts(self, source: Source) -> bool:  # noqa: ARG002  # whatever else a path may be was asked before
        return True

    def files(self, source: Source) -> list[DataFile]:
        file = Path(source.path)
        if not file.is_file():
            raise FileNotFoundError(f"no such file or folder: {file}")
        return [file]

    def documents(self, source: Source) -> Iterator[str]:
        for file in self.files(source):
            yield from documents_of(file, source.field, lenient=False)


class _HuggingFace:
    def accepts(self, source: Source) -> bool:
        return source.path.startswith("hf:")

    def files(self, source: Source) -> list[DataFile]:
        optional("datasets", source.path)
        return []

    def documents(self, source: Source) -> Iterator[str]:
        parts = source.path.removeprefix("hf:").split("/")
        name, config = "/".join(parts[:2]), "/".join(parts[2:]) or None
        for number, record in enumerate(hub_rows(name, config, source.split), start=1):
            yield text_of(record, source.field, f"{source.path}, record {number}")


_KINDS: tuple[_Kind, ...] = (_StandardLibrary(), _HuggingFace(), _ObjectStore(), _Folder(), _File())


def _kind(source: Source) -> _Kind:
    return next(kind for kind in _KINDS if kind.accepts(source))


# --- paths and libraries ------------------------------------------------------------------------------------------


def _hidden(path: Path, root: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(root).parts)


def _in_order(files: list[Path], root: Path) -> list[DataFile]:
    """The same order on every machine."""
    ordered = sorted(files, key=lambda file: file.relative_to(root).parts)
    return [*ordered]
