"""Memory-mapped token shards: written by several processes, the same bytes whatever their number; read anywhere.

A folder holds `manifest.json` and, per shard, `00000.tokens` (raw little-endian uint16, or uint32 for a vocabulary
above 65,536), `00000.offsets` (int64: where every document starts inside the shard, then where the last ends) and
`00000.sums` (the SHA-256 of every 256 KiB of the tokens, then of the offsets). Each document is BOS, its tokens, EOS.
A folder appears under its name only when it is complete.

To open a folder takes its manifest and a look at the sizes of its files. Tokens are compared with their checksums where
they are read, so a run begins as soon with a large corpus as with a small one.
"""

import hashlib
import json
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import chain, islice
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from illada.config import fingerprint, from_json, to_json
from illada.data.checksums import CheckedFile, block_sums, sums_size
from illada.data.storage import Folder, open_folder
from illada.data.token_files import OPEN_AT_ONCE, TokenFiles
from illada.data.tokenizer import Tokenizer
from illada.durable import atomic_folder

_VERSION = 2
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
    sha256: str
    """Of its file of checksums: so it stands for every byte of the shard."""


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
    sha256: str = ""
    """The fingerprint of all of the above."""


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
        manifest = replace(manifest, sha256=fingerprint(manifest))
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
    sums = block_sums(tokens) + block_sums(ends.tobytes())
    for kind, content in (("tokens", tokens), ("offsets", ends.tobytes()), ("sums", sums)):
        (folder / f"{name}.{kind}").write_bytes(content)
    return ShardEntry(
        name=name,
        tokens=int(ends[-1]),
        documents=len(texts),
        bytes=sum(map(_bytes_of, texts)),
        sha256=hashlib.sha256(sums).hexdigest(),
    )


# --- reading ------------------------------------------------------------------------------------------------------


class TokenShards(TokenFiles):
    """The tokens of a folder of shards, as one long sequence: `len()` counts its tokens."""

    def __init__(self, folder: Folder, manifest: Manifest) -> None:
        super().__init__(folder.location, [shard.tokens for shard in manifest.shards])
        self.manifest = manifest
        self._folder, self._dtype = folder, _DTYPES[manifest.dtype]
        self._opened: Callable[[int], tuple[CheckedFile, CheckedFile]] = lru_cache(OPEN_AT_ONCE)(self._open)

    @staticmethod
    def open(location: str | Path, *, tokenizer: Tokenizer | None = None, verify: bool = True) -> "TokenShards":
        """Open the shards at a path or URL; `verify` compares every byte now, and not when it is first read.

        Raises:
            FileNotFoundError: there is no such folder of shards, or a file of it is missing.
            ValueError: a file is cut off or altered, or another tokenizer than `tokenizer` wrote the shards.
        """
        folder = open_folder(location)
        manifest = _read_manifest(folder)
        if tokenizer is not None and tokenizer.fingerprint != manifest.tokenizer:
            raise ValueError(
                f"the shards in {location} were written by another tokenizer, {manifest.tokenizer[:12]}, "
                f"not by the one given, {tokenizer.fingerprint[:12]}: write them again"
            )
        _check_sizes(folder, manifest)
        shards = TokenShards(folder, manifest)
        if verify:
            for number in range(len(manifest.shards)):
                for file in shards._open(number):
                    file.check()
        return shards

    @cached_property
    def identity(self) -> str:
        """The fingerprint of the manifest, which stands for every byte."""
        return fingerprint(self.manifest)

    @property
    def bytes_per_token(self) -> float:
        """Counted when the shards were written."""
        return self.manifest.bytes / self.manifest.tokens

    def _tokens(self, file: int, low: int, high: int) -> npt.NDArray[np.unsignedinteger]:
        tokens, _ = self._opened(file)
        size = self._dtype.itemsize
        return tokens.read(low * size, high * size).view(self._dtype)

    def _document_starts(self, file: int) -> npt.NDArray[np.integer]:
        _, offsets = self._opened(file)
        return offsets.read(0, self.manifest.shards[file].documents * _OFFSET.itemsize).view(_OFFSET)

    def _open(self, number: int) -> tuple[CheckedFile, CheckedFile]:
        """Tokens and offsets of one shard, with their checksums."""
        shard = self.manifest.shards[number]
        sums = self._folder.read(f"{shard.name}.sums").tobytes()
        if hashlib.sha256(sums).hexdigest() != shard.sha256:
            raise ValueError(
                f"the shard file {self.location}/{shard.name}.sums was altered, its SHA-256 differs: "
                f"write the shards again"
            )
        sizes = _sizes(shard, self._dtype)
        tokens, offsets = sizes[f"{shard.name}.tokens"], sizes[f"{shard.name}.offsets"]
        border = sums_size(tokens)
        return (
            CheckedFile(self._folder, f"{shard.name}.tokens", size=tokens, sums=sums[:border]),
            CheckedFile(self._folder, f"{shard.name}.offsets", size=offsets, sums=sums[border:]),
        )


def _read_manifest(folder: Folder) -> Manifest:
    file = f"{folder.location}/manifest.json"
    try:
        text = folder.read("manifest.json").tobytes().decode("utf-8", errors="replace")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FileNotFoundError(f"no token shards in {folder.location}: it has no manifest.json") from error
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
    if manifest.sha256 != fingerprint(replace(manifest, sha256="")):
        raise ValueError(f"{file} was altered, its SHA-256 differs: write the shards again")
    return manifest


def _sizes(shard: ShardEntry, dtype: np.dtype[Any]) -> dict[str, int]:
    """How many bytes each file of a shard has."""
    tokens, offsets = shard.tokens * dtype.itemsize, (shard.documents + 1) * _OFFSET.itemsize
    sums = sums_size(tokens) + sums_size(offsets)
    return {f"{shard.name}.tokens": tokens, f"{shard.name}.offsets": offsets, f"{shard.name}.sums": sums}


def _check_sizes(folder: Folder, manifest: Manifest) -> None:
    there = folder.sizes()
    for shard in manifest.shards:
        for name, size in _sizes(shard, _DTYPES[manifest.dtype]).items():
            file = f"{folder.location}/{name}"
            if name not in there:
                raise FileNotFoundError(f"the shard file {file} is missing: write the shards again")
            if there[name] != size:
                raise ValueError(
                    f"the shard file {file} has {there[name]} bytes instead of {size}: write the shards again"
                )
