"""The example pipeline runs on the local executor, and what it writes is the token stream of our own writer."""

import json
import os
import random
import subprocess
import sys
from collections import Counter
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import pytest

from illada.cli.main import main
from illada.data.datatrove import DatatroveShards
from illada.data.shards import TokenShards, write_shards
from illada.data.tokenizer import Tokenizer

MISSING = [name for name in ("datatrove", "orjson", "regex") if find_spec(name) is None]
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)} (extra datatrove)")

SCRIPT = Path(__file__).parents[2] / "examples" / "datatrove" / "pipeline.py"
DRAW = random.Random(0)
WORDS = ["".join(DRAW.choices("abcdefghijklmnopqrstuvwxyzé", k=DRAW.randint(2, 8))) for _ in range(500)]
KEPT = [" ".join(DRAW.choices(WORDS, k=DRAW.randint(40, 90))) + " [EOS] and [MASK]" for _ in range(60)]
DROPPED = ["too short", "1 2 3 4 5 6 7 8 9 " * 20, f"{KEPT[3]} nearly the same"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """The folder in which the pipeline ran, on two files of texts."""
    folder = tmp_path_factory.mktemp("pipeline")
    (folder / "texts").mkdir()
    for name, texts in (("a", KEPT[:30]), ("b", [*KEPT[30:], *DROPPED])):
        lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
        (folder / "texts" / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    options = ["--keep-order", "--tasks", "2", "--workers", "1", "--vocab-size", "400", "--held-out", "0.1"]
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "texts", *options],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.fixture(scope="module")
def tokenizer(finished) -> Tokenizer:
    return Tokenizer.load(finished / "shards" / "tokenizer")


def documents_of(shards, tokenizer) -> list[str]:
    starts = [*shards.document_starts(0, len(shards)).tolist(), len(shards)]
    return [tokenizer.decode(shards.read(start, end - start).tolist()) for start, end in pairwise(starts)]


def read_whole(folder, tokenizer):
    shards = DatatroveShards.open(folder, tokenizer=tokenizer)
    return shards.read(0, len(shards))


def test_what_is_short_or_no_prose_or_nearly_twice_there_is_dropped(finished, tokenizer):
    parts = [DatatroveShards.open(finished / "shards" / part, tokenizer=tokenizer) for part in ("train", "valid")]
    texts = [text for part in parts for text in documents_of(part, tokenizer)]
    twins = {KEPT[3], DROPPED[2]}
    assert len(twins & set(texts)) == 1, "one of two near-duplicates stays"
    assert Counter(texts) - Counter(twins) == Counter(text for text in KEPT if text != KEPT[3])


@pytest.mark.parametrize("part", ["train", "valid"])
def test_the_stream_is_that_of_our_own_writer(finished, tokenizer, tmp_path, part):
    theirs = DatatroveShards.open(finished / "shards" / part, tokenizer=tokenizer)
    kept = set(documents_of(theirs, tokenizer))
    write_shards([text for text in [*KEPT, *DROPPED] if text in kept], tokenizer, tmp_path / "own", shard_bytes=5000)
    ours = TokenShards.open(tmp_path / "own", tokenizer=tokenizer)
    assert len(kept) >= (2 if part == "valid" else 40)
    assert theirs.read(0, len(theirs)).tolist() == ours.read(0, len(ours)).tolist()
    assert theirs.document_starts(0, len(theirs)).tolist() == ours.document_starts(0, len(ours)).tolist()


def test_every_file_of_tokens_has_its_checksums(finished, tokenizer):
    files = [file for file in (finished / "shards" / "train").glob("*.ds") if file.stat().st_size]
    assert files
    for file in files:
        assert file.with_name(f"{file.name}.sums").is_file()
        content = file.read_bytes()
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        with pytest.raises(ValueError, match=f"{file.name} was altered"):
            read_whole(finished / "shards" / "train", tokenizer)
        file.write_bytes(content)


def test_the_shards_train(finished, tmp_path, monkeypatch):
    """The command that the example names, in small."""
    monkeypatch.chdir(finished)
    command = SCRIPT.read_text(encoding="utf-8").partition("    illada pretrain")[2].partition("\n\n")[0]
    words = command.replace("\\", "").split()
    words[words.index("runs/shards")] = str(tmp_path / "run")
    small = ["--steps", "3", "--packing.length", "32", "--model.layers", "1", "--cache", str(tmp_path / "cache")]
    assert main(["pretrain", *words, *small]) == 0
    last = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["step"] == 3
    assert 0 < last["held_out/bits_per_byte"] < 20
