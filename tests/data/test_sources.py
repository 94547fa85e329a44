import builtins
import gzip
import io
import json
import sys
import sysconfig
from itertools import islice
from pathlib import Path

import fsspec
import pyarrow
import pyarrow.parquet
import pytest
import zstandard
from fsspec.implementations.memory import MemoryFileSystem

from illada.data.sources import Source, file_state, parse_source

RECORDS = [{"text": "first", "n": 1}, {"text": "second é", "n": 2}, {"text": "", "n": 3}, {"text": None, "n": 4}]
LINES = "".join(json.dumps(record) + "\n" for record in RECORDS).encode()


def read(path: Path | str, **settings: str) -> list[str]:
    return list(Source(path=str(path), **settings).documents())


def write(path: Path, data: bytes | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


# --- specs --------------------------------------------------------------------------------------------------------


def test_a_bare_path_is_a_spec():
    assert parse_source("stdlib") == Source(path="stdlib", field="text", glob="**/*", split="train", weight=1.0)


def test_every_key_can_be_given():
    spec = "some folder,field=body,glob=**/*.py,split=test,weight=0.7"
    assert parse_source(spec) == Source(path="some folder", field="body", glob="**/*.py", split="test", weight=0.7)


def test_commas_and_equal_signs_may_be_part_of_values_and_paths():
    assert parse_source("a,b.txt,glob=x=[1,2]*").path == "a,b.txt"
    assert parse_source("a,b.txt,glob=x=[1,2]*").glob == "x=[1,2]*"


def test_an_unknown_key_is_named():
    with pytest.raises(ValueError, match=r"unknown key 'filed' .* field, glob, split, weight"):
        parse_source("a.jsonl,filed=text")


def test_a_repeated_key_is_named():
    with pytest.raises(ValueError, match="'weight' occurs twice"):
        parse_source("a.txt,weight=1,weight=2")


@pytest.mark.parametrize("weight", ["0", "-1", "nan", "inf"])
def test_a_weight_must_be_above_zero(weight):
    with pytest.raises(ValueError, match=r"the weight of source a.txt is .* above 0"):
        parse_source(f"a.txt,weight={weight}")


def test_a_weight_must_be_a_number():
    with pytest.raises(ValueError, match="'much', but it must be a number"):
        parse_source("a.txt,weight=much")


def test_a_spec_needs_a_path():
    with pytest.raises(ValueError, match="needs a path"):
        parse_source(",weight=1")


# --- text and folders ---------------------------------------------------------------------------------------------


def test_a_text_file_is_one_document(tmp_path):
    file = write(tmp_path / "a.txt", "one\r\ntwo é\n")
    assert read(file) == ["one\r\ntwo é\n"]


def test_a_byte_order_mark_is_no_text(tmp_path):
    assert read(write(tmp_path / "a.txt", b"\xef\xbb\xbfone")) == ["one"]


@pytest.mark.parametrize(("name", "pack"), [("a.txt.gz", gzip.compress), ("a.txt.zst", zstandard.compress)])
def test_compressed_text_is_read(tmp_path, name, pack):
    assert read(write(tmp_path / name, pack(b"one two"))) == ["one two"]


def test_a_named_file_that_is_no_text_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"a.txt is not UTF-8 text: byte 2 is 0xFF"):
        read(write(tmp_path / "a.txt", b"ab\xff"))


def test_a_folder_is_read_in_order_without_binaries_and_hidden_files(tmp_path):
    for name in ("b/2.txt", "a.txt", "b/1.txt", ".git/config", "b/.hidden"):
        write(tmp_path / name, name)
    write(tmp_path / "image", b"\xff\xd8")
    write(tmp_path / "zeros", b"a\0b")
    write(tmp_path / "empty.txt", "")
    assert read(tmp_path) == ["a.txt", "b/1.txt", "b/2.txt"]


def test_a_hidden_folder_can_be_named_itself(tmp_path):
    write(tmp_path / ".notes" / "a.txt", "kept")
    assert read(tmp_path / ".notes") == ["kept"]


def test_the_glob_chooses_files(tmp_path):
    for name in ("a.py", "b.txt", "c/d.py"):
        write(tmp_path / name, name)
    assert read(tmp_path, glob="**/*.py") == ["a.py", "c/d.py"]
    assert read(tmp_path, glob="*.py") == ["a.py"]


def test_files_of_many_documents_in_a_folder_are_read_as_such(tmp_path):
    write(tmp_path / "1.jsonl.gz", gzip.compress(LINES))
    write(tmp_path / "2.txt", "plain")
    assert read(tmp_path) == ["first", "second é", "plain"]


def test_files_are_listed_in_reading_order(tmp_path):
    for name in ("b", "a"):
        write(tmp_path / name, name)
    assert Source(path=str(tmp_path)).files() == [tmp_path / "a", tmp_path / "b"]


# --- JSON lines and parquet ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "pack"),
    [
        ("a.jsonl", bytes),
        ("a.ndjson", bytes),
        ("a.jsonl.gz", gzip.compress),
        ("a.jsonl.zst", zstandard.compress),
        ("a.ndjson.zst", lambda data: zstandard.compress(data[:20]) + zstandard.compress(data[20:])),
    ],
)
def test_json_lines_are_read_packed_or_not(tmp_path, name, pack):
    assert read(write(tmp_path / name, pack(LINES))) == ["first", "second é"]


def test_the_field_can_be_chosen_and_blank_lines_are_skipped(tmp_path):
    file = write(tmp_path / "a.jsonl", '{"body": "x"}\n\n  \n{"body": "y"}')
    assert read(file, field="body") == ["x", "y"]


@pytest.mark.parametrize("line", ['{"text": "cut off', "nonsense", "[" * 200_000, b"\xff".decode("latin-1")])
def test_a_malformed_line_is_named(tmp_path, line):
    file = write(tmp_path / "a.jsonl", LINES + line.encode())
    with pytest.raises(ValueError, match=r"a.jsonl, line 5 is not valid JSON"):
        read(file)


def test_a_line_that_is_no_object_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"a.jsonl, line 1 holds str, .* object with the field 'text'"):
        read(write(tmp_path / "a.jsonl", '"text"\n'))


def test_a_field_that_is_no_text_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"line 1: the field 'n' holds int"):
        read(write(tmp_path / "a.jsonl", LINES), field="n")


def test_a_missing_field_lists_those_there(tmp_path):
    file = write(tmp_path / "a.jsonl", LINES)
    with pytest.raises(ValueError, match=r"line 1 has no field 'body'; the fields there are text, n"):
        Source(path=str(file), field="body").check()


@pytest.mark.parametrize(("name", "pack"), [("a.jsonl.gz", gzip.compress), ("a.jsonl.zst", zstandard.compress)])
def test_damaged_compressed_data_is_named(tmp_path, name, pack):
    packed = bytearray(pack(LINES * 50))
    packed[4:30] = b"\xff" * 26
    with pytest.raises(ValueError, match=f"{name} cannot be decompressed"):
        read(write(tmp_path / name, bytes(packed)))


def test_a_gzip_file_that_was_cut_off_is_named(tmp_path):
    with pytest.raises(ValueError, match="cannot be decompressed, it is damaged or cut off"):
        read(write(tmp_path / "a.txt.gz", gzip.compress(LINES * 50)[:-20]))


def parquet(file: Path, **columns: list[object]) -> Path:
    pyarrow.parquet.write_table(pyarrow.table(columns), file)
    return file


def test_parquet_is_read(tmp_path):
    texts = [f"row {number}" for number in range(700)]
    file = parquet(tmp_path / "a.parquet", text=[*texts, None, ""], n=list(range(702)))
    assert read(file) == texts


def test_parquet_errors_name_file_row_and_columns(tmp_path):
    file = parquet(tmp_path / "a.parquet", body=["x"], n=[1])
    with pytest.raises(ValueError, match=r"a.parquet has no field 'text'; the fields there are body, n"):
        read(file)
    with pytest.raises(ValueError, match=r"a.parquet, row 1: the field 'n' holds int"):
        read(file, field="n")
    with pytest.raises(ValueError, match=r"b.parquet is no readable parquet file"):
        read(write(tmp_path / "b.parquet", "PAR1 and then nothing"))


# --- optional libraries -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "module"), [("a.jsonl.zst", "zstandard"), ("a.parquet", "pyarrow"), ("hf:owner/name", "datasets")]
)
def test_a_missing_library_names_what_to_install(tmp_path, monkeypatch, path, module):
    """A None among the loaded modules is Python's own way to say that a module cannot be imported."""
    for name in (module, f"{module}.parquet"):
        monkeypatch.setitem(sys.modules, name, None)
    if not path.startswith("hf:"):
        path = str(write(tmp_path / path, "x"))
    with pytest.raises(ValueError, match=rf"reading .* needs {module}: pip install 'illada\[hf\]'"):
        Source(path=path).check()


def test_plain_files_need_no_optional_library(tmp_path, monkeypatch):
    real_import = builtins.__import__

    def refuse(name: str, *args: object, **kwargs: object) -> object:
        assert name.partition(".")[0] not in {"datasets", "pyarrow", "zstandard"}
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    assert read(write(tmp_path / "a.jsonl", LINES)) == ["first", "second é"]


@pytest.mark.parametrize(
    ("spec", "name", "config"),
    [("hf:owner/name", "owner/name", None), ("hf:owner/name/en", "owner/name", "en"), ("hf:name", "name", None)],
)
def test_a_data_set_is_loaded_by_name_configuration_and_split(tmp_path, monkeypatch, spec, name, config):
    """The library is not installed here: a module of its name, on the path, records what it is asked for."""
    write(
        tmp_path / "datasets.py",
        "def load_dataset(path, name, *, split):\n"
        "    return [{'body': f'{path}|{name}|{split}'}, {'body': ''}, {'body': 'last'}]\n",
    )
    monkeypatch.delitem(sys.modules, "datasets", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    source = Source(path=spec, field="body", split="test")
    assert list(source.documents()) == [f"{name}|{config}|test", "last"]
    assert source.files() == []
    with pytest.raises(ValueError, match=rf"{spec}, record 1 has no field 'text'; the fields there are body"):
        Source(path=spec).check()
    monkeypatch.delitem(sys.modules, "datasets")


# --- object stores ------------------------------------------------------------------------------------------------


@pytest.fixture
def bucket():
    """A store in memory; tests put files into it."""
    yield fsspec.filesystem("memory")
    MemoryFileSystem.store.clear()


def parquet_bytes(texts: list[str]) -> bytes:
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({"text": texts}), buffer)
    return buffer.getvalue()


def test_a_folder_of_a_store_is_read_as_one_of_the_disk(bucket, tmp_path):
    files = {
        "a.jsonl": LINES,
        "b.jsonl.gz": gzip.compress(LINES),
        "c/d.jsonl.zst": zstandard.compress(LINES),
        "e.parquet": parquet_bytes(["from", "parquet"]),
        "f.txt": b"plain",
        "g.txt.gz": gzip.compress(b"plain too"),
        "image": b"\xff\xd8",
        "c/.hidden": b"hidden",
    }
    for name, content in files.items():
        bucket.pipe(f"/texts/{name}", content)
        write(tmp_path / name, content)
    read_here = read(tmp_path)
    assert len(read_here) == 10
    assert read("memory://texts") == read_here
    assert read("memory://texts", glob="**/*.zst") == read("memory://texts/c/d.jsonl.zst") == ["first", "second é"]
    assert read("simplecache::memory://texts") == read_here


def test_errors_in_a_store_name_the_url(bucket):
    bucket.pipe("/texts/a.jsonl", LINES + b"nonsense")
    with pytest.raises(ValueError, match=r"memory://texts/a\.jsonl, line \d is not valid JSON"):
        read("memory://texts")
    bucket.pipe("/texts/a.txt", b"a\xff")
    with pytest.raises(ValueError, match=r"memory://texts/a\.txt is not UTF-8 text: byte 1 is 0xFF"):
        read("memory://texts/a.txt")
    bucket.pipe("/texts/b.jsonl.gz", gzip.compress(LINES)[:-9])
    with pytest.raises(ValueError, match=r"memory://texts/b\.jsonl\.gz cannot be decompressed"):
        read("memory://texts/b.jsonl.gz")
    with pytest.raises(ValueError, match="no file in memory://texts matches the pattern"):
        Source(path="memory://texts", glob="*.py").check()
    with pytest.raises(FileNotFoundError, match="there is no folder memory://elsewhere"):
        Source(path="memory://elsewhere").check()


def test_a_file_of_a_store_is_remembered_by_its_key(bucket):
    bucket.pipe("/texts/a.txt", b"one")
    (file,) = Source(path="memory://texts").files()
    before = file_state(file)
    assert before[:2] == ("memory://texts/a.txt", 3)
    bucket.pipe("/texts/a.txt", b"two")
    assert file_state(file) != before


# --- checks -------------------------------------------------------------------------------------------------------


def test_checking_passes_for_sources_with_text(tmp_path):
    Source(path=str(write(tmp_path / "a.jsonl", LINES))).check()
    Source(path=str(tmp_path)).check()


def test_a_missing_path_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no such file or folder: .*nowhere.txt"):
        Source(path=str(tmp_path / "nowhere.txt")).check()


def test_a_folder_without_a_match_is_named(tmp_path):
    write(tmp_path / "a.txt", "x")
    with pytest.raises(ValueError, match=r"no file in the folder .* matches the pattern '\*\*/\*.py'"):
        Source(path=str(tmp_path), glob="**/*.py").check()


@pytest.mark.parametrize(
    ("name", "data"), [("a.txt", ""), ("a.jsonl", '{"text": ""}\n'), ("a.jsonl.gz", gzip.compress(b"", mtime=0))]
)
def test_a_source_without_text_is_named(tmp_path, name, data):
    with pytest.raises(ValueError, match=f"{name} holds no text"):
        Source(path=str(write(tmp_path / name, data))).check()


def test_checking_reads_no_further_than_the_first_document(tmp_path):
    Source(path=str(write(tmp_path / "a.jsonl", LINES + b"nonsense"))).check()


# --- the standard library -----------------------------------------------------------------------------------------


def test_the_standard_library_is_python_code_without_tests_and_installed_packages():
    source = Source(path="stdlib")
    source.check()
    root = Path(sysconfig.get_path("stdlib"))
    names = [file.relative_to(root).as_posix() for file in source.files()]
    assert {"argparse.py", "json/decoder.py", "asyncio/events.py"} <= set(names)
    assert all(name.endswith(".py") for name in names)
    parts = {part for name in names for part in name.split("/")}
    assert not parts & {"site-packages", "dist-packages", "test", "tests", "__pycache__"}
    assert 3e6 < sum(file.stat().st_size for file in source.files()) < 5e7


def test_the_standard_library_gives_the_text_of_its_files():
    source = Source(path="stdlib")
    expected = [file.read_text(encoding="utf-8") for file in islice(source.files(), 5)]
    assert list(islice(source.documents(), 3)) == [text for text in expected if text][:3]
