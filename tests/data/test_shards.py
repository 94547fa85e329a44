import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import given, settings
from hypothesis import strategies as st

from illada.config import from_json
from illada.data.shards import Manifest, TokenShards, write_shards
from illada.data.tokenizer import Tokenizer
from illada.durable import atomic_folder

DOCUMENTS = [f"document {number}: " + "word " * (number * 7 % 23) + "é" * (number % 3) for number in range(120)]
TOKENIZER = Tokenizer.train(DOCUMENTS, 300)


def naive_tokens(tokenizer: Tokenizer, documents: list[str]) -> list[int]:
    specials = tokenizer.specials
    return [token for text in documents for token in (specials.bos, *tokenizer.encode(text), specials.eos)]


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("shards") / "many"
    write_shards(DOCUMENTS, TOKENIZER, folder, shard_bytes=1000)
    return folder


@pytest.fixture
def altered(written, tmp_path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(written, tmp_path / "copy"))


# --- what is written ----------------------------------------------------------------------------------------------


def test_documents_follow_one_another_between_bos_and_eos(written):
    shards = TokenShards.open(written, tokenizer=TOKENIZER)
    expected = naive_tokens(TOKENIZER, DOCUMENTS)
    assert shards.read(0, len(shards)).tolist() == expected
    assert len(shards) == len(expected)


def test_the_manifest_counts_documents_tokens_and_bytes(written):
    manifest = TokenShards.open(written).manifest
    assert manifest == from_json(Manifest, (written / "manifest.json").read_text())
    assert manifest.documents == len(DOCUMENTS)
    assert manifest.bytes == sum(len(text.encode()) for text in DOCUMENTS)
    assert manifest.tokenizer == TOKENIZER.fingerprint
    assert len(manifest.shards) > 3
    assert [shard.name for shard in manifest.shards][:2] == ["00000", "00001"]


def test_the_files_are_little_endian_uint16_and_document_offsets(written):
    raw = np.fromfile(written / "00000.tokens", dtype="<u2")
    offsets = np.fromfile(written / "00000.offsets", dtype="<i8")
    first = naive_tokens(TOKENIZER, DOCUMENTS[:1])
    assert raw[: len(first)].tolist() == first
    assert offsets[:2].tolist() == [0, len(first)]
    assert offsets[-1] == len(raw)


def test_each_shard_holds_about_the_text_asked_for(written):
    sizes = [shard.bytes for shard in TokenShards.open(written).manifest.shards]
    longest = max(len(text.encode()) for text in DOCUMENTS)
    assert all(1000 <= size < 1000 + longest for size in sizes[:-1])


def test_a_large_vocabulary_is_written_as_uint32(tmp_path):
    backend = json.loads(TOKENIZER._backend.to_str())
    vocabulary = backend["model"]["vocab"]
    vocabulary |= {f"filler {number}": len(vocabulary) + number for number in range(2**16)}
    TOKENIZER.save(tmp_path / "large")
    (tmp_path / "large" / "tokenizer.json").write_text(json.dumps(backend))
    large = Tokenizer.load(tmp_path / "large")
    write_shards(DOCUMENTS[:5], large, tmp_path / "shards")
    shards = TokenShards.open(tmp_path / "shards", tokenizer=large)
    assert shards.manifest.dtype == "uint32"
    assert (tmp_path / "shards" / "00000.tokens").stat().st_size == 4 * len(shards)
    assert shards.read(0, len(shards)).tolist() == naive_tokens(large, DOCUMENTS[:5])


def test_several_processes_write_the_same_bytes(written, tmp_path):
    write_shards(iter(DOCUMENTS), TOKENIZER, tmp_path / "two", workers=2, shard_bytes=1000)
    assert contents(tmp_path / "two") == contents(written)


def test_no_document_at_all_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no document to write"):
        write_shards([], TOKENIZER, tmp_path / "none")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("workers", "shard_bytes"), [(0, 10), (1, 0)])
def test_numbers_must_be_positive(tmp_path, workers, shard_bytes):
    with pytest.raises(ValueError, match=f"are {workers} and {shard_bytes}"):
        write_shards(DOCUMENTS, TOKENIZER, tmp_path / "x", workers=workers, shard_bytes=shard_bytes)


# --- all or nothing -----------------------------------------------------------------------------------------------


def test_an_existing_folder_is_not_overwritten(altered):
    before = contents(altered)
    with pytest.raises(FileExistsError, match="exists already: choose another folder, or delete it"):
        write_shards(DOCUMENTS, TOKENIZER, altered)
    assert contents(altered) == before


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_on_the_way_leaves_nothing(tmp_path, workers):
    def documents():
        yield from DOCUMENTS
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        write_shards(documents(), TOKENIZER, tmp_path / "x", workers=workers, shard_bytes=500)
    assert list(tmp_path.iterdir()) == []


def test_an_error_in_a_worker_is_passed_on(tmp_path):
    """A limit on the size of files makes the operating system refuse to write on."""
    script = (
        "import resource, signal\n"
        "from pathlib import Path\n"
        "from illada.data.shards import write_shards\n"
        "from illada.data.tokenizer import Tokenizer\n"
        "if __name__ == '__main__':\n"
        "    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))\n"
        f"    texts = ['some words in a row ' * 100] * 20\n"
        f"    write_shards(texts, Tokenizer.load(Path({str(tmp_path)!r})), Path({str(tmp_path / 'x')!r}),\n"
        "                 workers=2, shard_bytes=4000)\n"
    )
    TOKENIZER.save(tmp_path)
    (tmp_path / "run.py").write_text(script)
    before = sorted(tmp_path.iterdir())
    done = subprocess.run([sys.executable, tmp_path / "run.py"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("OSError: [Errno 27]")
    assert sorted(tmp_path.iterdir()) == before


SLOW_WRITER = """
import sys, time
from pathlib import Path
from illada.data.shards import write_shards
from illada.data.tokenizer import Tokenizer

def documents():
    for number in range(10_000):
        yield f"document {number} " * 20
        time.sleep(0.002)

if __name__ == "__main__":
    folder, workers = Path(sys.argv[1]), int(sys.argv[2])
    write_shards(documents(), Tokenizer.load(folder / "tokenizer"), folder / "x", workers=workers, shard_bytes=2000)
"""


def children_of(process: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def wait_until(condition, *, seconds: float = 30.0) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "this did not happen in time"
        time.sleep(0.02)


def is_running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks for child processes under /proc")
@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_writer_leaves_nothing_that_loads_and_no_process(tmp_path, workers):
    TOKENIZER.save(tmp_path / "tokenizer")
    (tmp_path / "write.py").write_text(SLOW_WRITER)
    writer = subprocess.Popen([sys.executable, tmp_path / "write.py", tmp_path, str(workers)])
    partial = tmp_path / f".x.partial-{socket.gethostname()}-{writer.pid}"
    wait_until(lambda: (partial / "00002.tokens").exists())
    children = children_of(writer.pid)
    assert len(children) >= (2 if workers == 2 else 0)
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    wait_until(lambda: not any(map(is_running, children)))
    assert partial.exists()
    for folder in (tmp_path / "x", partial):
        with pytest.raises(FileNotFoundError, match="no token shards"):
            TokenShards.open(folder)
    write_shards(DOCUMENTS, TOKENIZER, tmp_path / "x")
    assert not partial.exists()
    assert len(TokenShards.open(tmp_path / "x")) > 0


def test_living_writers_and_other_machines_keep_their_unfinished_folders(tmp_path):
    host, sleeper = socket.gethostname(), subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    names = {
        f".x.partial-{host}-{sleeper.pid}": True,
        f".x.partial-elsewhere-{gone.pid}": True,
        f".xy.partial-{host}-{gone.pid}": True,
        f".x.partial-{host}-{gone.pid}": False,
        f".x.partial-{host}-{os.getpid()}": False,
    }
    for name in names:
        (tmp_path / name).mkdir()
    write_shards(DOCUMENTS, TOKENIZER, tmp_path / "x")
    sleeper.communicate(b"\n")
    assert {name: (tmp_path / name).exists() for name in names} == names


def test_a_folder_that_appears_meanwhile_is_not_overwritten(tmp_path):
    def documents():
        yield "text"
        write_shards(["faster"], TOKENIZER, tmp_path / "y")
        (tmp_path / "y").rename(tmp_path / "x")

    with pytest.raises(FileExistsError, match="exists already"):
        write_shards(documents(), TOKENIZER, tmp_path / "x")
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
    assert TokenShards.open(tmp_path / "x").manifest.bytes == len("faster")


def test_a_folder_being_built_appears_at_the_end(tmp_path):
    with atomic_folder(tmp_path / "deep" / "x") as partial:
        (partial / "file").write_text("content")
        assert not (tmp_path / "deep" / "x").exists()
    assert (tmp_path / "deep" / "x" / "file").read_text() == "content"
    assert not partial.exists()


# --- what is refused ----------------------------------------------------------------------------------------------


def spoil(file: Path, *, cut: int = 0) -> None:
    data = bytearray(file.read_bytes())
    data[3] ^= 1
    file.write_bytes(bytes(data[: len(data) - cut]))


@pytest.mark.parametrize("name", ["00001.tokens", "00002.offsets"])
def test_a_missing_file_is_named(altered, name):
    (altered / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"{name} is missing"):
        TokenShards.open(altered)


@pytest.mark.parametrize("name", ["00001.tokens", "00002.offsets"])
def test_a_file_that_was_cut_off_is_named_even_without_checksums(altered, name):
    spoil(altered / name, cut=2)
    with pytest.raises(ValueError, match=rf"{name} has \d+ bytes instead of \d+"):
        TokenShards.open(altered, verify=False)


@pytest.mark.parametrize("name", ["00001.tokens", "00002.offsets", "00000.sums"])
def test_an_altered_file_is_named(altered, name):
    spoil(altered / name)
    with pytest.raises(ValueError, match=f"{name} was altered"):
        TokenShards.open(altered)


def test_without_verification_an_altered_shard_is_named_where_it_is_read(altered):
    whole = TokenShards.open(altered)
    border = whole.manifest.shards[0].tokens
    expected = whole.read(0, border).tolist()
    spoil(altered / "00001.tokens")
    shards = TokenShards.open(altered, verify=False)
    assert shards.read(0, border).tolist() == expected
    for start, count in ((border, 1), (border + 5, 3), (0, len(shards))):
        with pytest.raises(ValueError, match=r"copy/00001\.tokens was altered"):
            shards.read(start, count)


def test_without_verification_altered_offsets_are_named_where_documents_are_asked_for(altered):
    spoil(altered / "00001.offsets")
    shards = TokenShards.open(altered, verify=False)
    shards.read(0, len(shards))
    with pytest.raises(ValueError, match=r"00001\.offsets was altered"):
        shards.document_starts(0, len(shards))


def test_any_byte_that_changes_is_noticed(written, tmp_path):
    """Every file of the folder, two hundred bytes in all."""
    draw = random.Random(0)
    files = sorted(written.iterdir())
    for number in range(200):
        copy = Path(shutil.copytree(written, tmp_path / str(number)))
        file = copy / files[number % len(files)].name
        data = bytearray(file.read_bytes())
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        file.write_bytes(bytes(data))
        with pytest.raises((ValueError, FileNotFoundError), match=re.escape(str(copy))):
            TokenShards.open(copy)
        shutil.rmtree(copy)


def test_the_identity_is_another_where_the_content_is(written, tmp_path):
    identity = TokenShards.open(written).identity
    assert TokenShards.open(Path(shutil.copytree(written, tmp_path / "copy"))).identity == identity
    write_shards([*DOCUMENTS[:-1], "another end"], TOKENIZER, tmp_path / "other", shard_bytes=1000)
    assert TokenShards.open(tmp_path / "other").identity != identity


def test_shards_of_another_tokenizer_are_refused(written):
    other = Tokenizer.train(["quite another text"], 300)
    with pytest.raises(ValueError, match=f"another tokenizer, {TOKENIZER.fingerprint[:12]}.*{other.fingerprint[:12]}"):
        TokenShards.open(written, tokenizer=other)


def test_a_folder_without_a_manifest_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"it has no manifest\.json"):
        TokenShards.open(tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"version": 2', '"version": 1', "manifest.json has format 1, but 2"),
        ('"uint16"', '"float16"', "manifest.json names the token type 'float16', not one of uint16, uint32"),
        (
            f'"documents": {len(DOCUMENTS)}',
            '"documents": 7',
            "manifest.json counts 7 documents, but its shards hold 120",
        ),
        ('"dtype"', '"type"', r"manifest.json is damaged.*dtype"),
        ("{", "", r"manifest.json is damaged"),
        ('"tokenizer": "', '"tokenizer": "0', "manifest.json was altered"),
        ('"name": "00001"', '"name": "00002"', "manifest.json was altered"),
    ],
)
def test_a_damaged_manifest_is_refused(altered, old, new, message):
    file = altered / "manifest.json"
    file.write_text(file.read_text().replace(old, new, 1))
    with pytest.raises(ValueError, match=message):
        TokenShards.open(altered)


# --- reading ------------------------------------------------------------------------------------------------------


@given(data=st.data())
@settings(max_examples=60)
def test_any_range_reads_as_it_was_written(written, data):
    shards = TokenShards.open(written, verify=False)
    start = data.draw(st.integers(0, len(shards)))
    count = data.draw(st.integers(0, len(shards) - start))
    expected = naive_tokens(TOKENIZER, DOCUMENTS)[start : start + count]
    tokens = shards.read(start, count)
    assert tokens.tolist() == expected
    assert tokens.dtype == np.int64
    starts = [number for number, token in enumerate(expected) if token == TOKENIZER.specials.bos]
    assert shards.document_starts(start, count).tolist() == starts


def test_what_was_read_can_be_changed_without_changing_the_shards(written):
    shards = TokenShards.open(written)
    shards.read(0, 5)[:] = 0
    assert shards.read(0, 5).tolist() == naive_tokens(TOKENIZER, DOCUMENTS)[:5]


@pytest.mark.parametrize(("start", "count"), [(-1, 3), (0, -1), (0, 10**9), (10**9, 0)])
def test_a_range_outside_is_refused(written, start, count):
    with pytest.raises(ValueError, match="are not inside the"):
        TokenShards.open(written).read(start, count)


# --- in an object store -------------------------------------------------------------------------------------------


class Counted:
    """The bytes and the requests that a store answers."""

    def __init__(self, monkeypatch) -> None:
        self.bytes, self.requests = 0, 0
        for name in ("cat_file", "_open", "ls"):
            monkeypatch.setattr(MemoryFileSystem, name, self._counting(getattr(MemoryFileSystem, name)))

    def _counting(self, method):
        def counted(*args, **kwargs):
            answer = method(*args, **kwargs)
            self.requests += 1
            self.bytes += len(answer) if isinstance(answer, bytes) else 0
            return answer

        return counted


@pytest.fixture
def store(monkeypatch):
    """A URL of an empty store in memory, emptied again afterwards."""
    yield "memory://bucket"
    MemoryFileSystem.store.clear()


def uploaded(folder: Path, url: str) -> str:
    fsspec.filesystem("memory").put(f"{folder}/", f"{url}/", recursive=True)
    return url


def test_a_store_reads_as_the_disk_does(written, store):
    remote = TokenShards.open(uploaded(written, f"{store}/corpus"), tokenizer=TOKENIZER)
    local = TokenShards.open(written)
    assert remote.read(0, len(local)).tolist() == local.read(0, len(local)).tolist()
    assert remote.document_starts(7, 900).tolist() == local.document_starts(7, 900).tolist()
    assert (remote.identity, remote.location) == (local.identity, "memory://bucket/corpus")


def test_an_altered_file_of_a_store_is_named(altered, store):
    spoil(altered / "00001.tokens")
    with pytest.raises(ValueError, match=r"memory://bucket/corpus/00001\.tokens was altered"):
        TokenShards.open(uploaded(altered, f"{store}/corpus"))


def test_missing_shards_of_a_store_are_named(altered, store):
    with pytest.raises(FileNotFoundError, match=r"no token shards in memory://bucket/nothing"):
        TokenShards.open(f"{store}/nothing")
    (altered / "00001.tokens").unlink()
    with pytest.raises(FileNotFoundError, match=r"memory://bucket/corpus/00001\.tokens is missing"):
        TokenShards.open(uploaded(altered, f"{store}/corpus"), verify=False)


def test_to_open_shards_takes_the_manifest_however_long_they_are(tmp_path, store, monkeypatch):
    """No byte of the tokens is read, and a row later reads two blocks at most, with the checksums of its shard."""
    read = {}
    for factor in (1, 40):
        write_shards(DOCUMENTS * factor, TOKENIZER, tmp_path / str(factor), shard_bytes=2**30)
        uploaded(tmp_path / str(factor), f"{store}/{factor}")
        manifest = (tmp_path / str(factor) / "manifest.json").stat().st_size
        with monkeypatch.context() as patch:
            counted = Counted(patch)
            shards = TokenShards.open(f"{store}/{factor}", tokenizer=TOKENIZER, verify=False)
            assert counted.bytes == manifest
            read[factor] = counted.requests
            shards.read(len(shards) // 2, 100)
            assert counted.bytes - manifest < 2 * 2**18 + 40 * 32
    assert read[1] == read[40] <= 3


def test_a_row_that_was_checked_is_read_alone_the_next_time(written, store, monkeypatch):
    shards = TokenShards.open(uploaded(written, f"{store}/corpus"), verify=False)
    first = shards.read(0, 50).tolist()
    counted = Counted(monkeypatch)
    assert shards.read(0, 50).tolist() == first
    assert (counted.bytes, counted.requests) == (100, 1)
