import gzip
import hashlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import zstandard

from illada.data.corpus import Corpus, CorpusConfig, prepare
from illada.data.packing import PackedRows, PackingConfig
from illada.data.shards import TokenShards
from illada.data.tokenizer import Tokenizer

SHARED = Path(__file__).parents[3] / "shared"
LIBRARY_FILES = 60


@pytest.fixture(scope="module")
def library(tmp_path_factory) -> Path:
    """Real text: some modules of the standard library."""
    folder = tmp_path_factory.mktemp("library")
    modules = sorted(Path(sysconfig.get_path("stdlib")).glob("[a-f]*.py"))[:LIBRARY_FILES]
    for module in modules:
        shutil.copy(module, folder)
    return folder


def config_for(*paths: Path | str, **settings: object) -> CorpusConfig:
    defaults = {"vocab_size": 400, "workers": 1, "held_out_fraction": 0.1}
    return CorpusConfig(sources=tuple(map(str, paths)), **(defaults | settings))


def documents_of(corpus: Corpus, shards: TokenShards) -> list[str]:
    """The text of every document, read back from its tokens."""
    starts = [*shards.document_starts(0, len(shards)).tolist(), len(shards)]
    return [corpus.tokenizer.decode(shards.read(start, end - start).tolist()) for start, end in pairwise(starts)]


def is_held_out(text: str, fraction: float) -> bool:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") < fraction * 2**32


def lines_file(file: Path, texts: list[str]) -> Path:
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return file


TEXTS = [f"Document number {number} speaks of {'words and ' * (number % 5)}things.\n" for number in range(300)]


# --- the whole way ------------------------------------------------------------------------------------------------


def test_real_files_become_tokenizer_training_and_held_out_shards(library, tmp_path):
    lines: list[str] = []
    corpus = prepare(config_for(library, held_out_fraction=0.2), tmp_path, report=lines.append)
    files = [file.read_text() for file in sorted(library.iterdir()) if file.read_text()]
    (train, weight), *others = corpus.train
    assert (weight, others) == (1.0, [])
    assert documents_of(corpus, train) == [text for text in files if not is_held_out(text, 0.2)]
    assert documents_of(corpus, corpus.held_out) == [text for text in files if is_held_out(text, 0.2)]
    assert corpus.tokenizer.vocab_size == 400
    assert len(train) < train.manifest.bytes / 1.5, "the merges fit the text"
    assert [line.partition(":")[0] for line in lines] == ["tokenizer", "train-0", "held-out"]
    rows = PackedRows(train, PackingConfig(length=64), seed=0, pad=corpus.tokenizer.specials.pad)
    assert len(rows.read(0, example=0, epoch=0)[0]) == 64


def test_the_number_of_workers_changes_no_byte_and_no_name(library, tmp_path):
    one = prepare(config_for(library, workers=1), tmp_path / "one")
    two = prepare(config_for(library, workers=2), tmp_path / "two")
    assert one.folder.name == two.folder.name
    for file in ("train-0/manifest.json", "held-out/manifest.json", "tokenizer/tokenizer.json"):
        assert (one.folder / file).read_bytes() == (two.folder / file).read_bytes()


def test_sources_of_every_kind_mix_with_their_weights(tmp_path):
    inputs = tmp_path / "inputs"
    inputs.mkdir()
    lines = "".join(json.dumps({"text": text}) + "\n" for text in TEXTS).encode()
    (inputs / "a.jsonl.gz").write_bytes(gzip.compress(lines))
    (inputs / "b.jsonl.zst").write_bytes(zstandard.compress(lines))
    pyarrow.parquet.write_table(pyarrow.table({"body": TEXTS}), inputs / "c.parquet")
    (inputs / "d.txt").write_text("".join(TEXTS))
    specs = [
        f"{inputs / 'a.jsonl.gz'},weight=3",
        f"{inputs / 'b.jsonl.zst'},weight=0.5",
        f"{inputs / 'c.parquet'},field=body",
        str(inputs / "d.txt"),
    ]
    corpus = prepare(config_for(*specs), tmp_path / "out")
    assert [weight for _, weight in corpus.train] == [3.0, 0.5, 1.0, 1.0]
    trained = [documents_of(corpus, shards) for shards, _ in corpus.train]
    assert trained[0] == trained[1] == trained[2] == [text for text in TEXTS if not is_held_out(text, 0.1)]
    held_out = documents_of(corpus, corpus.held_out)
    assert [held_out.count(text) for text in TEXTS] == [3 if is_held_out(text, 0.1) else 0 for text in TEXTS]


def test_the_tokenizer_learns_from_the_training_part_only(tmp_path):
    train = lines_file(tmp_path / "train.jsonl", ["aaaa bbbb " * 20] * 3)
    held_out = lines_file(tmp_path / "held.jsonl", ["zzzz " * 200])
    corpus = prepare(config_for(train, held_out_sources=(str(held_out),)), tmp_path / "out")
    assert len(corpus.tokenizer.encode("aaaa")) == 1
    assert len(corpus.tokenizer.encode("zzzz")) == 4


def test_a_given_tokenizer_is_used_as_it_is(tmp_path):
    own = Tokenizer.train(TEXTS, 300)
    own.save(tmp_path / "own")
    file = lines_file(tmp_path / "a.jsonl", TEXTS)
    corpus = prepare(config_for(file, tokenizer=str(tmp_path / "own"), vocab_size=1), tmp_path / "out")
    assert corpus.tokenizer.fingerprint == own.fingerprint


# --- what is held out ---------------------------------------------------------------------------------------------


def test_what_is_held_out_does_not_depend_on_order_and_copies_stay_on_one_side(tmp_path):
    forward = lines_file(tmp_path / "a.jsonl", TEXTS + TEXTS[::3])
    backward = lines_file(tmp_path / "b.jsonl", TEXTS[::-1])
    one = prepare(config_for(forward), tmp_path / "out")
    two = prepare(config_for(backward), tmp_path / "out")
    held_out = set(documents_of(one, one.held_out))
    assert held_out == set(documents_of(two, two.held_out))
    assert held_out.isdisjoint(documents_of(one, one.train[0][0]))
    assert 10 < len(held_out) < 60


def test_held_out_sources_are_held_out_whole_and_nothing_else_is(tmp_path):
    train = lines_file(tmp_path / "train.jsonl", TEXTS[:200])
    apart = lines_file(tmp_path / "apart.jsonl", TEXTS[200:])
    corpus = prepare(config_for(train, held_out_sources=(str(apart),)), tmp_path / "out")
    assert documents_of(corpus, corpus.train[0][0]) == TEXTS[:200]
    assert documents_of(corpus, corpus.held_out) == TEXTS[200:]


def test_a_single_file_is_cut_at_a_line(tmp_path):
    text = "".join(TEXTS)
    (tmp_path / "a.txt").write_text(text)
    corpus = prepare(config_for(tmp_path / "a.txt", held_out_fraction=0.4), tmp_path / "out")
    (train,) = documents_of(corpus, corpus.train[0][0])
    (held_out,) = documents_of(corpus, corpus.held_out)
    assert train + held_out == text
    assert train.endswith("\n")
    assert abs(len(held_out) - 0.4 * len(text)) < 100


def test_a_small_file_holds_out_some_rows_though_the_fraction_is_less(tmp_path):
    (tmp_path / "a.txt").write_text("".join(TEXTS))
    corpus = prepare(config_for(tmp_path / "a.txt", held_out_fraction=0.001), tmp_path / "out")
    (held_out,) = documents_of(corpus, corpus.held_out)
    assert 3500 < len(held_out) <= 4096


def test_a_file_of_one_line_is_cut_in_it(tmp_path):
    (tmp_path / "a.txt").write_text("x y " * 50 + "\n")
    corpus = prepare(config_for(tmp_path / "a.txt"), tmp_path / "out")
    assert len(documents_of(corpus, corpus.train[0][0])[0]) == 101
    assert len(documents_of(corpus, corpus.held_out)[0]) == 100


def documents_by_side(fraction: float, *, held_out: int, trained: int) -> list[str]:
    """Documents chosen so that the hash puts this many of them on each side."""
    texts = [f"text {number}\n" + "some words follow\n" * (number % 40 + 10) for number in range(2000)]
    sides = [is_held_out(text, fraction) for text in texts]
    chosen = [text for text, side in zip(texts, sides, strict=True) if side][:held_out]
    return chosen + [text for text, side in zip(texts, sides, strict=True) if not side][:trained]


def test_a_source_that_would_be_held_out_whole_has_its_largest_document_cut(tmp_path):
    texts = documents_by_side(0.1, held_out=3, trained=0)
    corpus = prepare(config_for(lines_file(tmp_path / "a.jsonl", texts)), tmp_path / "out")
    (trained,) = documents_of(corpus, corpus.train[0][0])
    held_out = documents_of(corpus, corpus.held_out)
    largest = max(texts, key=len)
    assert largest.startswith(trained)
    assert [trained + text if largest.endswith(text) else text for text in held_out] == texts


def test_documents_that_would_all_be_trained_on_lose_the_end_of_the_largest(tmp_path):
    texts = documents_by_side(0.1, held_out=0, trained=4)
    one = lines_file(tmp_path / "a.jsonl", texts[:2])
    two = lines_file(tmp_path / "b.jsonl", texts[2:])
    corpus = prepare(config_for(one, two), tmp_path / "out")
    (end,) = documents_of(corpus, corpus.held_out)
    trained = [text for shards, _ in corpus.train for text in documents_of(corpus, shards)]
    largest = max(texts, key=len)
    assert [text + end if text + end == largest else text for text in trained] == texts


def test_only_the_source_that_would_not_train_is_cut(tmp_path):
    paths = [
        lines_file(tmp_path / "a.jsonl", documents_by_side(0.1, held_out=1, trained=0)),
        lines_file(tmp_path / "b.jsonl", documents_by_side(0.1, held_out=0, trained=30)),
    ]
    corpus = prepare(config_for(*paths), tmp_path / "out")
    assert documents_of(corpus, corpus.train[1][0]) == documents_by_side(0.1, held_out=0, trained=30)
    assert len(documents_of(corpus, corpus.held_out)) == 1


def test_one_source_may_give_all_that_is_held_out(tmp_path):
    trained_only = documents_by_side(0.1, held_out=0, trained=2)
    both = documents_by_side(0.1, held_out=2, trained=5)[:5]
    paths = [lines_file(tmp_path / "a.jsonl", trained_only), lines_file(tmp_path / "b.jsonl", both)]
    corpus = prepare(config_for(*paths), tmp_path / "out")
    assert documents_of(corpus, corpus.train[0][0]) == trained_only
    assert documents_of(corpus, corpus.train[1][0]) == both[2:]
    assert documents_of(corpus, corpus.held_out) == both[:2]


def test_a_text_too_small_to_be_cut_is_refused(tmp_path):
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(ValueError, match="the largest document has 1 characters, too few"):
        prepare(config_for(tmp_path / "a.txt"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


# --- preparing once -----------------------------------------------------------------------------------------------


def test_what_was_prepared_is_opened_again(tmp_path):
    file = lines_file(tmp_path / "a.jsonl", TEXTS)
    first = prepare(config_for(file), tmp_path / "out")
    state = {path: path.stat().st_mtime_ns for path in first.folder.rglob("*")}
    lines: list[str] = []
    second = prepare(config_for(file, workers=2), tmp_path / "out", report=lines.append)
    assert lines == [f"corpus: prepared before, in {first.folder}"]
    assert {path: path.stat().st_mtime_ns for path in first.folder.rglob("*")} == state
    assert second.held_out.manifest == first.held_out.manifest
    assert [path.name for path in (tmp_path / "out").iterdir()] == [first.folder.name]


def test_changed_input_or_configuration_is_prepared_beside_the_old(tmp_path):
    file = lines_file(tmp_path / "a.jsonl", TEXTS)
    config = config_for(file)
    folders = {prepare(config, tmp_path / "out").folder}
    folders.add(prepare(replace(config, vocab_size=401), tmp_path / "out").folder)
    folders.add(prepare(replace(config, sources=(f"{file},weight=2",)), tmp_path / "out").folder)
    os.utime(file, ns=(1, 1))
    folders.add(prepare(config, tmp_path / "out").folder)
    assert len(folders) == len(list((tmp_path / "out").iterdir())) == 4
    assert all(len(folder.name) == 12 for folder in folders)


def test_a_changed_tokenizer_is_prepared_anew(tmp_path):
    file = lines_file(tmp_path / "a.jsonl", TEXTS)
    config = config_for(file, tokenizer=str(tmp_path / "own"))
    Tokenizer.train(TEXTS, 300).save(tmp_path / "own")
    first = prepare(config, tmp_path / "out")
    Tokenizer.train(TEXTS, 280).save(tmp_path / "own")
    assert prepare(config, tmp_path / "out").tokenizer.vocab_size == 280
    assert prepare(config, tmp_path / "out").folder != first.folder


def test_a_prepared_folder_that_lost_its_record_is_refused(tmp_path):
    config = config_for(lines_file(tmp_path / "a.jsonl", TEXTS))
    folder = prepare(config, tmp_path / "out").folder
    (folder / "corpus.json").write_text("{")
    with pytest.raises(ValueError, match=f"{folder} is not a complete prepared corpus: delete it"):
        prepare(config, tmp_path / "out")


def test_an_altered_shard_of_a_prepared_folder_is_refused_where_it_is_read(tmp_path):
    config = config_for(lines_file(tmp_path / "a.jsonl", TEXTS))
    tokens = prepare(config, tmp_path / "out").folder / "train-0" / "00000.tokens"
    tokens.write_bytes(tokens.read_bytes()[:-1] + b"\xff")
    train = prepare(config, tmp_path / "out").train[0][0]
    with pytest.raises(ValueError, match=r"00000\.tokens was altered"):
        train.read(0, len(train))


def test_an_error_on_the_way_leaves_nothing(tmp_path):
    file = lines_file(tmp_path / "a.jsonl", TEXTS)
    file.write_text(file.read_text() + "nonsense\n")
    with pytest.raises(ValueError, match=r"a\.jsonl, line 301 is not valid JSON"):
        prepare(config_for(file), tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_corpus_that_another_process_prepared_meanwhile_is_opened(tmp_path):
    """The report of the first step is the moment in which the other process is faster."""
    file = lines_file(tmp_path / "a.jsonl", TEXTS)
    lines: list[str] = []

    def report(line: str) -> None:
        lines.append(line)
        if len(lines) == 1:
            script = (
                "import sys\nfrom pathlib import Path\nfrom illada.data.corpus import CorpusConfig, prepare\n"
                f"prepare(CorpusConfig(sources=({str(file)!r},), vocab_size=400, held_out_fraction=0.1),"
                f" Path({str(tmp_path / 'out')!r}))"
            )
            subprocess.run([sys.executable, "-c", script], check=True)

    corpus = prepare(config_for(file), tmp_path / "out", report=report)
    assert lines[-1] == f"corpus: another process prepared {corpus.folder} meanwhile"
    assert [path.name for path in (tmp_path / "out").iterdir()] == [corpus.folder.name]


# --- what is refused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sources": ()}, "0 sources"),
        ({"held_out_fraction": 0.0}, "held_out_fraction is 0.0"),
        ({"held_out_fraction": 1.0}, "held_out_fraction is 1.0"),
        ({"vocab_size": 100}, "vocab_size is 100, .* at least 263"),
        ({"workers": 0}, "workers is 0"),
    ],
)
def test_a_configuration_out_of_range_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        CorpusConfig(**settings)


def test_every_source_is_checked_before_any_work(tmp_path):
    good = lines_file(tmp_path / "a.jsonl", TEXTS)
    for config in (
        config_for(good, tmp_path / "missing.txt"),
        config_for(good, held_out_sources=(str(tmp_path / "missing.txt"),)),
        config_for(good, tokenizer=str(tmp_path / "missing.txt")),
    ):
        with pytest.raises(FileNotFoundError, match=r"missing\.txt"):
            prepare(config, tmp_path / "out")
    with pytest.raises(ValueError, match="unknown key 'wieght'"):
        prepare(config_for(f"{good},wieght=2"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


# --- texts that may be on this machine ----------------------------------------------------------------------------


def test_a_large_text_file_and_a_published_tokenizer_make_a_corpus(tmp_path):
    text, tokenizer = SHARED / "data" / "corpus" / "tinyshakespeare.txt", SHARED / "data" / "tokenizers" / "gpt2"
    if not (text.is_file() and tokenizer.is_dir()):
        pytest.skip("the text or the tokenizer is not on this machine")
    corpus = prepare(CorpusConfig(sources=(str(text),), tokenizer=str(tokenizer)), tmp_path)
    (train, _), held_out = corpus.train[0], corpus.held_out
    whole = text.read_text()
    assert documents_of(corpus, train) + documents_of(corpus, held_out) == [
        whole[: -(held_out.manifest.bytes)],
        whole[-(held_out.manifest.bytes) :],
    ]
    assert held_out.manifest.bytes == pytest.approx(0.02 * len(whole), rel=0.02)
