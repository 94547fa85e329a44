import json
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from illada.data.corpus import Corpus, CorpusConfig, prepare
from illada.data.datatrove import DatatroveShards
from illada.data.loader import Loader
from illada.data.packing import PackedRows, PackingConfig
from illada.data.shards import TokenShards, write_shards
from illada.data.sources import Source, parse_source
from illada.data.tokenized import holds_tokens, open_tokens
from illada.data.tokenizer import Tokenizer

TEXTS = [f"Document number {number} speaks of {'words and ' * (number % 9)}things.\n" for number in range(200)]
TOKENIZER = Tokenizer.train(TEXTS, 300)


def write_datatrove(folder: Path, texts: list[str], *, name: str = "00000.ds") -> None:
    """The files of a pipeline, by our own shards: tokens are written alike, ends are offsets without the first."""
    write_shards(texts, TOKENIZER, folder / "own", shard_bytes=2**30)
    (folder / "own" / "00000.tokens").rename(folder / name)
    (folder / f"{name}.index").write_bytes((folder / "own" / "00000.offsets").read_bytes()[8:])
    for left in (folder / "own").iterdir():
        left.unlink()
    (folder / "own").rmdir()


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    """`own`, `train` and `valid` of datatrove, `tokenizer`."""
    folder = tmp_path_factory.mktemp("shards")
    write_shards(TEXTS, TOKENIZER, folder / "own")
    write_datatrove(folder / "train", TEXTS[:180])
    write_datatrove(folder / "valid", TEXTS[180:])
    TOKENIZER.save(folder / "tokenizer")
    return folder


@pytest.fixture
def store(shards):
    """The same in an object store."""
    fsspec.filesystem("memory").put(f"{shards}/", "/bucket/", recursive=True)
    yield "memory://bucket"
    MemoryFileSystem.store.clear()


def prepared(shards: Path, cache: Path, *sources: str, apart: tuple[str, ...], **settings: object) -> Corpus:
    config = CorpusConfig(
        sources=sources, held_out_sources=apart, tokenizer=str(shards / "tokenizer"), workers=1, **settings
    )
    return prepare(config, cache)


def tokens_of(texts: list[str]) -> list[int]:
    specials = TOKENIZER.specials
    return [token for text in texts for token in (specials.bos, *TOKENIZER.encode(text), specials.eos)]


# --- what is opened -----------------------------------------------------------------------------------------------


def test_the_prefix_tells_tokens_from_text():
    assert holds_tokens(parse_source("tokens:s3://bucket/web,weight=0.3"))
    assert not holds_tokens(parse_source("s3://bucket/tokens"))


@pytest.mark.parametrize(("name", "kind"), [("own", TokenShards), ("train", DatatroveShards)])
def test_the_files_tell_which_shards_they_are(shards, store, name, kind):
    for location in (shards / name, f"{store}/{name}"):
        opened = open_tokens(Source(path=f"tokens:{location}"), TOKENIZER)
        assert type(opened) is kind
        assert opened.read(0, 50).tolist() == tokens_of(TEXTS)[:50]


def test_the_pattern_chooses_among_token_files(tmp_path):
    write_datatrove(tmp_path, TEXTS[:50], name="web-0.ds")
    write_datatrove(tmp_path, TEXTS[50:], name="books-0.ds")
    both, books = (parse_source(f"tokens:{tmp_path}{glob}") for glob in ("", ",glob=books*.ds"))
    assert len(open_tokens(both, TOKENIZER)) == len(tokens_of(TEXTS))
    assert open_tokens(books, TOKENIZER).read(0, 20).tolist() == tokens_of(TEXTS[50:])[:20]


# --- as a corpus --------------------------------------------------------------------------------------------------


def test_tokens_are_trained_on_and_held_out_where_they_lie(shards, tmp_path):
    lines: list[str] = []
    config = CorpusConfig(
        sources=(f"tokens:{shards}/train",),
        held_out_sources=(f"tokens:{shards}/valid",),
        tokenizer=str(shards / "tokenizer"),
    )
    corpus = prepare(config, tmp_path / "cache", report=lines.append)
    (train, weight), held_out = corpus.train[0], corpus.held_out
    assert weight == 1.0
    assert train.read(0, len(train)).tolist() == tokens_of(TEXTS[:180])
    assert held_out.read(0, len(held_out)).tolist() == tokens_of(TEXTS[180:])
    assert held_out.bytes_per_token == pytest.approx(len("".join(TEXTS[180:])) / len(tokens_of(TEXTS[180:])))
    assert corpus.tokenizer.fingerprint == TOKENIZER.fingerprint
    assert sorted(path.name for path in corpus.folder.iterdir()) == ["corpus.json", "tokenizer"], "nothing is copied"
    assert f"train-0: {len(train):,} tokens in {shards}/train" in lines


def test_tokens_mix_with_text_and_text_may_be_held_out(shards, tmp_path):
    text, valid = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    text.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS[:30]))
    valid.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS[30:50]))
    sources = (f"tokens:{shards}/own,weight=3", str(text))
    corpus = prepared(shards, tmp_path / "cache", *sources, apart=(str(valid),))
    (own, own_weight), (written, weight) = corpus.train
    assert (own_weight, weight) == (3.0, 1.0)
    assert own.read(0, len(own)).tolist() == tokens_of(TEXTS)
    assert written.read(0, len(written)).tolist() == tokens_of(TEXTS[:30])
    assert corpus.held_out.read(0, len(corpus.held_out)).tolist() == tokens_of(TEXTS[30:50])


def test_a_corpus_in_a_store_gives_the_batches_of_the_one_on_the_disk(shards, store, tmp_path):
    batches = []
    for root in (str(shards), store):
        corpus = prepared(shards, tmp_path / "cache", f"tokens:{root}/train", apart=(f"tokens:{root}/valid",))
        rows = [
            (PackedRows(tokens, PackingConfig(length=32), seed=1, pad=0), weight) for tokens, weight in corpus.train
        ]
        batches.append(Loader(rows, seed=1, readers=4).next(64))
    assert batches[0].tokens.tolist() == batches[1].tokens.tolist()
    assert batches[0].segments.tolist() == batches[1].segments.tolist()


def test_a_run_begins_without_reading_a_corpus_through(shards, tmp_path, monkeypatch):
    """From the command to the first batch: as many bytes of a corpus of sixty files as of one of two."""
    answered: list[int] = []
    real = MemoryFileSystem.cat_file

    def counted(self, *args, **kwargs):
        answer = real(self, *args, **kwargs)
        answered.append(len(answer))
        return answer

    write_datatrove(tmp_path / "file", TEXTS * 5)
    memory, read = fsspec.filesystem("memory"), {}
    for count in (2, 60):
        for number in range(count):
            for ending in ("", ".index"):
                memory.pipe(f"/{count}/{number:03}.ds{ending}", (tmp_path / "file" / f"00000.ds{ending}").read_bytes())
        with monkeypatch.context() as patch:
            patch.setattr(MemoryFileSystem, "cat_file", counted)
            answered.clear()
            source = f"tokens:memory://{count}"
            corpus = prepared(shards, tmp_path / "cache", source, apart=(f"tokens:{shards}/valid",))
            rows = PackedRows(corpus.train[0][0], PackingConfig(length=32), seed=1, pad=0)
            loader = Loader([(rows, 1.0)], seed=1)
            loader.next(2, rank=1, world=2)
            loader._background.shutdown()  # one row and the next, which is read ahead
            read[count] = sum(answered)
    assert len(corpus.train[0][0]) > 1_000_000
    assert read[60] < read[2] + 200, "the rows may lie in files of their own, whose ends are looked at"
    assert read[2] < 1500
    MemoryFileSystem.store.clear()


# --- what is refused, before anything is written ------------------------------------------------------------------


def test_tokens_need_the_tokenizer_that_wrote_them(shards, tmp_path):
    config = CorpusConfig(sources=(f"tokens:{shards}/train",), held_out_sources=(f"tokens:{shards}/valid",))
    with pytest.raises(ValueError, match=r"tokens:.*/train holds tokens: name the tokenizer .* \(corpus.tokenizer\)"):
        prepare(config, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_what_is_held_out_must_be_named(shards, tmp_path):
    with pytest.raises(
        ValueError, match=r"nothing is held out of tokens:.*/own: name what is \(corpus.held_out_sources"
    ):
        prepared(shards, tmp_path / "cache", f"tokens:{shards}/own", apart=())


def test_held_out_tokens_stand_alone(shards, tmp_path):
    apart = (f"tokens:{shards}/valid", f"tokens:{shards}/own")
    with pytest.raises(ValueError, match=r"there are 2 held_out_sources, but token shards .* stand alone"):
        prepared(shards, tmp_path / "cache", f"tokens:{shards}/train", apart=apart)


@pytest.mark.parametrize("place", ["train", "held out"])
def test_shards_that_are_not_there_are_refused_at_once(shards, tmp_path, place):
    sources = {"train": f"tokens:{shards}/train", "held out": f"tokens:{shards}/valid"} | {place: "tokens:nowhere"}
    with pytest.raises(FileNotFoundError, match="there is no folder nowhere"):
        prepared(shards, tmp_path / "cache", sources["train"], apart=(sources["held out"],))
    assert not (tmp_path / "cache").exists()


def test_shards_of_another_tokenizer_are_refused_at_once(shards, tmp_path):
    Tokenizer.train(["another"], 300).save(tmp_path / "other")
    config = CorpusConfig(
        sources=(f"tokens:{shards}/own",), held_out_sources=("stdlib",), tokenizer=str(tmp_path / "other")
    )
    with pytest.raises(ValueError, match="were written by another tokenizer"):
        prepare(config, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()
