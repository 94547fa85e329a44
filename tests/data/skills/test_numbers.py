"""Every problem solved once more with Python's integers; written steps checked one by one."""

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from illada.data.skills.numbers import addition, subtraction
from illada.data.skills.registry import SKILLS, is_test, items

LEVELS = pytest.mark.parametrize("level", [1, 2, 3])
DIGITS = {1: {1, 2}, 2: {2, 3}, 3: {3, 4}}


def problems(skill, level, *, count=200, split="train"):
    return [item.problem for item in items(skill, split, count, levels=(level,))]


def numbers_in(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", text)]


# --- sort, compare, continue --------------------------------------------------------------------------------------


@LEVELS
def test_sort_puts_all_numbers_in_ascending_order(level):
    sizes = set()
    for problem in problems("sort", level):
        asked, answer = numbers_in(problem.prompt), numbers_in(problem.response)
        assert problem.prompt == "Sort: " + " ".join(map(str, asked))
        assert all(answer.count(number) == asked.count(number) for number in asked)
        assert all(one < other for one, other in pairwise(answer))
        assert max(asked) <= (9 if level == 1 else 99)
        sizes.add(len(asked))
    assert sizes == {1: {3, 4}, 2: {4, 5}, 3: {5, 6}}[level]


@LEVELS
def test_compare_names_the_larger_whichever_comes_first(level):
    first_is_larger, close = set(), 0
    found = problems("compare", level, count=400)
    for problem in found:
        one, other = numbers_in(problem.prompt)
        assert problem.prompt == f"Which is larger, {one} or {other}?"
        assert one != other
        assert int(problem.response) in (one, other)
        assert int(problem.response) >= one
        assert int(problem.response) >= other
        first_is_larger.add(one > other)
        close += abs(one - other) < 10
    assert first_is_larger == {True, False}
    assert 0.4 < close / len(found) < 0.75  # half of them on purpose, others by chance


@LEVELS
def test_continue_goes_on_with_equal_steps(level):
    for problem in problems("next", level):
        *shown, answer = [*numbers_in(problem.prompt), int(problem.response)]
        gaps = {later - earlier for earlier, later in zip(shown, [*shown[1:], answer], strict=True)}
        assert len(gaps) == 1
        assert gaps.pop() > 0
        assert len(shown) == 4


# --- small worlds, as their docstrings say ------------------------------------------------------------------------


def keys(skill, level, *, split, count):
    return {problem.key for problem in problems(skill, level, split=split, count=count)}


@pytest.mark.parametrize(("skill", "world", "held_out"), [("sort", 330, 37), ("next", 459, 56)])
def test_the_first_level_of_small_worlds_is_as_large_as_documented(skill, world, held_out):
    train = keys(skill, 1, split="train", count=4000)
    test = keys(skill, 1, split="test", count=600)
    assert (len(train | test), len(test)) == (world, held_out)
    doc = SKILLS[skill].make.__doc__
    assert f"Level 1 has {world} " in doc
    assert f"{held_out} of them for tests" in doc


# --- written arithmetic -------------------------------------------------------------------------------------------


def digits_of(number: int, count: int) -> list[int]:
    """Digits from the lowest on, as text has them."""
    return [int(digit) for digit in reversed(str(number).zfill(count))]


def assert_adds_up(one: int, other: int, written: str) -> None:
    steps, _, total = written.partition(" #### ")
    assert int(total) == one + other
    lines = steps.split(" ")
    size = max(len(str(one)), len(str(other)))
    assert len(lines) == size
    carry = 0
    for line, top, bottom in zip(lines, digits_of(one, size), digits_of(other, size), strict=True):
        left, _, right = line.partition("=")
        terms = [int(term) for term in left.split("+")]
        assert terms == [top, bottom, *([1] if carry else [])]
        assert int(right) == sum(terms)
        carry = int(right) // 10
    # the answer can be read off from the steps
    assert str(one + other) == ("1" if carry else "") + "".join(line[-1] for line in reversed(lines))


def assert_takes_away(one: int, other: int, written: str) -> None:
    steps, _, difference = written.partition(" #### ")
    assert int(difference) == one - other
    lines = steps.split(" ")
    size = len(str(one))
    assert len(lines) == size
    lent = 0
    for line, top, bottom in zip(lines, digits_of(one, size), digits_of(other, size), strict=True):
        upper, lower, result = map(int, re.fullmatch(r"(\d+)-(\d)=(\d)", line).groups())
        assert (upper - (top - lent)) in (0, 10)
        assert lower == bottom
        assert result == upper - lower
        lent = int(upper > top - lent)
    assert lent == 0
    assert int("".join(line[-1] for line in reversed(lines))) == one - other


@given(st.integers(0, 99_999), st.integers(0, 99_999))
def test_every_step_of_an_addition_is_right(one, other):
    assert_adds_up(one, other, addition(one, other))


@given(st.integers(0, 99_999), st.integers(0, 99_999))
def test_every_step_of_a_subtraction_is_right(one, other):
    one, other = max(one, other), min(one, other)
    assert_takes_away(one, other, subtraction(one, other))


@pytest.mark.parametrize(
    ("one", "other", "written"),
    [
        (47, 85, "7+5=12 4+8+1=13 #### 132"),
        (8, 0, "8+0=8 #### 8"),
        (5, 995, "5+5=10 0+9+1=10 0+9+1=10 #### 1000"),
    ],
)
def test_additions_by_hand(one, other, written):
    assert addition(one, other) == written


@pytest.mark.parametrize(
    ("one", "other", "written"),
    [
        (85, 47, "15-7=8 7-4=3 #### 38"),
        (7, 7, "7-7=0 #### 0"),
        (1000, 1, "10-1=9 9-0=9 9-0=9 0-0=0 #### 999"),
    ],
)
def test_subtractions_by_hand(one, other, written):
    assert subtraction(one, other) == written


@LEVELS
@pytest.mark.parametrize(("skill", "form"), [("add", r"Add: (\d+) \+ (\d+)"), ("subtract", r"Subtract: (\d+) - (\d+)")])
def test_problems_have_steps_that_are_right_and_numbers_of_their_level(skill, form, level):
    sizes = set()
    for problem in problems(skill, level):
        one, other = map(int, re.fullmatch(form, problem.prompt).groups())
        (assert_adds_up if skill == "add" else assert_takes_away)(one, other, problem.response)
        sizes |= {len(str(one)), len(str(other))}
    assert sizes == DIGITS[level]


def test_both_orders_of_a_sum_or_a_pair_are_one_key():
    for skill in ("add", "compare"):
        found = problems(skill, 1, count=4000)
        by_pair = {}
        for problem in found:
            by_pair.setdefault(frozenset(numbers_in(problem.prompt)), set()).add(problem.key)
        assert all(len(some) == 1 for some in by_pair.values())
        assert len({problem.prompt for problem in found}) > len(by_pair)  # both orders did occur
        assert len({is_test(SKILLS[skill], problem) for problem in found}) == 1
