from dataclasses import replace

import pytest

from illada.model.config import ModelConfig, named_size
from illada.planning.division import Wanted, divide
from illada.planning.hardware import GPUS, Gpu, named_gpu
from illada.planning.memory import Work, peak_memory

WORK = Work(model=named_size("illada_8b"), length=8192)
WANTED = Wanted(batch_size=1024)


def holding(gigabytes: float) -> Gpu:
    """A GPU of which so much can be used."""
    gpu = replace(named_gpu("h100"), memory=round(gigabytes * 1e9 / 0.94) + 10)
    assert gpu.usable == pytest.approx(gigabytes * 1e9, abs=20)
    return gpu


@pytest.mark.parametrize("gpu", GPUS)
@pytest.mark.parametrize("gpus", [1, 2, 8, 24, 64, 512])
@pytest.mark.parametrize("size", ["tiny", "1b", "illada_8b"])
def test_a_division_uses_all_gpus_and_all_rows(gpu, gpus, size):
    wanted = Wanted(batch_size=3072)
    work = replace(WORK, model=named_size(size), length=named_size(size).max_length)
    found = divide(work, wanted, gpus=gpus, gpu=named_gpu(gpu))
    work = found.work
    assert work.shard * work.replicate * work.tensor == gpus
    assert found.rows_at_a_time * work.micro_steps == wanted.batch_size
    assert found.memory == peak_memory(work)
    assert found.fits == (found.memory.total <= named_gpu(gpu).usable)
    assert all(size % work.tensor == 0 for size in (work.model.heads, work.model.kv_heads, work.model.ffn_size))


def test_a_small_model_is_sharded_within_a_machine_and_nothing_is_computed_twice():
    work = divide(replace(WORK, model=named_size("1b"), length=4096), WANTED, gpus=64, gpu=named_gpu("h200")).work
    assert (work.shard, work.replicate, work.tensor, work.checkpointing) == (8, 8, 1, "none")


@pytest.mark.parametrize("gpus", [8, 64])
def test_the_most_rows_that_fit_go_through_a_forward(gpus):
    work = replace(WORK, model=named_size("1b"), length=4096)
    found = divide(work, WANTED, gpus=gpus, gpu=named_gpu("h100")).work
    assert 1 < found.micro_batch < WANTED.batch_size // gpus
    more = replace(found, micro_batch=2 * found.micro_batch, micro_steps=found.micro_steps // 2)
    assert peak_memory(more).total > named_gpu("h100").usable


def test_one_forward_keeps_nothing_for_the_next():
    work = replace(WORK, model=named_size("1b"), length=4096)
    found = divide(work, Wanted(batch_size=64), gpus=64, gpu=named_gpu("h100")).work
    assert (found.micro_batch, found.micro_steps) == (1, 1)
    assert not found.keeps_whole


def test_what_costs_more_is_tried_later():
    """Ever smaller GPUs: first activations are not kept, then weights are sharded further, last matrices divided."""
    seen = []
    for gigabytes in range(140, 10, -2):
        found = divide(WORK, WANTED, gpus=64, gpu=holding(gigabytes))
        if found.fits:
            work = found.work
            how = ["none", "selective", "full"].index(work.checkpointing)
            seen.append((work.tensor, work.shard > 8, how, work.accumulation == "sharded"))
    assert seen == sorted(seen)
    assert len(set(seen)) >= 5
    assert {entry[2:] for entry in seen} >= {(0, False), (0, True), (1, True)}
    assert seen[-1][0] > 1


def test_a_gpu_alone_shards_nothing():
    work = divide(replace(WORK, model=named_size("small"), length=512), WANTED, gpus=1, gpu=named_gpu("a100")).work
    assert (work.shard, work.replicate, work.tensor) == (1, 1, 1)


def test_where_nothing_fits_the_division_that_needs_least_comes_back():
    found = divide(WORK, WANTED, gpus=8, gpu=holding(5))
    assert not found.fits
    everything = [
        replace(found.work, tensor=tensor, shard=8 // tensor, replicate=1, micro_batch=1, micro_steps=steps)
        for tensor, steps in ((1, 128), (2, 256), (4, 512), (8, 1024))
    ]
    assert found.memory.total == min(peak_memory(work).total for work in everything)


# --- what is wanted -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given",
    [{"micro_batch_size": 1}, {"checkpointing": "full"}, {"shard": 64}, {"shard": 1}, {"tensor": 4}],
)
def test_what_is_given_is_kept_to(given):
    work = divide(WORK, replace(WANTED, **given), gpus=64, gpu=named_gpu("h200")).work
    found = {
        "micro_batch_size": work.micro_batch,
        "checkpointing": work.checkpointing,
        "shard": work.shard,
        "tensor": work.tensor,
    }
    assert {key: found[key] for key in given} == given


def test_a_micro_batch_need_not_divide_the_rows():
    work = divide(WORK, Wanted(batch_size=80, micro_batch_size=3, tensor=1), gpus=8, gpu=named_gpu("b200")).work
    assert (work.micro_batch, work.micro_steps) == (3, 4)


@pytest.mark.parametrize(
    ("wanted", "gpus", "message"),
    [
        (Wanted(batch_size=100, tensor=1), 8, "a step of 100 rows .* does not divide among 8 GPUs: choose a multiple"),
        (Wanted(batch_size=64, shard=3), 8, "8 GPUs do not divide into meshes of shard 3 x tensor 1"),
        (Wanted(batch_size=64, tensor=3), 8, "8 GPUs do not divide into meshes of shard 1 x tensor 3"),
        (Wanted(batch_size=64, tensor=16), 64, "tensor 16 does not divide the model's 32 heads, 8 KV heads and FFN of"),
    ],
)
def test_what_cannot_be_divided_is_named(wanted, gpus, message):
    with pytest.raises(ValueError, match=message):
        divide(WORK, wanted, gpus=gpus, gpu=named_gpu("h200"))


def test_matrices_are_divided_only_as_heads_allow():
    odd = ModelConfig(hidden_size=96, heads=3, kv_heads=3, ffn_size=256, layers=2)
    found = divide(replace(WORK, model=odd, length=64), Wanted(batch_size=64), gpus=8, gpu=holding(0.000001))
    assert (found.fits, found.work.tensor) == (False, 1)
