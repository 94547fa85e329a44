"""The plan of reveals: every hole once, in block order, in as many forwards as were asked for."""

import math
from itertools import groupby

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from illada.sample.plan import PlannedStep, even_shares, reveal_plan

HOLES = st.integers(1, 60)
BLOCK_LENGTHS = st.integers(1, 70)


def plan_of(holes, block_length, steps):
    """The plan as plain triples (start, stop, reveals)."""
    plan = reveal_plan(holes, block_length=block_length, steps=steps)
    return [(step.start, step.stop, step.reveals) for step in plan]


def runs(plan):
    """[((start, stop), [reveals of each of its steps])] in the order of the plan."""
    return [(span, [step[2] for step in steps]) for span, steps in groupby(plan, key=lambda step: step[:2])]


def transfer_counts(masks, steps):
    """LLaDA's rule for one block: as many per step as divide, the first `masks % steps` steps take one more."""
    counts = []
    for number in range(steps):
        count = masks // steps
        if number < masks % steps:
            count += 1
        counts.append(count)
    return counts


@given(HOLES, BLOCK_LENGTHS, st.integers(1, 70))
@example(5, 4, 5)  # a short last block has no use for the steps its length would earn it
@example(7, 3, 6)
def test_every_hole_is_revealed_exactly_once_in_block_order(holes, block_length, steps):
    blocks = runs(plan_of(holes, block_length, steps))
    reached = 0
    for (start, stop), counts in blocks:
        assert start == reached
        assert sum(counts) == stop - start
        reached = stop
    assert reached == holes


@given(HOLES, BLOCK_LENGTHS, st.integers(1, 70))
@example(5, 4, 5)
@example(6, 5, 6)
@example(3, 1, 9)
def test_the_plan_has_exactly_the_steps_asked_for_and_each_reveals_something(holes, block_length, steps):
    plan = plan_of(holes, block_length, steps)
    assert len(plan) == min(steps, holes)
    assert all(reveals >= 1 for _, _, reveals in plan)


@given(HOLES, BLOCK_LENGTHS, st.integers(1, 70))
def test_counts_inside_a_block_differ_by_at_most_one_and_the_larger_come_first(holes, block_length, steps):
    for _, counts in runs(plan_of(holes, block_length, steps)):
        assert counts == sorted(counts, reverse=True)
        assert counts[0] - counts[-1] <= 1


@given(HOLES, BLOCK_LENGTHS)
def test_one_step_per_hole_reveals_one_at_a_time(holes, block_length):
    plan = plan_of(holes, block_length, holes)
    assert [reveals for _, _, reveals in plan] == [1] * holes
    assert [start for start, _, _ in plan] == [hole - hole % block_length for hole in range(holes)]


@given(st.integers(1, 6), st.integers(1, 12), st.data())
def test_equal_blocks_and_dividing_steps_are_the_rule_of_llada(blocks, block_length, data):
    per_block = data.draw(st.integers(1, block_length))
    expected = [
        ((number * block_length, (number + 1) * block_length), transfer_counts(block_length, per_block))
        for number in range(blocks)
    ]
    assert runs(plan_of(blocks * block_length, block_length, blocks * per_block)) == expected


@given(HOLES, BLOCK_LENGTHS, st.data())
def test_enough_steps_stop_at_every_block(holes, block_length, data):
    blocks = math.ceil(holes / block_length)
    steps = data.draw(st.integers(blocks, holes))
    spans = [span for span, _ in runs(plan_of(holes, block_length, steps))]
    assert spans == [(start, min(start + block_length, holes)) for start in range(0, holes, block_length)]


@given(HOLES, BLOCK_LENGTHS, st.data())
def test_equal_blocks_get_steps_that_differ_by_at_most_one_and_the_last_no_more(holes, block_length, data):
    blocks = math.ceil(holes / block_length)
    steps = data.draw(st.integers(blocks, holes))
    shares = [len(counts) for _, counts in runs(plan_of(holes, block_length, steps))]
    whole = shares[: holes // block_length]
    assert whole == sorted(whole, reverse=True)
    assert not whole or whole[0] - whole[-1] <= 1
    assert shares[-1] <= shares[0]


@given(st.integers(2, 60), st.integers(1, 20), st.data())
def test_fewer_steps_than_blocks_fill_runs_of_whole_blocks(holes, block_length, data):
    blocks = math.ceil(holes / block_length)
    steps = data.draw(st.integers(1, max(1, blocks - 1)))
    plan = plan_of(holes, block_length, steps)
    sizes = []
    for start, stop, reveals in plan:
        assert start % block_length == 0
        assert stop % block_length == 0 or stop == holes
        assert reveals == stop - start
        sizes.append(math.ceil((stop - start) / block_length))
    assert sizes == transfer_counts(blocks, steps)


@pytest.mark.parametrize(
    ("holes", "block_length", "steps", "expected"),
    [
        (1, 1, 1, [(0, 1, 1)]),
        (4, 40, 1, [(0, 4, 4)]),
        (5, 40, 3, [(0, 5, 2), (0, 5, 2), (0, 5, 1)]),
        (8, 4, 4, [(0, 4, 2), (0, 4, 2), (4, 8, 2), (4, 8, 2)]),
        # three steps for two blocks: the left one takes what does not divide
        (8, 4, 3, [(0, 4, 2), (0, 4, 2), (4, 8, 4)]),
        # the last block has one hole, so one step: the other four go to the first
        (5, 4, 5, [(0, 4, 1), (0, 4, 1), (0, 4, 1), (0, 4, 1), (4, 5, 1)]),
        # room 3 and 1 beyond the first step each: of two steps more, 1.5 and 0.5 are due, and a tie goes left
        (6, 4, 4, [(0, 4, 2), (0, 4, 1), (0, 4, 1), (4, 6, 2)]),
        # five blocks in two steps: three blocks, then two, the last of them short
        (9, 2, 2, [(0, 6, 6), (6, 9, 3)]),
        # more steps than holes
        (3, 2, 8, [(0, 2, 1), (0, 2, 1), (2, 3, 1)]),
        (0, 4, 3, []),
    ],
)
def test_examples_worked_out_by_hand(holes, block_length, steps, expected):
    assert plan_of(holes, block_length, steps) == expected


def test_a_step_is_plain_data():
    assert reveal_plan(2, block_length=2, steps=1) == [PlannedStep(start=0, stop=2, reveals=2)]


@given(st.integers(0, 50), st.integers(1, 60))
def test_even_shares_are_the_rule_of_llada(total, parts):
    assert even_shares(total, parts) == transfer_counts(total, parts)
