from dataclasses import replace

import pytest

from illada.model.accounting import count_parameters
from illada.model.config import named_size
from illada.planning.division import Wanted
from illada.planning.hardware import named_gpu
from illada.planning.plan import ASSUMED_MFU, Run, plan

RUN = Run(
    model=named_size("illada_8b"),
    length=8192,
    tokens=12 * 10**12,
    wanted=Wanted(batch_size=1024),
    checkpoint_every=1000,
    keep_last=2,
    keep_every=50_000,
)


def planned(run: Run = RUN, *, gpus: int = 512, gpu: str = "h200", **options: float):
    return plan(run, gpus=gpus, gpu=named_gpu(gpu), **options)


def test_days_follow_from_flops_by_hand():
    """6 FLOPs per weight and token; 12 layers·length·width for attention; the head at half of the positions."""
    count = count_parameters(RUN.model)
    norms = (2 * 32 + 1) * 4096
    flops = 6 * (count.non_embedding - norms) + 12 * 32 * 8192 * 4096 + 6 * 0.5 * 4096 * 155_136
    found = planned()
    assert found.division.work.checkpointing == "none"
    assert found.flops_per_token == pytest.approx(flops, rel=1e-9)
    seconds = 12e12 * flops / (512 * 989e12 * ASSUMED_MFU)
    assert found.days == pytest.approx(seconds / 86_400)
    assert found.gpu_hours == pytest.approx(512 * seconds / 3600)
    assert found.tokens_per_second == pytest.approx(12e12 / seconds)
    assert RUN.steps == 1_430_512
    assert found.seconds_per_step * RUN.steps == pytest.approx(seconds, rel=1e-6)


def test_time_goes_down_with_gpus_and_mfu_alone():
    assert planned(gpus=256).days == pytest.approx(2 * planned().days)
    assert planned(mfu=0.2).days == pytest.approx(2 * planned().days)
    assert planned(gpu="b200").days == pytest.approx(planned().days * 989 / 2250)


def test_what_is_computed_twice_takes_time():
    def days(how: str) -> float:
        return planned(replace(RUN, wanted=Wanted(batch_size=1024, checkpointing=how))).days

    blocks = 1 - 0.5 * 2 * 4096 * 155_136 * 3 / planned().flops_per_token  # what is not the head's
    assert days("full") / days("none") == pytest.approx(1 + blocks / 3, rel=1e-6)
    assert days("selective") / days("none") == pytest.approx(1 + blocks / 30, rel=1e-6)


def test_disk_is_counted_in_checkpoints_and_tokens():
    parameters = count_parameters(RUN.model).total
    disk = planned().disk
    assert disk.checkpoint == 12 * parameters
    assert disk.exported == 2 * parameters
    assert disk.kept == (28 + 2) * disk.checkpoint
    assert disk.tokens == 4 * 12 * 10**12
    assert planned(replace(RUN, average=True)).disk.checkpoint == 16 * parameters
    assert planned(replace(RUN, keep_every=None)).disk.kept == 2 * disk.checkpoint
    small = replace(RUN, model=replace(RUN.model, vocab_size=65_536))
    assert planned(small).disk.tokens == 2 * 12 * 10**12


def test_a_short_run_keeps_no_more_checkpoints_than_it_makes():
    short = replace(RUN, tokens=1024 * 8192 * 500)
    assert planned(short).disk.kept == planned(short).disk.checkpoint


# --- where it does not fit ----------------------------------------------------------------------------------------


def test_a_plan_that_fits_needs_no_advice():
    assert planned().division.fits
    assert planned().would_fit == ()


def test_more_gpus_and_larger_ones_are_named_and_do_fit():
    found = planned(gpus=1, gpu="a100")
    assert not found.division.fits
    assert found.would_fit == ("2 x A100 80GB SXM", "1 x B200 180GB")
    assert planned(gpus=2, gpu="a100").division.fits
    assert planned(gpus=1, gpu="b200").division.fits
    assert not planned(gpus=1, gpu="h200").division.fits


def test_freedom_is_named_where_something_fixed_is_in_the_way():
    fixed = replace(RUN, wanted=Wanted(batch_size=1024, micro_batch_size=64, checkpointing="none"))
    found = planned(fixed, gpus=8)
    assert not found.division.fits
    assert found.would_fit[0].startswith("8 x H200 141GB SXM with shard 8, tensor 1, none checkpointing, 1 rows")
    assert planned(gpus=8).division.fits


# --- what is refused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gpus": 0}, "gpus must be at least 1, got 0"),
        ({"mfu": 0.0}, "mfu must lie between 0 and 1, got 0.0"),
        ({"mfu": 1.1}, "mfu must lie between 0 and 1, got 1.1"),
        ({"gpus": 1000}, "does not divide among 1000 GPUs"),
    ],
)
def test_what_cannot_be_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        planned(**options)


def test_a_run_of_nothing_is_refused():
    with pytest.raises(ValueError, match="tokens must be at least 1, got 0"):
        replace(RUN, tokens=0)
