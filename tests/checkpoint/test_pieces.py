import itertools
import json

import pytest
import safetensors.torch
import torch

from illada.checkpoint import stored
from illada.checkpoint.pieces import (
    Index,
    IndexEntry,
    Piece,
    open_tensors,
    read_blocks,
    read_index,
    read_tensors,
    whole_block,
)
from illada.checkpoint.stored import save_tensors
from illada.config import to_json

TENSOR = torch.arange(60).view(10, 6).to(torch.float32)
VECTOR = torch.arange(7, dtype=torch.bfloat16)
SCALAR = torch.tensor(3.0)


@pytest.fixture
def folder(tmp_path):
    """A matrix in four unequal pieces over three files, a vector in one of them, a single number."""
    cuts = {"a": (0, 0, 4, 4), "b": (4, 0, 6, 4), "c": (0, 4, 10, 2)}
    files = {name: f"model-{number:05}-of-00003.safetensors" for number, name in enumerate(cuts, start=1)}
    pieces = []
    for name, (top, left, rows, columns) in cuts.items():
        tensors = {"matrix": TENSOR[top : top + rows, left : left + columns]}
        if name == "b":
            tensors |= {"vector": VECTOR, "number": SCALAR}
        save_tensors(tensors, tmp_path / files[name])
        pieces.append(Piece(file=files[name], at=(top, left), shape=(rows, columns)))
    model = {
        "matrix": IndexEntry(dtype="F32", shape=(10, 6), pieces=tuple(pieces)),
        "vector": IndexEntry(dtype="BF16", shape=(7,), pieces=(Piece(file=files["b"], at=(0,), shape=(7,)),)),
        "number": IndexEntry(dtype="F32", shape=(), pieces=(Piece(file=files["b"], at=(), shape=()),)),
    }
    (tmp_path / "index.json").write_text(to_json(Index(tensors={"model": model, "optimizer": {}})))
    return tmp_path


def test_pieces_come_together(folder):
    tensors = read_tensors(folder, "model")
    assert set(tensors) == {"matrix", "vector", "number"}
    for name, expected in {"matrix": TENSOR, "vector": VECTOR, "number": SCALAR}.items():
        assert tensors[name].dtype == expected.dtype
        assert torch.equal(tensors[name], expected)
    assert read_tensors(folder, "optimizer") == {}


def test_tensors_that_are_left_on_the_disk_are_read_by_rows(folder, monkeypatch):
    tensors = open_tensors(folder, "model")
    for name, expected in {"matrix": TENSOR, "vector": VECTOR, "number": SCALAR}.items():
        assert tensors[name].shape == tuple(expected.shape)
        assert torch.equal(tensors[name].read(), expected)
    monkeypatch.setattr(stored, "_PIECE", 3 * 6 * 4)
    pieces = list(tensors["matrix"].pieces())
    assert pieces == [(0, 3), (3, 6), (6, 9), (9, 10)]
    for start, stop in pieces:
        assert torch.equal(tensors["matrix"].rows(start, stop), TENSOR[start:stop])


def test_any_block_can_be_read(folder):
    index = read_index(folder, "model")
    rows, columns = ([(low, high) for low in range(n) for high in range(low, n + 1)] for n in (10, 6))
    for (top, bottom), (left, right) in itertools.islice(itertools.product(rows, columns), 0, None, 17):
        target = torch.full((bottom - top, right - left), -1.0)
        read_blocks(folder, index, {"matrix": (target, (slice(top, bottom), slice(left, right)))})
        assert torch.equal(target, TENSOR[top:bottom, left:right])


def test_a_block_takes_the_type_of_where_it_goes(folder):
    target = torch.zeros(7, dtype=torch.float64)
    read_blocks(folder, read_index(folder, "model"), {"vector": (target, whole_block(target))})
    assert torch.equal(target, VECTOR.double())


def test_only_what_is_asked_for_is_opened(folder):
    (folder / "model-00001-of-00003.safetensors").unlink()
    target = torch.zeros(10, 2)
    index = read_index(folder, "model")
    narrowed = {"matrix": IndexEntry(dtype="F32", shape=(10, 6), pieces=index["matrix"].pieces[2:])}
    read_blocks(folder, narrowed, {"matrix": (target, (slice(0, 10), slice(4, 6)))})
    assert torch.equal(target, TENSOR[:, 4:])


def test_a_hole_is_told(folder):
    index = read_index(folder, "model")
    holed = {"matrix": IndexEntry(dtype="F32", shape=(10, 6), pieces=index["matrix"].pieces[:2])}
    target = torch.zeros(10, 6)
    with pytest.raises(ValueError, match="does not hold all of matrix: 20 numbers are missing"):
        read_blocks(folder, holed, {"matrix": (target, whole_block(target))})


def test_whole_files_have_an_index_too(tmp_path):
    save_tensors({"matrix": TENSOR, "number": SCALAR}, tmp_path / "model.safetensors")
    index = read_index(tmp_path, "model")
    file = "model.safetensors"
    assert index["matrix"] == IndexEntry(
        dtype="F32", shape=(10, 6), pieces=(Piece(file=file, at=(0, 0), shape=(10, 6)),)
    )
    assert index["number"].pieces == (Piece(file=file, at=(), shape=()),)
    assert torch.equal(read_tensors(tmp_path, "model")["matrix"], TENSOR)


def test_where_there_is_nothing_nothing_is_found(tmp_path):
    assert read_index(tmp_path, "optimizer") == {}
    assert read_tensors(tmp_path, "optimizer") == {}


def test_an_index_that_is_none_is_refused(folder):
    content = json.loads((folder / "index.json").read_text())
    content["tensors"]["model"]["matrix"]["pieces"][0]["offset"] = 3
    (folder / "index.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="not a valid Index"):
        read_index(folder, "model")


def test_views_are_written_as_they_look(tmp_path):
    save_tensors({"turned": TENSOR.T, "part": TENSOR[2:5, 1:3]}, tmp_path / "model.safetensors")
    saved = safetensors.torch.load_file(tmp_path / "model.safetensors")
    assert torch.equal(saved["turned"], TENSOR.T)
    assert torch.equal(saved["part"], TENSOR[2:5, 1:3])
