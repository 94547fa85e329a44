"""Files of documents by their endings: plain text, JSON lines, parquet, compressed or not."""

import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from illada.data.hub import optional
from illada.data.storage import RemoteFile

DataFile = Path | RemoteFile
"""What documents are read from: its `str` names it in messages."""

_PARQUET_BATCH = 256


def documents_of(file: DataFile, field: str, *, lenient: bool) -> Iterator[str]:
    """The documents of a file; `lenient` passes over one that is no UTF-8 text.

    Raises:
        ValueError: the file cannot be read as what its name says; names it, and the line if it has lines.
    """
    if many := _reader_of_many(file):
        return many(file, field)
    return plain_text_if_it_is(file) if lenient else _plain_text(file)


def _plain_text(file: DataFile) -> Iterator[str]:
    with _decompressed(file) as stream:
        data = stream.read()
    try:
        yield data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is not UTF-8 text: byte {error.start} is 0x{data[error.start]:02X}") from error


def plain_text_if_it_is(file: DataFile) -> Iterator[str]:
    """A file of a folder: passed over when it is no UTF-8 text, or holds the zero bytes of a binary file."""
    with _decompressed(file) as stream:
        data = stream.read()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return
    if "\0" not in text:
        yield text


def json_records(file: DataFile) -> Iterator[tuple[str, Any]]:
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


def _json_lines(file: DataFile, field: str) -> Iterator[str]:
    return (text_of(record, field, place) for place, record in json_records(file))


def _parquet(file: DataFile, field: str) -> Iterator[str]:
    parquet = optional("pyarrow.parquet", str(file))
    stream = file.open("rb")
    try:
        table = parquet.ParquetFile(stream)
    except ValueError as error:
        stream.close()
        raise ValueError(f"{file} is no readable parquet file: {error}") from error
    with stream, table:
        names = table.schema_arrow.names
        if field not in names:
            raise ValueError(_missing(field, f"{file}", names))
        batches = table.iter_batches(batch_size=_PARQUET_BATCH, columns=[field])
        values = (value for batch in batches for value in batch.column(0).to_pylist())
        for row, value in enumerate(values, start=1):
            yield text_of({field: value}, field, f"{file}, row {row}")


_MANY: dict[str, Callable[[DataFile, str], Iterator[str]]] = {
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".parquet": _parquet,
}


def _reader_of_many(file: DataFile) -> Callable[[DataFile, str], Iterator[str]] | None:
    endings = [ending for ending in file.suffixes[-2:] if ending not in _COMPRESSED]
    return _MANY.get(endings[-1]) if endings else None


def text_of(record: object, field: str, place: str) -> str:
    """The text in one field of a record; "" for null.

    Raises:
        ValueError: there is no such field, or it holds something else; the message begins with `place`.
    """
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


def _gzip(raw: io.BufferedReader, name: str) -> _Opened:  # noqa: ARG001  # one signature for all
    return gzip.open(raw), (EOFError, gzip.BadGzipFile, zlib.error)


def _zstandard(raw: io.BufferedReader, name: str) -> _Opened:
    zstandard = optional("zstandard", name)
    decompressor = zstandard.ZstdDecompressor(max_window_size=2**31)  # files written with --long
    reader = decompressor.stream_reader(raw, read_across_frames=True)
    return io.BufferedReader(reader), (EOFError, zstandard.ZstdError)


_COMPRESSED: dict[str, Callable[[io.BufferedReader, str], _Opened]] = {".gz": _gzip, ".zst": _zstandard}


@contextmanager
def _decompressed(file: DataFile) -> Iterator[io.BufferedIOBase]:
    with file.open("rb") as raw:
        if file.suffix not in _COMPRESSED:
            yield raw
            return
        stream, errors = _COMPRESSED[file.suffix](raw, str(file))
        with stream:
            try:
                yield stream
            except errors as error:
                raise ValueError(f"{file} cannot be decompressed, it is damaged or cut off: {error}") from error
