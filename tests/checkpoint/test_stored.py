import json

import pytest
import safetensors.torch
import torch

from illada.checkpoint import stored
from illada.checkpoint.stored import stored_tensors, tensors_in

ONE = {"b": torch.arange(12.0).reshape(4, 3), "a": torch.ones(5, dtype=torch.bfloat16)}
TWO = {"c": torch.arange(6, dtype=torch.float16)}


@pytest.fixture
def sharded(tmp_path):
    safetensors.torch.save_file(ONE, tmp_path / "one.safetensors")
    safetensors.torch.save_file(TWO, tmp_path / "two.safetensors")
    index(tmp_path, {"b": "one.safetensors", "a": "one.safetensors", "c": "two.safetensors"})
    return tmp_path


def index(folder, place):
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": place}))


def test_tensors_are_found_without_being_read(sharded):
    found = stored_tensors(sharded)
    assert {name: (tensor.shape, tensor.dtype, tensor.bytes) for name, tensor in found.items()} == {
        "a": ((5,), "BF16", 10),
        "b": ((4, 3), "F32", 48),
        "c": ((6,), "F16", 12),
    }
    for name, tensor in (ONE | TWO).items():
        assert torch.equal(found[name].read(), tensor)
        assert found[name].read().dtype == tensor.dtype


def test_a_single_file_needs_no_index(tmp_path):
    safetensors.torch.save_file(ONE, tmp_path / "model.safetensors")
    assert stored_tensors(tmp_path).keys() == ONE.keys()


def test_a_part_of_the_rows(sharded):
    assert torch.equal(stored_tensors(sharded)["b"].rows(1, 3), ONE["b"][1:3])


@pytest.mark.parametrize("size", [1, 12, 25, 1000])
def test_pieces_cover_all_rows_once(sharded, monkeypatch, size):
    monkeypatch.setattr(stored, "_PIECE", size)
    tensor = stored_tensors(sharded)["b"]
    pieces = list(tensor.pieces())
    assert [row for start, stop in pieces for row in range(start, stop)] == list(range(4))
    assert max(stop - start for start, stop in pieces) == max(1, min(4, size // 12))


def test_a_name_that_is_in_another_file_than_the_index_says(sharded):
    index(sharded, {"b": "one.safetensors", "a": "two.safetensors", "c": "two.safetensors"})
    with pytest.raises(ValueError, match=r"one\.safetensors holds a, but model\.safetensors\.index\.json says otherw"):
        stored_tensors(sharded)


def test_a_name_that_is_in_no_file(sharded):
    place = {"b": "one.safetensors", "a": "one.safetensors", "c": "two.safetensors", "d": "two.safetensors"}
    index(sharded, place)
    with pytest.raises(ValueError, match=r"is wrong: d is not in two\.safetensors"):
        stored_tensors(sharded)


def test_a_file_that_is_missing(sharded):
    (sharded / "two.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"is incomplete: two\.safetensors, which .*index\.json names"):
        stored_tensors(sharded)


@pytest.mark.parametrize("name", ["../one.safetensors", "/etc/passwd", "a/../one.safetensors"])
def test_an_index_names_no_files_elsewhere(sharded, name):
    index(sharded, {"b": name})
    with pytest.raises(ValueError, match="is no readable index: it names files outside of the folder"):
        stored_tensors(sharded)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"weight_map": 3}', '{"weight_map": {"a": 3}}'])
def test_an_index_that_is_none(sharded, text):
    (sharded / "model.safetensors.index.json").write_text(text)
    with pytest.raises(ValueError, match=r"index\.json is no readable index"):
        stored_tensors(sharded)


def test_a_folder_without_weights(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no weights: neither model\.safetensors nor .*index\.json$"):
        stored_tensors(tmp_path)


def test_pickles_are_not_read(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match="are pickles, which can run code and are not read"):
        stored_tensors(tmp_path)


@pytest.mark.parametrize("cut", [3, 60])
def test_a_damaged_file(sharded, cut):
    data = (sharded / "one.safetensors").read_bytes()
    (sharded / "one.safetensors").write_bytes(data[:cut])
    with pytest.raises(ValueError, match=r"one\.safetensors is damaged or no safetensors file"):
        stored_tensors(sharded)


def test_numbers_that_are_no_weights(tmp_path):
    safetensors.torch.save_file({"q": torch.zeros(2, dtype=torch.int8)}, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match="q is stored as I8, but weights must be F64, F32, F16, BF16"):
        tensors_in(tmp_path / "x.safetensors")
