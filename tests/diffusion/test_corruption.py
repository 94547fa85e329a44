import itertools
import math
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from illada.diffusion.corruption import absorb, mask_exactly, spread_times, stratified_counts
from illada.seeding import Stream

MASK = 9


def midpoints(count):
    """A uniform number taken at every value of an even grid: its law, without sampling error."""
    return (torch.arange(count, dtype=torch.float64) + 0.5) / count


# absorb


def test_marginal_mask_rate_equals_one_minus_alpha_exactly(schedule):
    t = torch.tensor([0.05, 0.3, 0.5, 0.77, 1.0], dtype=torch.float64)
    masking = 1 - schedule.alpha(t)
    uniform = midpoints(1000).expand(5, -1)
    clean = torch.full(uniform.shape, 2)
    noisy, masked = absorb(clean, masking[:, None].expand_as(uniform), uniform=uniform, mask_id=MASK)
    rate = masked.double().mean(dim=1)
    assert torch.all((rate - masking).abs() <= 0.5 / 1000 + 1e-12)
    assert torch.equal(noisy == MASK, masked)


def test_marginal_mask_rate_equals_one_minus_alpha_on_the_stream(schedule):
    t = torch.tensor([0.1, 0.5, 0.9])
    masking = 1 - schedule.alpha(t)
    draws = 20_000
    uniform = Stream(0, "mask").uniform(torch.arange(3), draws)
    _, masked = absorb(
        torch.zeros(3, draws, dtype=torch.int64),
        masking[:, None].expand(3, draws),
        uniform=uniform,
        mask_id=MASK,
    )
    deviation = (masked.float().mean(dim=1) - masking) / (masking * (1 - masking) / draws).sqrt()
    assert float(deviation.abs().max()) < 4


def test_absorb_changes_masked_positions_only():
    clean = torch.tensor([[1, 2, 3], [4, 5, 6]])
    uniform = torch.tensor([[0.1, 0.6, 0.3], [0.0, 0.99, 0.5]])
    noisy, masked = absorb(clean, torch.full((2, 3), 0.5), uniform=uniform, mask_id=MASK)
    assert noisy.tolist() == [[MASK, 2, MASK], [MASK, 5, 6]]
    assert masked.tolist() == [[True, False, True], [True, False, False]]
    assert clean.tolist() == [[1, 2, 3], [4, 5, 6]]


def test_probability_zero_never_masks_and_one_always_does():
    uniform = torch.tensor([[0.0, 1 - 2.0**-24]])
    clean = torch.tensor([[1, 2]])
    assert absorb(clean, torch.zeros(1, 2), uniform=uniform, mask_id=MASK)[0].tolist() == [[1, 2]]
    assert absorb(clean, torch.ones(1, 2), uniform=uniform, mask_id=MASK)[0].tolist() == [[MASK, MASK]]


def test_an_example_is_masked_alike_in_any_batch_and_order():
    stream, length = Stream(3, "mask"), 16

    def noisy(example):
        clean = example[:, None] + torch.zeros(len(example), length, dtype=torch.int64)
        masking = torch.full((len(example), length), 0.5)
        return absorb(clean, masking, uniform=stream.uniform(example, length), mask_id=-1)[0]

    whole = noisy(torch.arange(10))
    order = torch.tensor([7, 2, 9, 0, 5, 1, 8, 3, 6, 4])
    assert torch.equal(noisy(order), whole[order])
    assert torch.equal(torch.cat([noisy(part) for part in torch.arange(10).split(3)]), whole)


# spread_times


def test_each_position_gets_the_time_of_its_segment_and_padding_gets_zero():
    times = torch.tensor([[0.2, 0.7], [0.4, 0.9]])
    segments = torch.tensor([[0, 0, 1, 1], [0, 1, -1, -1]])
    expected = torch.tensor([[0.2, 0.2, 0.7, 0.7], [0.4, 0.9, 0.0, 0.0]])
    assert torch.equal(spread_times(times, segments), expected)


# mask_exactly


@settings(max_examples=60)
@given(data=st.data())
def test_the_count_is_exact_and_only_eligible_positions_are_taken(data):
    batch, length = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 12))
    row = st.lists(st.booleans(), min_size=length, max_size=length)
    eligible = torch.tensor(data.draw(st.lists(row, min_size=batch, max_size=batch)))
    count = torch.tensor([data.draw(st.integers(0, int(available))) for available in eligible.sum(dim=1)])
    # coarse noise, so that ties occur
    uniform = torch.tensor(data.draw(st.lists(st.sampled_from([0.0, 0.25, 0.5]), min_size=length, max_size=length)))
    masked = mask_exactly(eligible, count, uniform=uniform.expand(batch, length))
    assert torch.equal(masked.sum(dim=1), count)
    assert not bool((masked & ~eligible).any())
    for b in range(batch):
        candidates = sorted((float(uniform[i]), i) for i in range(length) if eligible[b, i])
        assert masked[b].nonzero().flatten().tolist() == sorted(i for _, i in candidates[: int(count[b])])


def test_every_subset_of_the_eligible_positions_is_equally_likely():
    draws = 15_000
    eligible = torch.tensor([True, False, True, True, True, False, True]).expand(draws, -1)
    uniform = Stream(1, "subset").uniform(torch.arange(draws), 7)
    masked = mask_exactly(eligible, torch.full((draws,), 2), uniform=uniform)
    code = (masked * 2 ** torch.arange(7)).sum(dim=1)
    values, counts = code.unique(return_counts=True)
    assert len(values) == math.comb(5, 2)
    expected = draws / len(values)
    chi_square = float(((counts - expected) ** 2 / expected).sum())
    assert chi_square < 27.9  # the 99.9 % point at 9 degrees of freedom


def test_every_order_of_the_noise_is_taken_once():
    # exactly: over the 4! orders of the noise each of the 6 pairs is chosen 4 times
    orders = torch.tensor(list(itertools.permutations([0.1, 0.2, 0.3, 0.4])))
    masked = mask_exactly(torch.ones(24, 4, dtype=torch.bool), torch.full((24,), 2), uniform=orders)
    assert sorted(Counter(map(tuple, masked.tolist())).values()) == [4] * 6


@pytest.mark.parametrize(("count", "message"), [(3, "cannot mask 3 positions of row 1, which has 2"), (-1, "-1")])
def test_a_count_out_of_range_is_refused_with_both_numbers(count, message):
    eligible = torch.tensor([[True, True, True], [True, False, True]])
    with pytest.raises(ValueError, match=message):
        mask_exactly(eligible, torch.tensor([1, count]), uniform=torch.rand(2, 3))


# stratified_counts


@pytest.mark.parametrize(("length", "samples"), [(2, 16), (3, 16), (5, 8), (7, 1), (1, 4), (100, 8), (6, 9)])
def test_every_draw_is_exactly_uniform_on_the_counts(length, samples):
    grid = 4 * length * samples
    counts = stratified_counts(length, samples, uniform=midpoints(grid))
    assert counts.shape == (grid, samples)
    for draw in range(samples):
        assert counts[:, draw].bincount(minlength=length + 1).tolist() == [0] + [grid // length] * length


@pytest.mark.parametrize(("length", "samples"), [(2, 16), (3, 16), (7, 5), (128, 16), (16, 128)])
def test_one_set_of_draws_holds_each_count_as_often_as_rounding_allows(length, samples):
    for counts in stratified_counts(length, samples, uniform=torch.rand(50, dtype=torch.float64)):
        occurrences = counts.bincount(minlength=length + 1)[1:]
        assert float((occurrences - samples / length).abs().max()) < 1


def test_counts_stay_in_range_at_the_ends_of_the_offset():
    ends = torch.tensor([0.0, 1 - 2.0**-53], dtype=torch.float64)
    for length in (1, 2, 3, 8191, 8192):
        counts = stratified_counts(length, 5, uniform=ends)
        assert int(counts.min()) >= 1
        assert int(counts.max()) <= length
