"""Where documents come from: files, folders, compressed JSON lines, parquet, data sets, the standard library."""

import gzip
import io
import json
import math
import os
import re
import sysconfig
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from illada.data.hub import hub_rows, optional

_NOT_THE_LIBRARY = {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__"}
_PARQUET_BATCH = 256


@dataclass(frozen=True, kw_only=True)
class Source:
    """One place to read documents from, and its share of the training mix.

    `path` is `stdlib` (the source code of the running Python's standard library), a file, a folder, or
    `hf:NAME[/CONFIG]` (`hf:OWNER/NAME[/CONFIG]`), a Hugging Face data set. A file is read by its ending: `.jsonl`
    or `.ndjson` and `.parquet` hold many documents, in the column `field`; anything else is one document of plain
    text. `.gz` and `.zst` are decompressed. In a folder `glob` chooses the files; hidden files and those that are
    not UTF-8 text are passed over. `split` is the split of a data set.
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

    def files(self) -> list[Path]:
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


def file_state(file: Path) -> tuple[str, int, int]:
    """(path, size, time of change): what a prepared result is remembered by.

    Raises:
        FileNotFoundError: there is no such file.
    """
    if not file.is_file():
        raise FileNotFoundError(f"no such file: {file}")
    state = file.stat()
    return str(file.resolve()), state.st_size, state.st_mtime_ns


# --- kinds of sources: the first that accepts a source reads it ---------------------------------------------------


@runtime_checkable
class _Kind(Protocol):
    def accepts(self, source: Source) -> bool: ...
    def files(self, source: Source) -> list[Path]: ...
    def documents(self, source: Source) -> Iterator[str]: ...


class _StandardLibrary:
    def accepts(self, source: Source) -> bool:
        return source.path == "stdlib"

    def files(self, source: Source) -> list[Path]:  # noqa: ARG002  # one method of every kind
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
            yield from _plain_text_if_it_is(file)


class _Folder:
    def accepts(self, source: Source) -> bool:
        return Path(source.path).is_dir()

    def files(self, source: Source) -> list[Path]:
        root = Path(source.path)
        matches = [path for path in root.glob(source.glob) if path.is_file() and not _hidden(path, root)]
        if not matches:
            raise ValueError(f"no file in the folder {root} matches the pattern {source.glob!r}")
        return _in_order(matches, root)

    def documents(self, source: Source) -> Iterator[str]:
        for file in self.files(source):
            many = _reader_of_many(file)
            yield from many(file, source.field) if many else _plain_text_if_it_is(file)


class _File:
    def accepts(self, source: Source) -> bool:
        return not source.path.startswith("hf:")

    def files(self, source: Source) -> list[Path]:
        file = Path(source.path)
        if not file.is_file():
            raise FileNotFoundError(f"no such file or folder: {file}")
        return [file]

    def documents(self, source: Source) -> Iterator[str]:
        for file in self.files(source):
            many = _reader_of_many(file)
            yield from many(file, source.field) if many else _plain_text(file)


class _HuggingFace:
    def accepts(self, source: Source) -> bool:
        return source.path.startswith("hf:")

    def files(self, source: Source) -> list[Path]:
        optional("datasets", source.path)
        return []

    def documents(self, source: Source) -> Iterator[str]:
        parts = source.path.removeprefix("hf:").split("/")
        name, config = "/".join(parts[:2]), "/".join(parts[2:]) or None
        for number, record in enumerate(hub_rows(name, config, source.split), start=1):
            yield _text_of(record, source.field, f"{source.path}, record {number}")


_KINDS: tuple[_Kind, ...] = (_StandardLibrary(), _HuggingFace(), _Folder(), _File())


def _kind(source: Source) -> _Kind:
    return next(kind for kind in _KINDS if kind.accepts(source))


# --- formats of files ---------------------------------------------------------------------------------------------


def _plain_text(file: Path) -> Iterator[str]:
    with _decompressed(file) as stream:
        data = stream.read()
    try:
        yield data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is not UTF-8 text: byte {error.start} is 0x{data[error.start]:02X}") from error


def _plain_text_if_it_is(file: Path) -> Iterator[str]:
    """A file of a folder: passed over when it is no UTF-8 text, or holds the zero bytes of a binary file."""
    with _decompressed(file) as stream:
        data = stream.read()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return
    if "\0" not in text:
        yield text


def json_records(file: Path) -> Iterator[tuple[str, Any]]:
    """(place, value) of every line of a JSON-lines file that is not empty; `.gz` and `.zst` are decompressed.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a line is no JSON, or the compressed file is damaged.
    """
    if not file.is_file():
        raise FileNotFoundError(f"no such file: {file}")
    with _decompressed(file) as stream:
        for number, line in enumerate(stream, start=1):
            place = f"{file}, line {number}"
            if not line.strip():
                continue
            try:
                yield place, json.loads(line)
            except (ValueError, RecursionError) as error:
                raise ValueError(f"{place} is not valid JSON: {error}") from error


def _json_lines(file: Path, field: str) -> Iterator[str]:
    return (_text_of(record, field, place) for place, record in json_records(file))


def _parquet(file: Path, field: str) -> Iterator[str]:
    parquet = optional("pyarrow.parquet", str(file))
    try:
        table = parquet.ParquetFile(file)
    except ValueError as error:
        raise ValueError(f"{file} is no readable parquet file: {error}") from error
    with table:
        names = table.schema_arrow.names
        if field not in names:
            raise ValueError(_missing(field, f"{file}", names))
        batches = table.iter_batches(batch_size=_PARQUET_BATCH, columns=[field])
        values = (value for batch in batches for value in batch.column(0).to_pylist())
        for row, value in enumerate(values, start=1):
            yield _text_of({field: value}, field, f"{file}, row {row}")


_MANY: dict[str, Callable[[Path, str], Iterator[str]]] = {
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".parquet": _parquet,
}


def _reader_of_many(file: Path) -> Callable[[Path, str], Iterator[str]] | None:
    inner = file.with_suffix("") if file.suffix in _COMPRESSED else file
    return _MANY.get(inner.suffix)


def _text_of(record: object, field: str, place: str) -> str:
    if not isinstance(record, dict):
        raise ValueError(f"{place} holds {type(record).__name__}, but it must be an object with the field {field!r}")
    if field not in record:
        raise ValueError(_missing(field, place, list(record)))
    value = record[field]
    if not isinstance(value, str | None):
        raise ValueError(f"{place}: the field {field!r} holds {type(value).__name__}, but it must be text")
    return value or ""


def _missing(field: str, place: str, there: list[str]) -> str:
    return f"{place} has no field {field!r}; the fields there are {', '.join(there) or 'none'}: choose with field="


# --- compression --------------------------------------------------------------------------------------------------

_Opened = tuple[io.BufferedIOBase, tuple[type[Exception], ...]]  # a stream of bytes, and the errors of damaged data


def _gzip(file: Path) -> _Opened:
    return gzip.open(file), (EOFError, gzip.BadGzipFile, zlib.error)


def _zstandard(file: Path) -> _Opened:
    zstandard = optional("zstandard", str(file))
    decompressor = zstandard.ZstdDecompressor(max_window_size=2**31)  # files written with --long
    reader = decompressor.stream_reader(file.open("rb"), read_across_frames=True)
    return io.BufferedReader(reader), (EOFError, zstandard.ZstdError)


def _uncompressed(file: Path) -> _Opened:
    return file.open("rb"), ()


_COMPRESSED: dict[str, Callable[[Path], _Opened]] = {".gz": _gzip, ".zst": _zstandard}


@contextmanager
def _decompressed(file: Path) -> Iterator[io.BufferedIOBase]:
    stream, errors = _COMPRESSED.get(file.suffix, _uncompressed)(file)
    with stream:
        try:
            yield stream
        except errors as error:
            raise ValueError(f"{file} cannot be decompressed, it is damaged or cut off: {error}") from error


# --- paths and libraries ------------------------------------------------------------------------------------------


def _hidden(path: Path, root: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(root).parts)


def _in_order(files: list[Path], root: Path) -> list[Path]:
    """The same order on every machine."""
    return sorted(files, key=lambda file: file.relative_to(root).parts)
