"""Any number of processes, however they divide the work, come to the losses and weights of one."""

import runpy
from pathlib import Path

import pytest
import safetensors.torch
import torch

PROGRAM = Path(__file__).parent / "programs" / "equality.py"

# replicate, shard, context, tensor, rows of a micro-batch: of 16 rows a step, in 1, 2 or 4 micro-batches per process
TWO = ["1,2,1,1,8", "1,2,1,1,2", "2,1,1,1,4", "1,1,1,2,16", "1,1,2,1,8"]
FOUR = ["1,4,1,1,4", "4,1,1,1,1", "2,2,1,1,2", "1,2,1,2,4", "2,1,1,2,8", "1,1,2,2,8", "1,2,2,1,4"]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Losses and weights of one process, whole batches."""
    out = tmp_path_factory.mktemp("alone")
    runpy.run_path(str(PROGRAM))["main"](out, ["1,1,1,1,16"])
    return safetensors.torch.load_file(out / "1,1,1,1,16.safetensors")


@pytest.mark.parametrize(("size", "meshes"), [(2, TWO), (4, FOUR)])
def test_every_mesh_comes_to_the_same_weights(size, meshes, alone, job, finish, tmp_path):
    codes = finish(job([tmp_path, *meshes], tmp_path / "logs", size=size, program=PROGRAM))
    assert codes == [0] * size, (tmp_path / "logs" / "0").read_text()
    for mesh in meshes:
        got = safetensors.torch.load_file(tmp_path / f"{mesh}.safetensors")
        assert got.keys() == alone.keys()
        assert len(got["losses"]) == 20
        for name, expected in alone.items():
            torch.testing.assert_close(got[name], expected, rtol=0, atol=1e-5, msg=f"{mesh}: {name}")
