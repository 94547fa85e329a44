"""The times of the forward process (`illada.diffusion.corruption.sample_times`)."""

import math

import pytest
import torch

from illada.diffusion.corruption import _DISCRIMINANTS, _step, sample_times
from illada.seeding import Stream

FLOOR = 1e-6
GOLDEN_64 = 0x9E3779B97F4A7C15 - 2**64  # 2⁶⁴ over the golden ratio, as a signed integer


def star_discrepancy(u):
    """The largest difference between the share of points below x and x itself, over the last dimension."""
    ordered, n = u.double().sort(dim=-1).values, u.shape[-1]
    rank = torch.arange(n, dtype=torch.float64)
    return torch.maximum((rank + 1) / n - ordered, ordered - rank / n).amax(dim=-1)


def times(example, *, seed=0, **options):
    return sample_times(example, stream=Stream(seed, "time"), floor=FLOOR, **options)


@pytest.mark.parametrize("low_discrepancy", [True, False])
def test_times_lie_between_the_floor_and_one(low_discrepancy):
    for floor in (1e-3, 0.1):
        t = sample_times(
            torch.arange(50_000),
            stream=Stream(0, "time"),
            segments=2,
            low_discrepancy=low_discrepancy,
            floor=floor,
        )
        assert t.shape == (50_000, 2)
        assert t.dtype == torch.float32
        assert float(t.min()) >= torch.tensor(floor)
        assert float(t.max()) <= 1
        assert float(t.min()) < floor + 1e-3  # and reach both ends
        assert float(t.max()) > 1 - 1e-3


@pytest.mark.parametrize("low_discrepancy", [True, False])
def test_the_time_of_one_example_is_uniform_over_the_noise(low_discrepancy):
    # 4000 passes give one example as many independent times; 1.95 / sqrt(n) is the 99.9 % point of the test
    t = times(torch.full((4000,), 12345), epoch=torch.arange(4000), segments=3, low_discrepancy=low_discrepancy)
    assert float(star_discrepancy(t.T).max()) < 1.95 / math.sqrt(4000)


def test_the_time_of_one_example_is_uniform_over_the_seeds():
    t = torch.stack([times(torch.tensor([77]), seed=seed)[0, 0] for seed in range(300)])
    assert float(star_discrepancy(t)) < 1.95 / math.sqrt(300)


@pytest.mark.parametrize("n", [8, 16, 32, 64, 128, 256])
def test_every_run_of_consecutive_examples_covers_the_interval_evenly(n):
    # windows at every start from 0 to 400: aligned and not; the discrepancy of such sequences grows like log n
    for seed in range(3):
        t = times(torch.arange(400 + n), seed=seed, segments=len(_DISCRIMINANTS)).T
        worst = star_discrepancy(t.unfold(1, n, 1)).amax(dim=1)
        assert float(worst[0]) <= (1 + 0.45 * math.log(n)) / n
        assert float(worst.max()) <= (2 + 0.5 * math.log(n)) / n


def test_runs_are_far_more_even_than_plain_sampling():
    windows = {even: times(torch.arange(4096), low_discrepancy=even)[:, 0].reshape(16, 256) for even in (True, False)}
    assert float(star_discrepancy(windows[True]).max()) < float(star_discrepancy(windows[False]).min()) / 2


def test_examples_far_out_are_as_even_as_the_first():
    n = 64
    t = times(torch.arange(n) + 2**60)[:, 0]
    assert float(star_discrepancy(t)) <= (1 + 0.45 * math.log(n)) / n


@pytest.mark.parametrize("low_discrepancy", [True, False])
def test_times_do_not_depend_on_the_batch_or_its_order(low_discrepancy):
    example = torch.arange(100, 164)
    epoch = torch.arange(64) // 32
    whole = times(example, epoch=epoch, segments=2, low_discrepancy=low_discrepancy)
    for size in (1, 7, 32):
        parts = [
            times(part, epoch=part_epoch, segments=2, low_discrepancy=low_discrepancy)
            for part, part_epoch in zip(example.split(size), epoch.split(size), strict=True)
        ]
        assert torch.equal(torch.cat(parts), whole)
    shuffle = torch.randperm(64, generator=torch.Generator().manual_seed(0))
    shuffled = times(example[shuffle], epoch=epoch[shuffle], segments=2, low_discrepancy=low_discrepancy)
    assert torch.equal(shuffled, whole[shuffle])


@pytest.mark.parametrize("low_discrepancy", [True, False])
def test_more_segments_leave_the_first_ones_as_they_are(low_discrepancy):
    example = torch.arange(20)
    few, many = (times(example, segments=count, low_discrepancy=low_discrepancy) for count in (2, 12))
    assert torch.equal(few, many[:, :2])


def test_seeds_epochs_and_segments_differ():
    example = torch.arange(8)
    first = times(example, segments=10)
    assert not torch.equal(first, times(example, seed=1, segments=10))
    assert not torch.equal(first, times(example, epoch=1, segments=10))
    assert len(set(first[0].tolist())) == 10


def test_two_segments_of_a_row_fill_the_square_together():
    # 16 rows to a cell; a fixed shift between them would leave three quarters of the 8 x 8 cells empty
    t = times(torch.arange(1024), segments=8)
    cells = (t * 8).long().clamp(max=7)
    for other in range(1, 8):
        occupied = (cells[:, 0] * 8 + cells[:, other]).bincount(minlength=64)
        assert int(occupied.min()) >= 4, f"segment {other}"
        assert int(occupied.max()) <= 28, f"segment {other}"


def test_the_first_step_is_the_golden_ratio_and_all_are_the_roots_they_claim():
    assert _step(5) == GOLDEN_64
    for discriminant in _DISCRIMINANTS:
        root = (discriminant % 2 + math.sqrt(discriminant)) / 2
        assert math.isclose(_step(discriminant) % 2**64 / 2**64, root % 1, rel_tol=1e-14)


def test_the_exact_sequence_is_offset_plus_multiples_of_the_step():
    # in Python's integers, where nothing wraps
    stream = Stream(5, "time")
    high, low = stream.words(torch.tensor([0]), 2)[0].tolist()
    for example in (0, 1, 2**40 + 3):
        fraction = ((high << 32) + low + example * (GOLDEN_64 % 2**64)) % 2**64 / 2**64
        t = sample_times(torch.tensor([example]), stream=stream, floor=FLOOR)
        assert math.isclose(float(t), FLOOR + (1 - FLOOR) * fraction, abs_tol=2e-7)


@pytest.mark.parametrize("floor", [0.0, -0.1, 1.0, 2.0])
def test_a_floor_outside_the_interval_is_refused_with_its_value(floor):
    with pytest.raises(ValueError, match=f"0 < floor < ceiling <= 1 .*a floor of {floor}"):
        sample_times(torch.arange(2), stream=Stream(0, "time"), floor=floor)
