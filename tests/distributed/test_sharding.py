"""Any number of processes, however they divide the work, come to the losses and weights of one."""

import itertools
import json
import os
import runpy
from pathlib import Path

import pytest
import safetensors.torch
import torch

PROGRAMS = Path(__file__).parent / "programs"

# replicate, shard, context, tensor, rows of a micro-batch, what is kept between them: of 16 rows a step
ALONE = {kind: f"1,1,1,1,16,whole,{kind}" for kind in ("text", "answers", "shifted")}
TWO = [
    "1,2,1,1,2,whole,answers",
    "1,2,1,1,8,whole",
    "2,1,1,1,2,whole",
    "1,1,1,2,8,whole",
    "1,1,2,1,16,whole",
    "1,1,2,1,8,whole,shifted",
]
FOUR = ["2,2,1,1,1,sharded", "1,2,1,2,4,whole", "1,1,2,2,8,whole"]


def every_mesh(size):
    """All ways to place so many processes, with 1, 2 and 4 micro-batches each."""
    for sizes in itertools.product((1, 2, 4), repeat=4):
        if torch.tensor(sizes).prod() == size:
            rows = 16 // (sizes[0] * sizes[1])
            for parts, accumulation in ((1, "whole"), (2, "whole"), (4, "whole"), (4, "sharded")):
                yield ",".join(map(str, (*sizes, rows // parts))) + f",{accumulation}"


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Losses and weights of one process, whole batches, by what it trains on."""
    out = tmp_path_factory.mktemp("alone")
    runpy.run_path(str(PROGRAMS / "equality.py"))["main"](out, ALONE.values())
    return {kind: safetensors.torch.load_file(out / f"{mesh}.safetensors") for kind, mesh in ALONE.items()}


def compare(size, meshes, alone, job, finish, out):
    codes = finish(job([out, *meshes], out / "logs", size=size, program=PROGRAMS / "equality.py"), seconds=280)
    assert codes == [0] * size, (out / "logs" / "0").read_text()
    for mesh in meshes:
        got = safetensors.torch.load_file(out / f"{mesh}.safetensors")
        reference = alone[(mesh.split(",")[6:] or ["text"])[0]]
        assert got.keys() == reference.keys()
        assert len(got["losses"]) == 20
        for name, expected in reference.items():
            torch.testing.assert_close(got[name], expected, rtol=0, atol=1e-5, msg=f"{mesh}: {name}")


@pytest.mark.parametrize(("size", "meshes"), [(2, TWO), (4, FOUR)])
def test_these_meshes_come_to_the_same_losses_and_weights(size, meshes, alone, job, finish, tmp_path):
    compare(size, meshes, alone, job, finish, tmp_path)


@pytest.mark.slow
@pytest.mark.skipif("ILLADA_SLOW" not in os.environ, reason="ILLADA_SLOW is not set: minutes on two cores")
@pytest.mark.parametrize("size", [1, 2, 4])
def test_every_mesh_comes_to_the_same_losses_and_weights(size, alone, job, finish, tmp_path):
    compare(size, list(every_mesh(size)), alone, job, finish, tmp_path)


def test_every_mesh_is_every_mesh():
    assert len(list(every_mesh(2))) == 4 * 4
    assert len(list(every_mesh(4))) == 10 * 4
    assert len(set(every_mesh(4))) == 10 * 4


# --- what is sent -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sent(job, finish, tmp_path_factory):
    """How often two processes gathered weights and summed gradients in two steps."""
    out = tmp_path_factory.mktemp("sent")
    codes = finish(job([out], out / "logs", size=2, program=PROGRAMS / "collectives.py"))
    assert codes == [0] * 2, (out / "logs" / "0").read_text()
    return json.loads((out / "sent.json").read_text())


GROUPS = 3  # two blocks, and the rest of the model


def test_one_micro_batch_gathers_and_sums_each_group_once(sent):
    # a block is gathered once more for its backward pass; the rest stays gathered
    assert sent["one"] == {"gathered": 2 * (2 * (GROUPS - 1) + 1), "summed": 2 * GROUPS}


def test_four_micro_batches_send_no_more_than_one(sent):
    assert sent["four whole"] == {"gathered": 2 * GROUPS, "summed": 2 * GROUPS}


def test_to_keep_a_part_only_is_paid_for_in_sums(sent):
    assert sent["four sharded"]["summed"] == 4 * 2 * GROUPS
    assert sent["four sharded"]["gathered"] == 4 * sent["one"]["gathered"]
