"""What some processes save, any other number of them loads, and so does one that exports it: every tensor equal."""

import runpy
from pathlib import Path

import pytest
import safetensors.torch
import torch

from illada.checkpoint.native import list_checkpoints, load_checkpoint
from illada.checkpoint.pieces import read_index
from illada.cli.main import main

PROGRAM = Path(__file__).parent / "programs" / "resharding.py"


@pytest.fixture(scope="module")
def saved(job, finish, tmp_path_factory):
    """(folder of checkpoints, every tensor) of four processes: two copies of the weights, each in two halves."""
    folder = tmp_path_factory.mktemp("saved")
    out = folder / "whole.safetensors"
    codes = finish(
        job(["save", folder / "run" / "checkpoints", out, "2,2,1,1"], folder / "logs", size=4, program=PROGRAM)
    )
    assert codes == [0] * 4, (folder / "logs" / "0").read_text()
    return folder / "run", safetensors.torch.load_file(out)


def assert_equal(got, expected):
    assert got.keys() == expected.keys()
    assert len(expected) == 20 * 5  # 20 parameters: average, live weights, two moments, a count of steps
    for name, tensor in expected.items():
        assert torch.equal(got[name], tensor), name


def test_one_process_loads_what_four_saved(saved, tmp_path):
    run, expected = saved
    runpy.run_path(str(PROGRAM))["main"]("load", run / "checkpoints", tmp_path / "whole.safetensors", "1,1,1,1")
    assert_equal(safetensors.torch.load_file(tmp_path / "whole.safetensors"), expected)


@pytest.mark.parametrize("mesh", ["1,1,1,2", "1,3,1,1", "1,2,1,2"])
def test_others_load_what_four_saved(mesh, saved, job, finish, tmp_path):
    run, expected = saved
    size = eval(mesh.replace(",", "*"))
    arguments = ["load", run / "checkpoints", tmp_path / "whole.safetensors", mesh]
    codes = finish(job(arguments, tmp_path / "logs", size=size, program=PROGRAM))
    assert codes == [0] * size, (tmp_path / "logs" / "0").read_text()
    assert_equal(safetensors.torch.load_file(tmp_path / "whole.safetensors"), expected)


def test_each_process_wrote_its_part_and_none_twice(saved):
    run, expected = saved
    ((_, folder),) = list_checkpoints(run / "checkpoints")
    names = sorted(path.name for path in folder.iterdir())
    assert names == sorted(
        [f"{kind}-{number:05}-of-00004.safetensors" for kind in ("model", "optimizer") for number in (1, 2, 3, 4)]
        + ["index.json", "manifest.json", "model.json", "state.json", "tokenizer.json", "tokenizer_config.json"]
    )
    for kind in ("model", "optimizer"):
        sizes = []
        for number in (1, 2, 3, 4):
            part = safetensors.torch.load_file(folder / f"{kind}-{number:05}-of-00004.safetensors")
            sizes.append(sum(tensor.numel() for tensor in part.values()))
        whole = sum(tensor.numel() for name, tensor in expected.items() if name.startswith(f"{kind}/"))
        assert sum(sizes) == whole
        assert max(sizes) < whole / 2  # neither copy of the weights wrote all of it
        assert len(read_index(folder, kind)) == sum(name.startswith(f"{kind}/") for name in expected)


def test_it_loads_and_exports_as_one_file(saved, tmp_path, capsys):
    run, expected = saved
    weights = load_checkpoint(run / "checkpoints" / "step_00000007").weights
    assert_exported(weights, expected)
    assert main(["export", str(run), "--out", str(tmp_path / "out"), "--dtype", "fp32"]) == 0
    capsys.readouterr()
    assert not (tmp_path / "out" / "index.json").exists()
    assert_exported(safetensors.torch.load_file(tmp_path / "out" / "model.safetensors"), expected)
    assert_exported(load_checkpoint(tmp_path / "out").weights, expected)


def assert_exported(weights, expected):
    assert {f"model/{name}" for name in weights} == {name for name in expected if name.startswith("model/")}
    assert all(torch.equal(tensor, expected[f"model/{name}"]) for name, tensor in weights.items())
