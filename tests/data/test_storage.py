import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from illada.data.storage import RemoteFile, is_url, open_folder, remote_files

FILES = {"a.ds": b"0123456789" * 7, "b.txt": b"", "deep/c.ds": b"xyz", "deep/.hidden": b"no", ".git/d": b"no"}


@pytest.fixture(params=["disk", "file", "memory", "simplecache"])
def folder(request, tmp_path):
    """The same files at a path and at the URLs of three kinds of stores."""
    for name, content in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    if request.param in ("disk", "file"):
        yield open_folder(tmp_path if request.param == "disk" else f"file://{tmp_path}")
        return
    fsspec.filesystem("memory").put(f"{tmp_path}/", "/bucket/", recursive=True)
    yield open_folder("memory://bucket" if request.param == "memory" else "simplecache::memory://bucket")
    MemoryFileSystem.store.clear()


def test_files_are_listed_with_their_sizes(folder):
    assert folder.sizes() == {"a.ds": 70, "b.txt": 0}
    assert folder.sizes("**/*.ds") == {"a.ds": 70, "deep/c.ds": 3}
    assert folder.sizes("*.nothing") == {}


def test_a_range_is_read_as_it_lies_there(folder):
    content = FILES["a.ds"]
    for start, stop in ((0, None), (3, 8), (0, 1), (65, 70), (70, 70)):
        read = folder.read("a.ds", start, stop)
        assert read.dtype == np.uint8
        assert read.tobytes() == content[start:stop]
    assert folder.read("deep/c.ds").tobytes() == b"xyz"
    assert folder.read("b.txt").tobytes() == b""


def test_what_is_not_there_is_an_error(folder, tmp_path):
    with pytest.raises(FileNotFoundError):
        folder.read("nothing")
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        open_folder(f"{folder.location}/nowhere").sizes()


def test_a_location_is_a_url_or_a_path():
    assert is_url("s3://bucket/x")
    assert is_url("filecache::s3://bucket/x")
    assert not is_url("C:/texts")
    assert not is_url("/texts/a:b")


def test_a_cache_keeps_on_the_disk_what_was_read(tmp_path):
    memory = fsspec.filesystem("memory")
    memory.pipe("/bucket/a", b"first")
    folder = open_folder("simplecache::memory://bucket")
    assert folder.read("a", 0, 2).tobytes() == b"fi"
    memory.pipe("/bucket/a", b"other")
    assert folder.read("a").tobytes() == b"first"
    MemoryFileSystem.store.clear()


def test_an_unknown_kind_of_store_is_named():
    with pytest.raises(ValueError, match=r"nosuch://x cannot be read: Protocol not known: nosuch"):
        open_folder("nosuch://x")


def test_a_missing_library_is_named(monkeypatch):
    def refuse(url):
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec.core, "url_to_fs", refuse)
    with pytest.raises(ImportError, match=r"s3://bucket cannot be read: Install s3fs"):
        open_folder("s3://bucket")


# --- files of documents -------------------------------------------------------------------------------------------


@pytest.fixture
def bucket():
    memory = fsspec.filesystem("memory")
    for name, content in FILES.items():
        memory.pipe(f"/bucket/{name}", content)
    yield "memory://bucket"
    MemoryFileSystem.store.clear()


def test_hidden_files_of_a_store_are_not_seen(bucket):
    assert [file.url for file in remote_files(bucket, "**/*")] == [
        f"{bucket}/{n}" for n in ("a.ds", "b.txt", "deep/c.ds")
    ]
    assert [file.url for file in remote_files(f"{bucket}/", "*.txt")] == [f"{bucket}/b.txt"]


def test_a_file_can_be_named_itself(bucket):
    assert remote_files(f"{bucket}/deep/c.ds", "**/*") == [RemoteFile(f"{bucket}/deep/c.ds")]
    with pytest.raises(FileNotFoundError, match=f"there is no folder {bucket}/nowhere"):
        remote_files(f"{bucket}/nowhere", "**/*")


def test_a_remote_file_is_asked_as_a_path_is():
    memory = fsspec.filesystem("memory")
    memory.pipe("/bucket/x.v1.jsonl.gz", b"content")
    file = RemoteFile("memory://bucket/x.v1.jsonl.gz")
    assert (str(file), file.suffix, file.suffixes) == (file.url, ".gz", [".v1", ".jsonl", ".gz"])
    assert file.is_file()
    assert not RemoteFile("memory://bucket/y").is_file()
    with file.open() as stream:
        assert stream.read() == b"content"
    before = file.state()
    assert before[:2] == (file.url, 7)
    assert file.state() == before
    memory.pipe("/bucket/x.v1.jsonl.gz", b"Content")
    assert file.state() != before
    MemoryFileSystem.store.clear()
