"""Memory-mapped token shards: written by several processes, the same bytes whatever their number; read anywhere.

A folder holds `manifest.json` and, per shard, `00000.tokens` (raw little-endian uint16, or uint32 for a vocabulary
above 65,536) and `00000.offsets` (int64: where every document starts inside the shard, then where the last ends).
Each document is BOS, its tokens, EOS. A folder appears under its name only when it is complete.
"""

import hashlib
import json
import os
import threading
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from itertools import accumulate, chain, islice
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from illada.config import from_json, to_json
from illada.data.tokenizer import Tokenizer
from illada.durable import atomic_folder, sha256

_VERSION = 1
_DTYPES: dict[str, np.dtype[Any]] = {"uint16": np.dtype("<u2"), "uint32": np.dtype("<u4")}
_OFFSET = np.dtype("<i8")
_ENCODED_AT_ONCE = 2**20  # bytes of text: bounds the Python integers that live at a time


@dataclass(frozen=True, kw_only=True)
class ShardEntry:
    """One shard: `bytes` counts the UTF-8 of its text, `tokens` the special tokens too."""

    name: str
    tokens: int
    documents: int
    bytes: int
    tokens_sha256: str
    offsets_sha256: str


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a folder of shards holds; `tokenizer` is the fingerprint of the tokenizer that wrote it."""

    version: int
    dtype: str
    tokenizer: str
    documents: int
    tokens: int
    bytes: int
    shards: tuple[ShardEntry, ...]


# --- writing ------------------------------------------------------------------------------------------------------


def write_shards(
    documents: Iterable[str],
    tokenizer: Tokenizer,
    folder: Path,
    *,
    workers: int = 1,
    shard_bytes: int = 16 * 2**20,
) -> Manifest:
    """Encode documents into the new folder `folder`, one shard per `shard_bytes` of text.

    With several `workers` the shards are encoded in that many processes; the bytes written are the same.

    Raises:
        FileExistsError: there is such a folder already.
        ValueError: there is no document, or a number is not positive.
        OSError: the disk is full, for one; nothing is left behind.
    """
    if workers < 1 or shard_bytes < 1:
        raise ValueError(f"workers and shard_bytes must be at least 1, but are {workers} and {shard_bytes}")
    with atomic_folder(folder) as partial:
        texts = _groups(documents, shard_bytes)
        shards = tuple(_encoded_shards(texts, tokenizer, partial, workers))
        if not shards:
            raise ValueError(f"there is no document to write to {folder}")
        manifest = Manifest(
            version=_VERSION,
            dtype=_dtype_name(tokenizer),
            tokenizer=tokenizer.fingerprint,
            documents=sum(shard.documents for shard in shards),
            tokens=sum(shard.tokens for shard in shards),
            bytes=sum(shard.bytes for shard in shards),
            shards=shards,
        )
        (partial / "manifest.json").write_text(to_json(manifest), encoding="utf-8")
    return manifest


def token_dtype(vocab_size: int) -> np.dtype[Any]:
    """The smallest of the two unsigned types that holds the ids of a vocabulary."""
    return _DTYPES["uint16" if vocab_size <= 2**16 else "uint32"]


def _dtype_name(tokenizer: Tokenizer) -> str:
    return "uint16" if tokenizer.vocab_size <= 2**16 else "uint32"


def _bytes_of(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", errors="surrogatepass"))


def _groups(documents: Iterable[str], size: int) -> Iterator[list[str]]:
    """Runs of documents that hold at least `size` bytes each, save the last."""
    group: list[str] = []
    held = 0
    for document in documents:
        group.append(document)
        held += _bytes_of(document)
        if held >= size:
            yield group
            group, held = [], 0
    if group:
        yield group


def _encoded_shards(
    texts: Iterator[list[str]], tokenizer: Tokenizer, folder: Path, workers: int
) -> Iterator[ShardEntry]:
    first = list(islice(texts, 2))
    texts = chain(first, texts)
    if workers == 1 or len(first) < 2:  # one shard keeps one process busy: none needs to be started
        for number, group in enumerate(texts):
            yield _write_shard(group, tokenizer, folder, f"{number:05}")
        return
    executor = ProcessPoolExecutor(
        workers, mp_context=get_context("spawn"), initializer=_start_worker, initargs=(tokenizer,)
    )
    pending: deque[Future[ShardEntry]] = deque()
    try:
        for number, group in enumerate(texts):
            pending.append(executor.submit(_write_shard_in_worker, group, folder, f"{number:05}"))
            if len(pending) > 2 * workers:  # never more text in memory than keeps the workers busy
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        executor.shutdown(cancel_futures=True)


_tokenizer_of_this_worker: list[Tokenizer] = []  # set once per process: a large vocabulary is slow to send


def _start_worker(tokenizer: Tokenizer) -> None:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    _tokenizer_of_this_worker[:] = [tokenizer]
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A worker whose parent was killed would wait for work forever."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _write_shard_in_worker(texts: list[str], folder: Path, name: str) -> ShardEntry:
    return _write_shard(texts, _tokenizer_of_this_worker[0], folder, name)


def _write_shard(texts: list[str], tokenizer: Tokenizer, folder: Path, name: str) -> ShardEntry:
    dtype = _DTYPES[_dtype_name(tokenizer)]
    bos, eos = tokenizer.specials.bos, tokenizer.specials.eos
    documents = [
        np.array([bos, *ids, eos], dtype=dtype)
        for group in _groups(texts, _ENCODED_AT_ONCE)
        for ids in tokenizer.encode_batch(group)
    ]
    tokens = np.concatenate(documents).tobytes()
    ends = np.cumsum([0, *map(len, documents)], dtype=_OFFSET)
    (folder / f"{name}.tokens").write_bytes(tokens)
    (folder / f"{name}.offsets").write_bytes(ends.tobytes())
    return ShardEntry(
        name=name,
        tokens=int(ends[-1]),
        documents=len(texts),
        bytes=sum(map(_bytes_of, texts)),
        tokens_sha256=hashlib.sha256(tokens).hexdigest(),
        offsets_sha256=hashlib.sha256(ends.tobytes()).hexdigest(),
    )


# --- reading ------------------------------------------------------------------------------------------------------


class TokenShards:
    """The tokens of a folder of shards, as one long sequence: `len()` counts its tokens."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        dtype = _DTYPES[manifest.dtype]
        self.folder = folder
        self.manifest = manifest
        self._tokens = [_mapped(folder / f"{shard.name}.tokens", dtype) for shard in manifest.shards]
        self._offsets = [_mapped(folder / f"{shard.name}.offsets", _OFFSET) for shard in manifest.shards]
        self._starts = [0, *accumulate(shard.tokens for shard in manifest.shards)]

    @staticmethod
    def open(folder: Path, *, tokenizer: Tokenizer | None = None, verify: bool = True) -> "TokenShards":
        """Map the shards of `folder`; `verify` reads every byte once to compare checksums.

        Raises:
            FileNotFoundError: there is no such folder of shards, or a file of it is missing.
            ValueError: a file is cut off or altered, or another tokenizer than `tokenizer` wrote the shards.
        """
        file = folder / "manifest.json"
        if not file.is_file():
            raise FileNotFoundError(f"no token shards in {folder}: it has no manifest.json")
        manifest = _read_manifest(file)
        if tokenizer is not None and tokenizer.fingerprint != manifest.tokenizer:
            raise ValueError(
                f"the shards in {folder} were written by another tokenizer, {manifest.tokenizer[:12]}, "
                f"not by the one given, {tokenizer.fingerprint[:12]}: write them again"
            )
        for shard in manifest.shards:
            item = _DTYPES[manifest.dtype].itemsize
            _check(folder / f"{shard.name}.tokens", shard.tokens * item, shard.tokens_sha256, verify=verify)
            size = (shard.documents + 1) * _OFFSET.itemsize
            _check(folder / f"{shard.name}.offsets", size, shard.offsets_sha256, verify=verify)
        return TokenShards(folder, manifest)

    def __len__(self) -> int:
        return self.manifest.tokens

    def read(self, start: int, count: int) -> npt.NDArray[np.int64]:
        """Tokens `start` .. `start + count - 1`, from as many shards as it takes; shape [count].

        Raises:
            ValueError: the range does not lie inside.
        """
        pieces = [self._tokens[shard][low:high] for shard, low, high in self._spans(start, count)]
        return np.concatenate(pieces or [np.empty(0)]).astype(np.int64)

    def document_starts(self, start: int, count: int) -> npt.NDArray[np.int64]:
        """Where in the range (0 = `start`) a document begins, ascending.

        Raises:
            ValueError: the range does not lie inside.
        """
        found = [np.empty(0, dtype=np.int64)]
        for shard, low, high in self._spans(start, count):
            begins = self._offsets[shard][:-1]
            first, last = np.searchsorted(begins, [low, high])
            found.append(begins[first:last].astype(np.int64) + (self._starts[shard] - start))
        return np.concatenate(found)

    def _spans(self, start: int, count: int) -> Iterator[tuple[int, int, int]]:
        """(shard, first, end) of every shard that the range touches."""
        if start < 0 or count < 0 or start + count > len(self):
            raise ValueError(
                f"tokens {start} to {start + count} are not inside the {len(self)} tokens of {self.folder}"
            )
        shard = bisect_right(self._starts, start) - 1
        while count > 0:
            low = start - self._starts[shard]
            high = min(low + count, self._starts[shard + 1] - self._starts[shard])
            yield shard, low, high
            start, count, shard = start + high - low, count - (high - low), shard + 1


def _read_manifest(file: Path) -> Manifest:
    text = file.read_text(encoding="utf-8", errors="replace")
    try:
        version = json.loads(text)["version"]
        if version == _VERSION:
            manifest = from_json(Manifest, text)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file} is damaged, write the shards again: {error}") from error
    if version != _VERSION:
        raise ValueError(f"{file} has format {version}, but {_VERSION} is the one read here: write the shards again")
    if manifest.dtype not in _DTYPES:
        raise ValueError(f"{file} names the token type {manifest.dtype!r}, not one of {', '.join(_DTYPES)}")
    for total in ("documents", "tokens", "bytes"):
        parts = sum(getattr(shard, total) for shard in manifest.shards)
        if parts != getattr(manifest, total):
            raise ValueError(f"{file} counts {getattr(manifest, total)} {total}, but its shards hold {parts}")
    return manifest


def _mapped(file: Path, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    return np.memmap(file, dtype=dtype, mode="r")


def _check(file: Path, size: int, digest: str, *, verify: bool) -> None:
    if not file.is_file():
        raise FileNotFoundError(f"the shard file {file} is missing: write the shards again")
    if (found := file.stat().st_size) != size:
        raise ValueError(f"the shard file {file} has {found} bytes instead of {size}: write the shards again")
    if verify and sha256(file) != digest:
        raise ValueError(f"the shard file {file} was altered, its SHA-256 differs: write the shards again")
