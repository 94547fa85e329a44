"""The unmasking policies against a plain sort in Python, row by row."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from illada.sample.unmasking import UNMASKING, LowConfidence, Random, Unmasking, highest

FEW_VALUES = st.sampled_from([0.0, 0.125, 0.25, 0.5, 1.0])  # so that ties are the rule


@st.composite
def windows(draw):
    """Confidence, noise, masks and counts of a small batch; no count exceeds what is masked."""
    rows, window = draw(st.integers(1, 4)), draw(st.integers(1, 9))

    def grid(values):
        return draw(st.lists(st.lists(values, min_size=window, max_size=window), min_size=rows, max_size=rows))

    masked = grid(st.booleans())
    count = [draw(st.integers(0, sum(row))) for row in masked]
    return grid(FEW_VALUES), grid(FEW_VALUES), masked, count


def naive(priority, masked, count):
    """The positions of the `count` highest priorities, one row at a time."""
    chosen = []
    for values, open_here, wanted in zip(priority, masked, count, strict=True):
        candidates = [position for position, is_open in enumerate(open_here) if is_open]
        candidates.sort(key=lambda position: (-values[position], position))
        chosen.append(sorted(candidates[:wanted]))
    return chosen


def positions(window):
    return [row.nonzero().flatten().tolist() for row in window]


def select(policy, confidence, uniform, masked, count):
    selected = policy.select(
        torch.tensor(confidence), masked=torch.tensor(masked), count=torch.tensor(count), uniform=torch.tensor(uniform)
    )
    return positions(selected)


@given(windows())
def test_low_confidence_reveals_the_most_confident_and_the_left_one_of_equals(case):
    confidence, uniform, masked, count = case
    assert select(LowConfidence(), confidence, uniform, masked, count) == naive(confidence, masked, count)


@given(windows())
def test_random_reveals_by_the_noise_alone(case):
    confidence, uniform, masked, count = case
    assert select(Random(), confidence, uniform, masked, count) == naive(uniform, masked, count)


@given(windows(), st.sampled_from(sorted(UNMASKING)))
def test_every_policy_reveals_the_exact_count_and_only_masked_positions(case, name):
    confidence, uniform, masked, count = case
    selected = select(UNMASKING[name], confidence, uniform, masked, count)
    assert [len(row) for row in selected] == count
    for row, open_here in zip(selected, masked, strict=True):
        assert all(open_here[position] for position in row)


@pytest.mark.parametrize("name", sorted(UNMASKING))
def test_equals_are_revealed_from_the_left(name):
    level = [[0.5] * 6]
    masked = [[False, True, True, False, True, True]]
    assert select(UNMASKING[name], level, level, masked, [3]) == [[1, 2, 4]]


def test_a_masked_position_of_no_confidence_at_all_goes_before_an_unmasked_one():
    chosen = select(LowConfidence(), [[1.0, 0.0, 1.0]], [[0.0] * 3], [[False, True, False]], [1])
    assert chosen == [[1]]


def test_more_than_there_are_masked_reveals_what_there_is():
    mask = torch.tensor([[True, False, True]])
    assert positions(highest(torch.ones(1, 3), masked=mask, count=torch.tensor([3]))) == [[0, 2]]


def test_the_rows_have_counts_of_their_own():
    confidence = [[0.1, 0.9, 0.5]] * 3
    masked = [[True] * 3] * 3
    assert select(LowConfidence(), confidence, confidence, masked, [0, 1, 3]) == [[], [1], [0, 1, 2]]


def test_the_policies_are_found_by_name():
    assert sorted(UNMASKING) == ["low_confidence", "random"]
    assert (UNMASKING["low_confidence"], UNMASKING["random"]) == (LowConfidence(), Random())
    assert all(isinstance(policy, Unmasking) for policy in UNMASKING.values())
