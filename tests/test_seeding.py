import math
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from illada.seeding import Stream, philox

WORD = st.integers(0, 2**32 - 1)
INDEX = torch.arange(1000)

# --- the cipher ---------------------------------------------------------------------------------------------------


def plain_philox(counter: list[int], key: list[int]) -> list[int]:
    """Philox4x32-10 in Python's unbounded integers, round by round as the paper draws it."""
    (x0, x1, x2, x3), (k0, k1) = counter, key
    for number in range(10):
        if number:
            k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
        high0, low0 = divmod(0xD2511F53 * x0, 2**32)
        high1, low1 = divmod(0xCD9E8D57 * x2, 2**32)
        x0, x1, x2, x3 = high1 ^ x1 ^ k0, low1, high0 ^ x3 ^ k1, low0
    return [x0, x1, x2, x3]


def ours(counter: list[int], key: list[int]) -> list[int]:
    return [int(word) for word in philox(tuple(torch.tensor(word) for word in counter), tuple(key))]


# the known answers of the authors' library, Random123
KNOWN = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN)
def test_philox_gives_the_known_answers(counter, key, answer):
    counter, key, answer = ([int(word, 16) for word in words.split()] for words in (counter, key, answer))
    assert ours(counter, key) == answer
    assert plain_philox(counter, key) == answer


@given(counter=st.lists(WORD, min_size=4, max_size=4), key=st.lists(WORD, min_size=2, max_size=2))
@settings(max_examples=50)
def test_philox_equals_plain_integers(counter, key):
    assert ours(counter, key) == plain_philox(counter, key)


# --- addresses ----------------------------------------------------------------------------------------------------


@given(
    index=st.integers(0, 2**62),
    epoch=WORD,
    draw=st.integers(0, 9),
    seed=st.integers(-(2**40), 2**40),
    purpose=st.text(max_size=8),
)
@settings(max_examples=50)
def test_a_word_is_the_cipher_of_its_address(index, epoch, draw, seed, purpose):
    stream = Stream(seed, purpose)
    block = plain_philox([draw // 4, epoch, index % 2**32, index >> 32], list(stream.key))
    assert int(stream.words(torch.tensor(index), 10, epoch=epoch)[draw]) == block[draw % 4]


def test_batches_of_any_size_and_order_give_the_same_numbers():
    stream, index = Stream(3, "mask"), torch.arange(64)
    whole = stream.uniform(index, 5, epoch=2)
    for size in (1, 2, 7, 64):
        assert torch.equal(torch.cat([stream.uniform(part, 5, epoch=2) for part in index.split(size)]), whole)
    order = torch.randperm(64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(stream.uniform(order, 5, epoch=2), whole[order])


def test_the_shape_of_the_index_is_the_shape_of_the_result():
    stream = Stream(0, "x")
    flat = stream.words(torch.arange(24), 3)
    assert torch.equal(stream.words(torch.arange(24).view(2, 3, 4), 3), flat.view(2, 3, 4, 3))
    assert stream.words(torch.tensor(5), 3).tolist() == flat[5].tolist()
    assert stream.words(torch.arange(0), 3).shape == (0, 3)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 8, 9])
def test_asking_for_more_numbers_does_not_change_the_first(count):
    stream = Stream(0, "x")
    assert torch.equal(stream.words(INDEX, count), stream.words(INDEX, 12)[:, :count])


def test_an_epoch_per_example_equals_one_at_a_time():
    stream, epochs = Stream(1, "x"), torch.tensor([0, 5, 5, 2**31, 2**32 - 1])
    together = stream.uniform(torch.arange(5), 3, epoch=epochs)
    for row, epoch in enumerate(epochs.tolist()):
        assert torch.equal(together[row], stream.uniform(torch.tensor(row), 3, epoch=epoch))


@pytest.mark.parametrize("dtype", [torch.int32, torch.uint8])
def test_the_integer_type_of_the_index_does_not_matter(dtype):
    stream, index = Stream(1, "x"), torch.arange(9)
    assert torch.equal(stream.words(index.to(dtype), 2), stream.words(index, 2))


# --- distribution -------------------------------------------------------------------------------------------------


def test_uniform_is_a_multiple_of_its_step_below_one():
    stream = Stream(0, "x")
    values = stream.uniform(INDEX, 100)
    assert values.dtype == torch.float32
    assert float(values.min()) >= 0
    assert float(values.max()) < 1
    assert torch.equal(values.double() * 2**24, (stream.words(INDEX, 100) >> 8).double())


def extreme(monkeypatch: pytest.MonkeyPatch, word: int) -> Stream:
    """A stream whose every word is `word`."""
    monkeypatch.setattr(Stream, "words", lambda self, index, count, *, epoch=0: torch.full((1, count), word))
    return Stream(0, "x")


def test_uniform_reaches_zero_and_never_one(monkeypatch):
    assert float(extreme(monkeypatch, 0).uniform(torch.tensor([0]), 1)) == 0
    assert float(extreme(monkeypatch, 2**32 - 1).uniform(torch.tensor([0]), 1)) == 1 - 2**-24


def test_uniform64_reaches_neither_zero_nor_one(monkeypatch):
    assert float(extreme(monkeypatch, 0).uniform64(torch.tensor([0]), 1)) == 2.0**-53
    assert float(extreme(monkeypatch, 2**32 - 1).uniform64(torch.tensor([0]), 1)) == 1 - 2.0**-53


def test_uniform64_has_52_bits_of_two_words():
    stream = Stream(0, "x")
    values, words = stream.uniform64(INDEX, 2), stream.words(INDEX, 4).tolist()
    assert values.dtype == torch.float64
    for row in (0, 1, 999):
        for draw in (0, 1):
            high, low = words[row][2 * draw], words[row][2 * draw + 1]
            assert float(values[row, draw]) == ((high >> 6) * 2**26 + (low >> 6) + 0.5) / 2**52


@pytest.mark.parametrize("name", ["uniform", "uniform64"])
def test_moments_are_those_of_a_uniform(name):
    values = getattr(Stream(7, "moments"), name)(INDEX, 200).double().flatten()
    spread = math.sqrt(1 / values.numel())
    for power in (1, 2, 3, 4):
        expected, variance = 1 / (power + 1), 1 / (2 * power + 1) - 1 / (power + 1) ** 2
        assert abs(float((values**power).mean()) - expected) < 4 * math.sqrt(variance) * spread


def chi_square(counts: torch.Tensor) -> float:
    expected = float(counts.sum()) / counts.numel()
    return float(((counts - expected) ** 2 / expected).sum())


def bound(cells: int) -> float:
    """Mean and five standard deviations of chi-square with cells - 1 degrees of freedom."""
    return cells - 1 + 5 * math.sqrt(2 * (cells - 1))


@pytest.mark.parametrize("bits", range(0, 32, 8))
def test_every_byte_of_a_word_is_even(bits):
    words = Stream(0, "bytes").words(INDEX, 100)
    assert chi_square(torch.bincount(((words >> bits) & 255).flatten(), minlength=256).double()) < bound(256)


def test_pairs_of_neighbouring_draws_and_examples_are_even():
    values = (Stream(0, "pairs").uniform(INDEX, 100) * 16).long()
    for first, second in ((values[:, 1:], values[:, :-1]), (values[1:], values[:-1])):
        assert chi_square(torch.bincount((16 * first + second).flatten(), minlength=256).double()) < bound(256)


BASE = (Stream(0, "mask"), 0)


@pytest.mark.parametrize("other", [(Stream(1, "mask"), 0), (Stream(0, "time"), 0), (Stream(0, "mask"), 1)])
def test_other_seeds_purposes_and_epochs_are_other_numbers(other):
    (stream, epoch), (other_stream, other_epoch) = BASE, other
    one = stream.uniform(INDEX, 50, epoch=epoch).flatten()
    two = other_stream.uniform(INDEX, 50, epoch=other_epoch).flatten()
    assert float((one == two).double().mean()) < 1e-3
    assert abs(float(torch.corrcoef(torch.stack((one, two)))[0, 1])) < 4 / math.sqrt(one.numel())


def test_seed_and_purpose_do_not_run_into_each_other():
    keys = {Stream(seed, purpose).key for seed, purpose in [(1, "a"), (11, "a"), (1, "a1"), (1, "1a"), (-1, "a")]}
    assert len(keys) == 5
    assert all(0 <= word < 2**32 for key in keys for word in key)


# --- permutations -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [range(1, 70), range(70, 301, 5)])
def test_permute_is_a_bijection(sizes):
    for size in sizes:
        assert sorted(Stream(size, "order").permute(torch.arange(size), size).tolist()) == list(range(size))


@pytest.mark.parametrize("size", [1000, 4096, 4097])
def test_permute_is_a_bijection_of_larger_sets(size):
    image = Stream(0, "order").permute(torch.arange(size), size, epoch=3)
    assert torch.equal(image.sort().values, torch.arange(size))
    # a random permutation moves nearly all: the number of fixed points is Poisson with mean 1
    assert int((image == torch.arange(size)).sum()) < 8


@pytest.mark.parametrize("size", [2**20, 2**20 + 1, 10**12])
def test_permute_needs_no_table(size):
    index = torch.arange(size - 20_000, size)
    image = Stream(0, "order").permute(index, size)
    assert image.unique().numel() == index.numel()
    assert int(image.min()) >= 0
    assert int(image.max()) < size
    spread = torch.bincount(image // (size // 16 + 1), minlength=16).double()
    assert chi_square(spread) < bound(16)


@given(size=st.integers(1, 500), data=st.data())
@settings(max_examples=30)
def test_permute_is_element_wise(size, data):
    some = torch.tensor(data.draw(st.lists(st.integers(0, size - 1), max_size=20)), dtype=torch.int64)
    stream = Stream(4, "order")
    assert torch.equal(stream.permute(some, size, epoch=1), stream.permute(torch.arange(size), size, epoch=1)[some])


def test_epochs_and_seeds_are_other_permutations():
    index = torch.arange(200)
    one = Stream(0, "order").permute(index, 200)
    for other in (Stream(0, "order").permute(index, 200, epoch=1), Stream(1, "order").permute(index, 200)):
        assert int((one == other).sum()) < 12
        assert abs(float(torch.corrcoef(torch.stack((one, other)).double())[0, 1])) < 4 / math.sqrt(200)


def test_any_element_goes_anywhere_alike():
    size = 6
    draws = torch.stack([Stream(0, "order").permute(torch.arange(size), size, epoch=epoch) for epoch in range(120)])
    for place in range(size):
        assert chi_square(torch.bincount(draws[:, place], minlength=size).double()) < bound(size)


def test_the_global_generator_is_left_alone():
    """By us and by the checks of types in this suite: Hypothesis blames the test that runs when it moves."""
    before = random.getstate()
    for _ in range(3):
        ours([1, 2, 3, 4], [5, 6])
    assert random.getstate() == before
