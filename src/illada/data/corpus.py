"""From raw text to a tokenizer, shards to train on and shards held out, in one call that remembers its result.

What is held out depends on nothing but the text: a document whose SHA-256, read as a fraction, is below
`held_out_fraction`. So it stays held out when files are added or reordered, and copies of a document are never on
both sides. Where that leaves nothing to hold out, or nothing of a source to train on (a single file, say), the end
of the largest document is held out instead. Sources of token shards are opened where they lie; beside them what is held
out must be named.
"""

import hashlib
import json
import logging
import sys
import sysconfig
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path

from illada.config import fingerprint, to_dict
from illada.data.shards import TokenShards, write_shards
from illada.data.sources import Source, file_state, parse_source
from illada.data.token_files import TokenFiles
from illada.data.tokenized import holds_tokens, open_tokens
from illada.data.tokenizer import LEAST_VOCABULARY, Tokenizer
from illada.durable import atomic_folder

_FORMAT = 3  # part of the fingerprint: raise it when the same inputs would give other files
_TOKENIZER_CHARACTERS = 64_000_000
_LEAST_HELD_OUT = 4096  # characters of a document that is cut: some rows' worth

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class CorpusConfig:
    """Which text, how much of it is held out, and the tokenizer: a path, or None to train one of `vocab_size`.

    `sources` are specs (see `illada.data.sources.parse_source`), or `tokens:LOCATION` for shards that are written
    already (see `illada.data.tokenized`). Where `held_out_sources` are given, they alone are
    held out, whole, and the others are trained on, whole. `workers` processes encode; it changes no result.
    """

    sources: tuple[str, ...] = ("stdlib",)
    held_out_sources: tuple[str, ...] = ()
    held_out_fraction: float = 0.02
    vocab_size: int = 4096
    tokenizer: str | None = None
    workers: int = 2

    def __post_init__(self) -> None:
        if not self.sources:
            raise ValueError("there are 0 sources, but a corpus needs at least 1: 'stdlib', a file, a folder ...")
        if not 0 < self.held_out_fraction < 1:
            raise ValueError(f"held_out_fraction is {self.held_out_fraction}, but must lie between 0 and 1")
        if self.tokenizer is None and self.vocab_size < LEAST_VOCABULARY:
            raise ValueError(
                f"vocab_size is {self.vocab_size}, but the bytes and the special tokens need at least "
                f"{LEAST_VOCABULARY}"
            )
        if self.workers < 1:
            raise ValueError(f"workers is {self.workers}, but must be at least 1")


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """A prepared corpus: per source its shards and its weight, and what is held out of all of them."""

    folder: Path
    tokenizer: Tokenizer
    train: list[tuple[TokenFiles, float]]
    held_out: TokenFiles


def prepare(config: CorpusConfig, folder: Path, *, report: Callable[[str], None] = _log.info) -> Corpus:
    """Tokenize what `config` names into a folder inside `folder`, or open it if that was done before.

    The inner folder is named after a fingerprint of the configuration and of the inputs (paths, sizes, times of
    change): changed input is prepared anew, beside the old. `report` gets a line of text for each step.

    Raises:
        FileNotFoundError: a source or the tokenizer does not exist.
        ValueError: a source holds no readable text, or all of it is too small to hold a part out.
        OSError: the disk is full, for one; nothing is left behind.
    """
    sources = [parse_source(spec) for spec in config.sources]
    apart = [parse_source(spec) for spec in config.held_out_sources]
    _check(config, sources, apart)
    target = folder / _fingerprint(config, [*sources, *apart])[:12]
    if target.exists():
        _check_complete(target)
        report(f"corpus: prepared before, in {target}")
    else:
        _prepare_new(config, target, sources=sources, apart=apart, report=report)
    return _open(target, sources, apart, report)


def _check(config: CorpusConfig, sources: Sequence[Source], apart: Sequence[Source]) -> None:
    """Refuse what cannot become a corpus before anything is written."""
    for source in chain(sources, apart):
        if not holds_tokens(source):
            source.check()
        elif config.tokenizer is None:
            raise ValueError(f"{source.path} holds tokens: name the tokenizer that wrote them (corpus.tokenizer)")
        elif not apart:
            raise ValueError(f"nothing is held out of {source.path}: name what is (corpus.held_out_sources)")
        else:
            open_tokens(source, Tokenizer.load(Path(config.tokenizer)))
    if len(apart) > 1 and any(map(holds_tokens, apart)):
        raise ValueError(f"there are {len(apart)} held_out_sources, but token shards that are held out stand alone")


def _prepare_new(
    config: CorpusConfig,
    target: Path,
    *,
    sources: list[Source],
    apart: list[Source],
    report: Callable[[str], None],
) -> None:
    split = _KeepAll() if apart else _survey(sources, config.held_out_fraction)
    try:
        with atomic_folder(target) as partial:
            tokenizer = _tokenizer(config, sources, split)
            tokenizer.save(partial / "tokenizer")
            report(f"tokenizer: {tokenizer.vocab_size:,} entries")
            for name, documents in _parts(sources, apart, split).items():
                manifest = write_shards(documents, tokenizer, partial / name, workers=config.workers)
                report(
                    f"{name}: {manifest.documents:,} documents, {manifest.bytes / 1e6:.1f} MB, "
                    f"{manifest.tokens:,} tokens"
                )
            content = {"fingerprint": target.name, "config": to_dict(config)}
            (partial / "corpus.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    except FileExistsError:
        if not target.exists():
            raise
        report(f"corpus: another process prepared {target} meanwhile")


def _parts(sources: Sequence[Source], apart: Sequence[Source], split: "_Split") -> dict[str, Iterator[str]]:
    """The documents of every folder of shards that is to be written."""
    parts = {
        f"train-{number}": _training(source, split) for number, source in enumerate(sources) if not holds_tokens(source)
    }
    if not any(map(holds_tokens, apart)):
        parts["held-out"] = _held_out(apart, _KeepAll()) if apart else _held_out(sources, split)
    return parts


def _check_complete(target: Path) -> None:
    file = target / "corpus.json"
    try:
        recorded = json.loads(file.read_text(encoding="utf-8"))["fingerprint"]
    except (OSError, ValueError, KeyError, TypeError):
        recorded = None
    if recorded != target.name:
        raise ValueError(f"{target} is not a complete prepared corpus: delete it, and it is prepared again")


def _open(target: Path, sources: Sequence[Source], apart: Sequence[Source], report: Callable[[str], None]) -> Corpus:
    tokenizer = Tokenizer.load(target / "tokenizer")

    def shards(name: str, source: Source | None) -> TokenFiles:
        if source is None or not holds_tokens(source):
            return TokenShards.open(target / name, tokenizer=tokenizer, verify=False)
        tokens = open_tokens(source, tokenizer)
        report(f"{name}: {len(tokens):,} tokens in {tokens.location}")
        return tokens

    return Corpus(
        folder=target,
        tokenizer=tokenizer,
        train=[(shards(f"train-{number}", source), source.weight) for number, source in enumerate(sources)],
        held_out=shards("held-out", apart[0] if apart else None),
    )


# --- tokenizer ----------------------------------------------------------------------------------------------------


def _tokenizer(config: CorpusConfig, sources: Sequence[Source], split: "_Split") -> Tokenizer:
    if config.tokenizer is not None:
        return Tokenizer.load(Path(config.tokenizer))
    share = _TOKENIZER_CHARACTERS // len(sources)
    texts = chain.from_iterable(_first(_training(source, split), share) for source in sources)
    return Tokenizer.train(texts, config.vocab_size)


def _first(documents: Iterable[str], characters: int) -> Iterator[str]:
    """Documents from the front until they hold `characters`; the last may be cut."""
    for document in documents:
        yield document[:characters]
        characters -= len(document)
        if characters <= 0:
            return


# --- what is held out ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _KeepAll:
    """The sources are apart already: nothing is divided."""

    def divide(self, document: str) -> tuple[str, str]:
        return document, document


@dataclass(frozen=True)
class _ByHash:
    """Documents are held out by their hash, except those of `cut`, which lose their end."""

    fraction: float
    cut: frozenset[str] = field(default_factory=frozenset)

    def divide(self, document: str) -> tuple[str, str]:
        """(what is trained on, what is held out): one of them is empty but for the documents of `cut`."""
        digest = _digest(document)
        if digest in self.cut:
            place = _place_to_cut(document, self.fraction)
            return document[:place], document[place:]
        return ("", document) if int(digest[:8], 16) / 16**8 < self.fraction else (document, "")


_Split = _KeepAll | _ByHash


def _training(source: Source, split: _Split) -> Iterator[str]:
    return (text for document in source.documents() if (text := split.divide(document)[0]))


def _held_out(sources: Sequence[Source], split: _Split) -> Iterator[str]:
    documents = chain.from_iterable(source.documents() for source in sources)
    return (text for document in documents if (text := split.divide(document)[1]))


def _survey(sources: Sequence[Source], fraction: float) -> _ByHash:
    """Find out which documents must be cut so that every source trains and something is held out.

    Raises:
        ValueError: the text is too small to be cut.
    """
    split = _ByHash(fraction)
    cut: list[str] = []
    largest_of_all, any_held_out = "", False
    for source in sources:
        trains, holds_out, largest = _look_at(source, split)
        if not trains:
            cut.append(largest)
        any_held_out |= holds_out and trains
        largest_of_all = max(largest_of_all, largest, key=len)
    if not any_held_out and not cut:
        cut.append(largest_of_all)
    for document in cut:
        if not 0 < _place_to_cut(document, fraction) < len(document):
            raise ValueError(
                f"the largest document has {len(document)} characters, too few to hold a part out: "
                f"use more text, or give held_out_sources"
            )
    return replace(split, cut=frozenset(map(_digest, cut)))


def _look_at(source: Source, split: _ByHash) -> tuple[bool, bool, str]:
    """(some document trains, some is held out, the largest seen); reads no further than needed to know both."""
    trains, holds_out, largest = False, False, ""
    for document in source.documents():
        training, held_out = split.divide(document)
        trains, holds_out = trains or bool(training), holds_out or bool(held_out)
        largest = max(largest, document, key=len)
        if trains and holds_out:
            break
    return trains, holds_out, largest


def _place_to_cut(document: str, fraction: float) -> int:
    """The start of the part held out: about `fraction` of the document, some rows at least, half of it at most.

    It is the beginning of a line if there is one to be found before the end.
    """
    size = max(int(len(document) * fraction), min(_LEAST_HELD_OUT, len(document) // 2))
    place = len(document) - size
    line = document.find("\n", place, len(document) - 1)
    return place if line < 0 else line + 1


def _digest(document: str) -> str:
    return hashlib.sha256(document.encode("utf-8", errors="surrogatepass")).hexdigest()


# --- fingerprint --------------------------------------------------------------------------------------------------


def _fingerprint(config: CorpusConfig, sources: Sequence[Source]) -> str:
    """Over all that decides the result: the configuration save `workers`, and the state of the files."""
    files = [file for source in sources if not holds_tokens(source) for file in source.files()]
    if config.tokenizer is not None:
        path = Path(config.tokenizer)
        files += sorted(path.glob("tokenizer*.json")) if path.is_dir() else [path]
    content = [
        _FORMAT,
        fingerprint(replace(config, workers=1)),
        [file_state(file) for file in files],
        [sys.version, sysconfig.get_path("stdlib")] if any(s.path == "stdlib" for s in sources) else [],
    ]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
