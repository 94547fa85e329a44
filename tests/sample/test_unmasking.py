"""The unmasking policies against plain loops in Python, row by row."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from illada.sample.unmasking import (
    UNMASKING,
    Block,
    Entropy,
    EntropyThreshold,
    Factor,
    LowConfidence,
    Margin,
    Random,
    RunningConfidence,
    Threshold,
    Unmasking,
    entropy_of,
    highest,
)

VOCAB = 5
FEW_VALUES = st.sampled_from([0.0, 0.125, 0.25, 0.5, 1.0])  # so that ties are the rule
MASKED, SETTLED, OUTSIDE = "masked", "settled", "outside"
ADAPTIVE = ("threshold", "factor", "entropy_threshold")


@st.composite
def blocks(draw, states=(MASKED, SETTLED, OUTSIDE)):
    """Rows of (state, confidence, noise, logits) per position, and a count that no row's masks fall short of."""
    rows, window = draw(st.integers(1, 4)), draw(st.integers(1, 9))

    def grid(values):
        return draw(st.lists(st.lists(values, min_size=window, max_size=window), min_size=rows, max_size=rows))

    state = grid(st.sampled_from(states))
    logits = grid(st.lists(st.sampled_from([-1.0, 0.0, 2.0, 6.0]), min_size=VOCAB, max_size=VOCAB))
    count = [draw(st.integers(0, row.count(MASKED))) for row in state]
    return {"state": state, "confidence": grid(FEW_VALUES), "noise": grid(FEW_VALUES), "logits": logits, "count": count}


def block_of(case):
    masked = torch.tensor([[state == MASKED for state in row] for row in case["state"]])
    return Block(
        masked=masked,
        settled=torch.tensor([[state == SETTLED for state in row] for row in case["state"]]),
        count=torch.tensor(case["count"]),
        confidence=torch.tensor(case["confidence"]),
        logits=torch.tensor(case["logits"])[masked],
        noise=lambda: torch.tensor(case["noise"]),
    )


def revealed(policy, case):
    """The positions of each row that became text."""
    block = block_of(case)
    holds = policy.select(block)
    assert not bool((block.settled & ~holds).any()), "settled text stays"
    assert not bool((holds & ~block.masked & ~block.settled).any()), "what is outside stays outside"
    return [row.nonzero().flatten().tolist() for row in holds & block.masked]


def surest(priority, case):
    """The `count` masked positions of highest priority, of equals the left one."""
    chosen = []
    for values, states, wanted in zip(priority, case["state"], case["count"], strict=True):
        masked = [place for place, state in enumerate(states) if state == MASKED]
        chosen.append(sorted(sorted(masked, key=lambda place, of=values: (-of[place], place))[:wanted]))
    return chosen


def single(confidence, *, count, states=None, logits=None):
    states = states or [MASKED] * len(confidence)
    logits = logits or [[0.0] * VOCAB] * len(confidence)
    noise = [0.0] * len(confidence)
    return {"state": [states], "confidence": [confidence], "noise": [noise], "logits": [logits], "count": [count]}


def probabilities(logits):
    weights = [math.exp(value) for value in logits]
    return [weight / sum(weights) for weight in weights]


def entropy(logits):
    return -sum(p * math.log(p) for p in probabilities(logits))


def margin(logits):
    second, first = sorted(probabilities(logits))[-2:]
    return first - second


# --- a planned number ---------------------------------------------------------------------------------------------


@given(blocks())
def test_low_confidence_reveals_the_most_confident_and_the_left_one_of_equals(case):
    assert revealed(LowConfidence(), case) == surest(case["confidence"], case)


@given(blocks())
def test_random_reveals_by_the_noise_alone(case):
    assert revealed(Random(), case) == surest(case["noise"], case)


@given(blocks())
def test_entropy_and_margin_reveal_by_the_whole_distribution(case):
    # rounded: what is equal but for the order of its sum is equal here
    narrow = [[-round(entropy(logits), 4) for logits in row] for row in case["logits"]]
    ahead = [[round(margin(logits), 4) for logits in row] for row in case["logits"]]
    for policy, naive in ((Entropy(), narrow), (Margin(), ahead)):
        for chosen, values, states, wanted in zip(
            revealed(policy, case), naive, case["state"], case["count"], strict=True
        ):
            left = [values[place] for place, state in enumerate(states) if state == MASKED and place not in chosen]
            assert len(chosen) == wanted
            assert not chosen or not left or min(values[place] for place in chosen) >= max(left)


def test_margin_and_entropy_differ_from_confidence():
    # equal confidence 0.5; the second has its rest on one rival, so it is narrower, but by no margin
    apart = [
        [math.log(p) for p in row] for row in ([0.5, 0.125, 0.125, 0.125, 0.125], [0.5, 0.49, 0.004, 0.003, 0.003])
    ]
    case = single([0.5, 0.5], count=1, logits=apart)
    assert revealed(Entropy(), case) == [[1]]
    assert revealed(Margin(), case) == [[0]]


@given(blocks(), st.sampled_from(sorted(set(UNMASKING) - set(ADAPTIVE) - {"running_confidence"})))
def test_the_planned_number_is_revealed_exactly(case, name):
    assert [len(row) for row in revealed(UNMASKING[name](), case)] == case["count"]


@pytest.mark.parametrize("name", sorted(UNMASKING))
def test_equals_are_revealed_from_the_left(name):
    states = [SETTLED, MASKED, MASKED, OUTSIDE, MASKED, MASKED]
    case = single([0.5] * 6, count=3, states=states)
    case["confidence"][0][0] = 0.75
    assert [place for place in UNMASKING[name]().select(block_of(case))[0].nonzero().flatten().tolist() if place] == [
        1,
        2,
        4,
    ]


# --- as many as are sure ------------------------------------------------------------------------------------------


@given(blocks(), st.sampled_from([0.125, 0.5, 1.0]))
def test_threshold_reveals_all_from_tau_on_and_the_planned_number_at_least(case, tau):
    at_least = surest(case["confidence"], case)
    expected = [
        sorted({*few, *(p for p, s in enumerate(states) if s == MASKED and values[p] >= tau)})
        for few, states, values in zip(at_least, case["state"], case["confidence"], strict=True)
    ]
    assert revealed(Threshold(tau=tau), case) == expected


@given(blocks(), st.sampled_from([0.5, 1.0, 2.0]))
def test_factor_reveals_the_longest_run_that_keeps_its_rule(case, factor):
    for chosen, states, values, planned in zip(
        revealed(Factor(factor=factor), case), case["state"], case["confidence"], case["count"], strict=True
    ):
        masked = sorted((p for p, s in enumerate(states) if s == MASKED), key=lambda p: (-values[p], p))
        run = 0
        while run < len(masked) and (run + 2) * (1 - values[masked[run]]) < factor:
            run += 1
        assert chosen == sorted(masked[: max(run, planned)])


@given(blocks(), st.sampled_from([0.0, 0.5, 1.5]))
def test_entropy_threshold_reveals_all_that_are_narrow_enough(case, tau):
    for chosen, states, logits, planned in zip(
        revealed(EntropyThreshold(tau=tau), case), case["state"], case["logits"], case["count"], strict=True
    ):
        masked = [place for place, state in enumerate(states) if state == MASKED]
        narrow = {place for place in masked if entropy(logits[place]) <= tau - 1e-4}
        nearly = {place for place in masked if entropy(logits[place]) <= tau + 1e-4}
        assert narrow <= set(chosen)
        assert len(chosen) >= planned
        assert set(chosen) <= nearly or len(chosen) == planned


# --- revised ------------------------------------------------------------------------------------------------------


@given(blocks(states=(MASKED, SETTLED)))
def test_running_confidence_keeps_the_highest_of_all_that_was_ever_chosen(case):
    block = block_of(case)
    holds = RunningConfidence().select(block)
    for row, (values, states, wanted) in enumerate(zip(case["confidence"], case["state"], case["count"], strict=True)):
        settled = [place for place, state in enumerate(states) if state == SETTLED]
        order = sorted(range(len(states)), key=lambda place, of=values: (-of[place], place))
        expected = sorted(order[: len(settled) + wanted]) if wanted else settled
        assert holds[row].nonzero().flatten().tolist() == expected


def test_running_confidence_masks_weak_text_again():
    case = single([0.2, 0.9, 0.8, 0.1], count=1, states=[SETTLED, MASKED, MASKED, MASKED])
    assert RunningConfidence().select(block_of(case)).tolist() == [[False, True, True, False]]


# --- all of them --------------------------------------------------------------------------------------------------


@given(blocks(states=(MASKED, SETTLED)), st.sampled_from(sorted(UNMASKING)))
def test_every_policy_comes_to_an_end(case, name):
    """Whatever the confidences: each row with a count has fewer masks afterwards, and none with the last of them."""
    block = block_of(case)
    after = UNMASKING[name]().select(block).sum(1)
    assert bool((after >= block.settled.sum(1) + block.count).all())
    whole = {**case, "count": [row.count(MASKED) for row in case["state"]]}
    assert bool(UNMASKING[name]().select(block_of(whole)).all())


def test_a_masked_position_of_no_confidence_at_all_goes_before_an_unmasked_one():
    case = single([1.0, 0.0, 1.0], count=1, states=[SETTLED, MASKED, SETTLED])
    assert revealed(LowConfidence(), case) == [[1]]


def test_more_than_there_are_masked_reveals_what_there_is():
    among = torch.tensor([[True, False, True]])
    assert highest(torch.ones(1, 3), among=among, count=torch.tensor([3])).tolist() == [[True, False, True]]


def test_the_rows_have_counts_of_their_own():
    case = single([0.1, 0.9, 0.5], count=0)
    case = {key: value * 3 for key, value in case.items()} | {"count": [0, 1, 3]}
    assert revealed(LowConfidence(), case) == [[], [1], [0, 1, 2]]


def test_suppressed_tokens_add_nothing_to_an_entropy():
    logits = torch.tensor([[1.0, 2.0, -torch.inf], [-torch.inf, 0.0, -torch.inf]])
    assert entropy_of(logits).tolist() == pytest.approx([entropy([1.0, 2.0]), 0.0], abs=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Threshold(tau=0.0), "tau of threshold must be above 0 and at most 1, got 0.0"),
        (lambda: Threshold(tau=1.5), "got 1.5"),
        (lambda: Factor(factor=0.0), "factor must be above 0, got 0.0"),
        (lambda: EntropyThreshold(tau=-1.0), "tau of entropy_threshold must be 0 or more, got -1.0"),
    ],
)
def test_values_out_of_range_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_all_are_policies():
    assert all(isinstance(policy(), Unmasking) for policy in UNMASKING.values())
