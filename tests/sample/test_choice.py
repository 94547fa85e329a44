"""Which token a position gets: argmax, nucleus and addressed Gumbel noise, each by a second route."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from illada.sample.choice import choose_tokens, nucleus
from illada.seeding import Stream

NONE = torch.tensor([], dtype=torch.int64)
FIVE = [1.0, 0.0, -0.5, 0.3, -2.0]
CHI_SQUARE_999 = {1: 10.83, 2: 13.82, 3: 16.27, 4: 18.47}
"""Exceeded once in a thousand, by degrees of freedom."""


def choose(logits, *, temperature=0.0, top_p=1.0, seeds=None, step=0, hole=None, suppress=NONE, reveal_last=NONE):
    """`choose_tokens` for a grid of positions: every row has its seed and step, every column its hole."""
    rows, window, vocabulary = logits.shape
    seeds = torch.zeros(rows, dtype=torch.int64) if seeds is None else torch.as_tensor(seeds)
    steps = torch.as_tensor(step).expand(rows)
    hole = torch.arange(window).expand(rows, window) if hole is None else hole
    tokens, confidence = choose_tokens(
        logits.reshape(-1, vocabulary).index_fill(-1, suppress, -torch.inf),
        reveal_last=reveal_last,
        temperature=temperature,
        top_p=top_p,
        seed=seeds.repeat_interleave(window),
        step=steps.repeat_interleave(window),
        hole=hole.reshape(-1),
    )
    return tokens.view(rows, window), confidence.view(rows, window)


def softmax(values):
    """In plain Python; -inf has no probability."""
    peak = max(values)
    weights = [math.exp(value - peak) for value in values]
    return [weight / sum(weights) for weight in weights]


def naive_nucleus(weights, enough):
    """Ids from the heaviest down, the lower id first among equals, until their whole weights reach `enough`."""
    kept, total = [], 0
    for token in sorted(range(len(weights)), key=lambda token: (-weights[token], token)):
        kept.append(token)
        total += weights[token]
        if total >= enough:
            break
    return sorted(kept)


def kept_tokens(logits):
    return logits.isfinite().nonzero().flatten().tolist()


# temperature 0


@given(st.lists(st.lists(st.sampled_from([-1.0, 0.0, 2.0]), min_size=4, max_size=4), min_size=1, max_size=6))
def test_temperature_zero_takes_the_likeliest_and_the_lowest_id_of_equals(rows):
    tokens, confidence = choose(torch.tensor([rows]))
    for values, token, sure in zip(rows, tokens[0].tolist(), confidence[0].tolist(), strict=True):
        assert token == values.index(max(values))
        assert sure == pytest.approx(max(softmax(values)), rel=1e-6)


def test_ties_go_to_the_lowest_id_in_a_wide_vocabulary():
    logits = torch.zeros(2, 3, 1000)
    logits[..., [411, 700, 999]] = 3.0
    assert (choose(logits)[0] == 411).all()
    assert (choose(logits, suppress=torch.tensor([411]))[0] == 700).all()


def test_half_precision_logits_are_compared_and_normalised_in_fp32():
    logits = torch.randn(2, 3, 7, generator=torch.Generator().manual_seed(0)).bfloat16()
    tokens, confidence = choose(logits)
    assert confidence.dtype == torch.float32
    expected = logits.float().softmax(-1).max(-1)
    assert torch.equal(tokens, expected.indices)
    assert torch.equal(confidence, expected.values)


# suppression


@pytest.mark.parametrize("temperature", [0.0, 1.0, 3.0])
@pytest.mark.parametrize("top_p", [1.0, 0.5])
def test_a_suppressed_token_is_never_chosen_and_counts_in_no_confidence(temperature, top_p):
    logits = torch.tensor([9.0, 1.0, 9.0, 0.0, -1.0]).expand(3, 200, 5)
    tokens, confidence = choose(
        logits, suppress=torch.tensor([0, 2]), temperature=temperature, top_p=top_p, seeds=[1, 2, 3]
    )
    assert not bool(((tokens == 0) | (tokens == 2)).any())
    expected = softmax([-math.inf, 1.0, -math.inf, 0.0, -1.0])
    assert confidence.flatten().tolist() == pytest.approx([expected[token] for token in tokens.flatten()], rel=1e-6)
    assert temperature == 0 or top_p < 1 or set(tokens.flatten().tolist()) == {1, 3, 4}


def test_the_confidence_depends_on_neither_temperature_nor_nucleus():
    logits = torch.tensor(FIVE).expand(1, 300, 5)
    probability = softmax(FIVE)
    for temperature, top_p in [(0.3, 1.0), (2.0, 1.0), (2.0, 0.6)]:
        tokens, confidence = choose(logits, temperature=temperature, top_p=top_p)
        assert confidence[0].tolist() == pytest.approx([probability[token] for token in tokens[0]], rel=1e-6)


def test_the_logits_of_the_caller_stay_as_they_are():
    logits = torch.tensor(FIVE).expand(1, 2, 5).clone()
    choose(logits, suppress=torch.tensor([0]), temperature=1.0, top_p=0.5)
    assert torch.equal(logits, torch.tensor(FIVE).expand(1, 2, 5))


# nucleus


@given(st.lists(st.integers(1, 9), min_size=1, max_size=12), st.data())
def test_nucleus_equals_a_plain_loop(weights, data):
    # half-way between two whole sums of weights, so that rounding decides nothing
    below = data.draw(st.integers(0, sum(weights) - 1))
    kept = nucleus(torch.tensor(weights).double().log(), (below + 0.5) / sum(weights))
    expected = naive_nucleus(weights, below + 0.5)
    assert kept_tokens(kept) == expected
    assert torch.equal(kept[expected], torch.tensor(weights).double().log()[expected])


@given(st.lists(st.lists(st.integers(1, 9), min_size=5, max_size=5), min_size=2, max_size=4), st.data())
def test_every_position_has_a_nucleus_of_its_own(rows, data):
    top_p = data.draw(st.sampled_from([0.1003, 0.5003, 0.9003]))
    together = nucleus(torch.tensor([rows]).double().log(), top_p)[0]
    for row, weights in zip(together, rows, strict=True):
        assert kept_tokens(row) == naive_nucleus(weights, top_p * sum(weights))


def test_of_equal_tokens_the_nucleus_takes_the_lower_ids_and_stops_once_it_has_enough():
    assert kept_tokens(nucleus(torch.zeros(4), 0.5)) == [0, 1]
    assert kept_tokens(nucleus(torch.zeros(4), 0.51)) == [0, 1, 2]


@given(st.lists(st.floats(-30, 30), min_size=1, max_size=8), st.sampled_from([1e-12, 0.01, 0.5, 0.99]))
def test_the_likeliest_is_always_kept(values, top_p):
    logits = torch.tensor(values, dtype=torch.float64)
    assert values.index(max(values)) in kept_tokens(nucleus(logits, top_p))


def test_top_p_of_one_keeps_everything():
    logits = torch.tensor(FIVE)
    assert torch.equal(nucleus(logits, 1.0), logits)
    # a tail far below fp64 rounding of the sum is still there to be drawn
    long_tail = torch.tensor([0.0, -45.0]).expand(1, 100, 2)
    assert set(choose(long_tail, temperature=45.0)[0].flatten().tolist()) == {0, 1}


@given(st.integers(0, 2**63 - 1))
def test_a_tiny_nucleus_is_the_argmax_at_any_temperature(seed):
    logits = torch.tensor(FIVE).expand(1, 8, 5)
    assert (choose(logits, temperature=5.0, top_p=1e-9, seeds=[seed])[0] == 0).all()


# sampling


def draws(address, count, **options):
    """`count` tokens of the 5-token vocabulary, each at an address of its own along one of the three axes."""
    numbers = torch.arange(count)
    if address == "hole":
        return choose(torch.tensor(FIVE).expand(1, count, 5), seeds=[7], **options)[0].flatten()
    where = {"seeds": numbers} if address == "seed" else {"step": numbers}
    return choose(torch.tensor(FIVE).expand(count, 1, 5), **where, **options)[0].flatten()


def assert_follows(tokens, expected):
    counts = torch.bincount(tokens, minlength=len(expected)).tolist()
    assert all(count == 0 for count, share in zip(counts, expected, strict=True) if share == 0)
    terms = [
        (count - len(tokens) * share) ** 2 / (len(tokens) * share)
        for count, share in zip(counts, expected, strict=True)
        if share
    ]
    assert sum(terms) < CHI_SQUARE_999[len(terms) - 1]


@pytest.mark.parametrize("address", ["hole", "seed", "step"])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_frequencies_follow_the_softmax_at_that_temperature(address, temperature):
    tokens = draws(address, 6000, temperature=temperature)
    assert_follows(tokens, softmax([value / temperature for value in FIVE]))


@pytest.mark.parametrize(("top_p", "kept"), [(0.6, [0, 3]), (0.8, [0, 1, 3]), (0.95, [0, 1, 2, 3])])
def test_frequencies_inside_a_nucleus_are_those_of_the_renormalised_softmax(top_p, kept):
    assert_follows(
        draws("hole", 6000, temperature=1.0, top_p=top_p),
        softmax([value if token in kept else -math.inf for token, value in enumerate(FIVE)]),
    )


def test_the_nucleus_is_taken_after_the_temperature():
    # at temperature 1 the first token alone has 0.47; at temperature 10 it takes all five to reach 0.9
    assert set(draws("hole", 500, temperature=1.0, top_p=0.4).tolist()) == {0}
    assert set(draws("hole", 500, temperature=10.0, top_p=0.9).tolist()) == {0, 1, 2, 3, 4}


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_the_choice_is_that_of_the_exponential_form(temperature):
    # LLaDA writes the same draw as argmax(exp(logits) / (-log u) ** T)
    logits = torch.randn(3, 6, 11, generator=torch.Generator().manual_seed(1))
    seeds, steps = [5, 2**40 + 1, 2**63 - 1], [0, 3, 200]
    tokens, _ = choose(logits, temperature=temperature, seeds=seeds, step=torch.tensor(steps))
    for row in range(3):
        for position in range(6):
            address = torch.tensor(seeds[row])
            uniform = Stream(0, "gumbel").uniform64(address, 11, epoch=(steps[row] << 16) + position).tolist()
            scores = [
                math.exp(value) / (-math.log(u)) ** temperature
                for value, u in zip(logits[row, position].tolist(), uniform, strict=True)
            ]
            assert int(tokens[row, position]) == scores.index(max(scores))


# addresses


@given(st.permutations(range(6)), st.integers(1, 6), st.sampled_from([1.0, 0.8]))
def test_the_noise_is_the_same_in_any_batch(order, size, top_p):
    logits = torch.randn(6, 4, 9, generator=torch.Generator().manual_seed(2))
    seeds = torch.tensor([0, 1, 1, 2**33, 2**63 - 1, 9])
    steps = torch.tensor([0, 0, 1, 5, 5, 2])
    whole = choose(logits, temperature=1.0, top_p=top_p, seeds=seeds, step=steps)
    some = list(order[:size])
    part = choose(logits[some], temperature=1.0, top_p=top_p, seeds=seeds[some], step=steps[some])
    assert torch.equal(part[0], whole[0][some])
    assert torch.equal(part[1], whole[1][some])


@given(st.integers(0, 11), st.integers(1, 12))
def test_the_noise_is_the_same_at_any_offset_of_the_window(start, size):
    logits = torch.randn(2, 12, 9, generator=torch.Generator().manual_seed(3))
    hole = torch.arange(12).expand(2, 12)
    whole, _ = choose(logits, temperature=1.0, seeds=[4, 5], hole=hole)
    window = slice(start, start + size)
    part, _ = choose(logits[:, window], temperature=1.0, seeds=[4, 5], hole=hole[:, window])
    assert torch.equal(part, whole[:, window])


@pytest.mark.parametrize(
    "other", [{"seeds": [1]}, {"seeds": [2**32]}, {"step": 1}, {"hole": torch.arange(40)[None] + 1}]
)
def test_another_address_is_other_noise(other):
    logits = torch.zeros(1, 40, 9)
    tokens, changed = choose(logits, temperature=1.0)[0], choose(logits, temperature=1.0, **other)[0]
    # 8 in 9 differ when nothing is shared
    assert int((tokens != changed).sum()) > 25


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_noise_in_float64_decides_what_fp32_would_round_away(temperature):
    # two logits / T near 1000, where fp32 has steps of 6e-5, made to differ by hardly more or less than their noise
    count = 400
    uniform = Stream(0, "gumbel").uniform64(torch.zeros(count, dtype=torch.int64), 2, epoch=torch.arange(count))
    gumbel = -(-uniform.log()).log()
    logits = torch.full((count, 2), 1000.0 * temperature)
    logits[:, 1] += (temperature * (gumbel[:, 0] - gumbel[:, 1])).float()
    exact = (logits.double() / temperature + gumbel).argmax(-1)
    rounded = (logits / temperature + gumbel.float()).argmax(-1)
    assert int((exact != rounded).sum()) > count // 10
    assert torch.equal(choose(logits[None], temperature=temperature)[0][0], exact)


# what is revealed last


def test_a_token_to_be_revealed_last_is_chosen_with_probability_zero_and_counts_in_no_other():
    logits = torch.tensor([[FIVE, [0.0, 3.0, 1.0, 1.0, 1.0]]])
    tokens, confidence = choose(logits, reveal_last=torch.tensor([0]))
    assert tokens.tolist() == [[0, 1]]
    assert confidence[0, 0] == 0
    assert confidence[0, 1] == pytest.approx(softmax([-math.inf, 3.0, 1.0, 1.0, 1.0])[1], rel=1e-6)
