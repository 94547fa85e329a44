import shutil
import struct
from pathlib import Path

import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import given, settings
from hypothesis import strategies as st

from illada.data.checksums import block_sums
from illada.data.datatrove import DatatroveShards
from illada.data.packing import PackedRows, PackingConfig
from illada.data.shards import TokenShards, write_shards
from illada.data.tokenizer import Tokenizer

DOCUMENTS = [f"document {number}: " + "word " * (number * 7 % 23) + "é" * (number % 3) for number in range(90)]
TOKENIZER = Tokenizer.train(DOCUMENTS, 300)
FILES = [DOCUMENTS[:40], DOCUMENTS[40:], []]


def encoded(text: str) -> list[int]:
    return [TOKENIZER.specials.bos, *TOKENIZER.encode(text), TOKENIZER.specials.eos]


def write_file(folder: Path, name: str, documents: list[list[int]], *, code: str = "H", sums: bool = True) -> None:
    """A file as datatrove lays it out, by nothing but struct."""
    folder.mkdir(parents=True, exist_ok=True)
    tokens = [token for document in documents for token in document]
    ends = np.cumsum([len(document) for document in documents]).tolist()
    (folder / name).write_bytes(struct.pack(f"<{len(tokens)}{code}", *tokens))
    (folder / f"{name}.index").write_bytes(struct.pack(f"<{len(ends)}Q", *ends))
    (folder / f"{name}.metadata").write_text(f"tokenizer.json|{struct.calcsize(code)}\n{len(tokens)}\n{len(tokens)} T")
    if sums:
        (folder / f"{name}.sums").write_bytes(block_sums((folder / name).read_bytes()))


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("datatrove") / "tokens"
    for number, texts in enumerate(FILES):
        write_file(folder, f"0000{number}_shuffled.ds", [encoded(text) for text in texts])
    (folder / "all.ds.metadata").write_text("what the merger leaves")
    return folder


@pytest.fixture
def altered(written, tmp_path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(written, tmp_path / "copy"))


def opened(folder: Path | str, **options: object) -> DatatroveShards:
    return DatatroveShards.open(folder, tokenizer=TOKENIZER, **options)


# --- reading ------------------------------------------------------------------------------------------------------


def test_the_tokens_are_those_of_the_files_in_the_order_of_their_names(written):
    shards = opened(written)
    expected = [token for text in DOCUMENTS for token in encoded(text)]
    assert len(shards) == len(expected)
    assert shards.read(0, len(shards)).tolist() == expected


def test_the_stream_is_that_of_our_own_shards(written, tmp_path):
    write_shards(DOCUMENTS, TOKENIZER, tmp_path / "own", shard_bytes=700)
    own, shards = TokenShards.open(tmp_path / "own"), opened(written)
    assert shards.read(0, len(shards)).tolist() == own.read(0, len(own)).tolist()
    assert shards.document_starts(0, len(shards)).tolist() == own.document_starts(0, len(own)).tolist()
    assert shards.bytes_per_token == pytest.approx(own.bytes_per_token)
    rows = [
        PackedRows(tokens, PackingConfig(length=64, isolate_documents=True), seed=3, pad=0) for tokens in (shards, own)
    ]
    for number in range(rows[0].rows):
        one, other = (source.read(number, example=number, epoch=1) for source in rows)
        assert one.tokens.tolist() == other.tokens.tolist()
        assert one.segments.tolist() == other.segments.tolist()


@given(data=st.data())
@settings(max_examples=40)
def test_any_range_and_its_documents_are_found(written, data):
    shards = opened(written)
    start = data.draw(st.integers(0, len(shards)))
    count = data.draw(st.integers(0, len(shards) - start))
    expected = [token for text in DOCUMENTS for token in encoded(text)][start : start + count]
    assert shards.read(start, count).tolist() == expected
    begins = [place for place, token in enumerate(expected) if token == TOKENIZER.specials.bos]
    assert shards.document_starts(start, count).tolist() == begins


@pytest.mark.parametrize("code", ["H", "I"])
def test_the_width_of_a_token_is_seen_from_the_files(tmp_path, code):
    write_file(tmp_path, "a.ds", [encoded("one"), encoded("two")], code=code)
    assert opened(tmp_path).read(0, 4).tolist() == encoded("one")[:4]


def test_files_in_folders_are_read_and_the_pattern_chooses(tmp_path):
    for name in ("x/a.ds", "x/b.ds", "y/c.ds"):
        write_file(tmp_path / name[0], name[2:], [encoded(name)])
    assert opened(tmp_path).read(0, 3).tolist() == encoded("x/a.ds")[:3]
    assert len(opened(tmp_path)) == 3 * len(encoded("x/a.ds"))
    for pattern in ("y/*.ds", "y/*", "**/c*"):
        assert opened(tmp_path, pattern=pattern).read(0, 5).tolist() == encoded("y/c.ds")[:5]


def test_a_store_reads_as_the_disk_does(written):
    fsspec.filesystem("memory").put(f"{written}/", "/bucket/tokens/", recursive=True)
    remote, local = opened("memory://bucket/tokens"), opened(written)
    assert remote.read(0, len(remote)).tolist() == local.read(0, len(local)).tolist()
    assert remote.document_starts(3, 500).tolist() == local.document_starts(3, 500).tolist()
    assert remote.identity == local.identity
    MemoryFileSystem.store.clear()


def test_to_open_a_folder_reads_as_much_of_many_files_as_of_two(tmp_path, monkeypatch):
    """A listing, both ends of the first index, and the last tokens of some documents."""
    answers: list[int] = []
    real = MemoryFileSystem.cat_file

    def counted(self, *args, **kwargs):
        answer = real(self, *args, **kwargs)
        answers.append(len(answer))
        return answer

    read = {}
    for count in (2, 60):
        for number in range(count):
            write_file(tmp_path / str(count), f"{number:05}.ds", [encoded(text) for text in DOCUMENTS], sums=False)
        fsspec.filesystem("memory").put(f"{tmp_path / str(count)}/", f"/bucket/{count}/", recursive=True)
        with monkeypatch.context() as patch:
            patch.setattr(MemoryFileSystem, "cat_file", counted)
            answers.clear()
            opened(f"memory://bucket/{count}")
            read[count] = (len(answers), sum(answers))
    assert read[2] == read[60]
    assert read[2][1] < 300
    MemoryFileSystem.store.clear()


def test_the_identity_is_another_for_other_files(written, altered):
    assert opened(altered).identity == opened(written).identity
    (altered / "00001_shuffled.ds").rename(altered / "00009_shuffled.ds")
    (altered / "00001_shuffled.ds.index").rename(altered / "00009_shuffled.ds.index")
    assert opened(altered).identity != opened(written).identity


# --- what is refused ----------------------------------------------------------------------------------------------


def test_a_folder_without_tokens_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*nowhere"):
        opened(tmp_path / "nowhere")
    write_file(tmp_path, "empty.ds", [])
    with pytest.raises(FileNotFoundError, match=r"no \.ds file that matches '\*\*/\*\.ds' holds tokens"):
        opened(tmp_path)


def test_a_file_without_an_index_is_named(altered):
    (altered / "00001_shuffled.ds.index").unlink()
    with pytest.raises(FileNotFoundError, match=r"00001_shuffled\.ds has no \.index: .* save_index=True"):
        opened(altered)


def test_loss_masks_are_not_passed_over(altered):
    (altered / "00000_shuffled.ds.loss").write_bytes(b"\1")
    with pytest.raises(ValueError, match=r"comes with loss masks, which are not read: remove 00000_shuffled\.ds\.loss"):
        opened(altered)


def test_a_file_that_was_cut_off_is_named_where_it_is_read(altered):
    file = altered / "00001_shuffled.ds"
    file.write_bytes(file.read_bytes()[:-2])
    shards = opened(altered)
    shards.read(0, 10)
    size = file.stat().st_size
    with pytest.raises(
        ValueError, match=rf"00001_shuffled\.ds has {size} bytes, but its index counts {size + 2}: it is"
    ):
        shards.read(len(shards) - 5, 5)


@pytest.mark.parametrize(
    ("name", "cut", "message"),
    [
        ("00000_shuffled.ds", 3, r"ds has \d+ bytes for the \d+ tokens of its index, neither 2 nor 4"),
        ("00000_shuffled.ds.index", 3, r"index has \d+ bytes, but 8 for every document"),
    ],
)
def test_a_first_file_that_was_cut_off_is_named_at_once(altered, name, cut, message):
    (altered / name).write_bytes((altered / name).read_bytes()[:-cut])
    with pytest.raises(ValueError, match=message):
        opened(altered)


def test_a_byte_that_changed_is_noticed_by_the_checksums(altered):
    file = altered / "00001_shuffled.ds"
    data = bytearray(file.read_bytes())
    data[6] ^= 2
    file.write_bytes(bytes(data))
    shards = opened(altered)
    with pytest.raises(ValueError, match=r"copy/00001_shuffled\.ds was altered, its SHA-256 differs"):
        shards.read(len(shards) - 5, 5)
    (altered / "00001_shuffled.ds.sums").unlink()
    shards = opened(altered)
    assert len(shards.read(len(shards) - 5, 5)) == 5, "without checksums nobody can know"


def test_checksums_of_another_size_are_named(altered):
    (altered / "00001_shuffled.ds.sums").write_bytes(b"short")
    shards = opened(altered)
    with pytest.raises(ValueError, match=r"ds\.sums has 5 bytes instead of 32"):
        shards.read(len(shards) - 5, 5)


def test_tokens_of_another_tokenizer_are_refused(tmp_path):
    write_file(tmp_path, "00000.ds", [[5, 9], [6, 9]])
    with pytest.raises(ValueError, match=r"00000\.ds ends with the end of text of the tokenizer, 2, but with 9"):
        opened(tmp_path)


def test_a_token_that_the_tokenizer_does_not_have_is_named(tmp_path):
    write_file(tmp_path, "00000.ds", [encoded("fine"), [5, TOKENIZER.vocab_size, 2]])
    shards = opened(tmp_path)
    shards.read(0, 3)
    with pytest.raises(ValueError, match=r"00000\.ds holds the token (\d+), but the tokenizer has \1 entries"):
        shards.read(0, len(shards))


def test_files_shuffled_in_chunks_need_not_end_every_document_with_the_end_of_text(tmp_path):
    write_file(tmp_path, "00000.ds", [[5, 9], [6, 2], [7, 8]])
    assert opened(tmp_path).read(0, 6).tolist() == [5, 9, 6, 2, 7, 8]
