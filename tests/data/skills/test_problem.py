"""Random numbers into choices, and replies into answers."""

from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from illada.data.skills.problem import FINAL, Draws, ExactSkill, Problem, Skill, answer_of
from illada.data.skills.words import Repeat
from illada.seeding import Stream

# --- draws --------------------------------------------------------------------------------------------------------


def draws(*numbers: float) -> Draws:
    return Draws(iter(numbers))


def random_draws(count: int) -> Draws:
    return Draws(iter(Stream(3, "test").uniform64(torch.tensor(0), count).tolist()))


@pytest.mark.parametrize(("number", "expected"), [(1e-17, 0), (0.249, 0), (0.25, 1), (0.74, 2), (1 - 2**-53, 3)])
def test_a_number_of_four_is_the_quarter_it_falls_into(number, expected):
    assert draws(number).below(4) == expected
    assert draws(number).between(10, 13) == 10 + expected
    assert draws(number).choice("abcd") == "abcd"[expected]


def test_both_ends_are_drawn_and_all_alike():
    source = random_draws(6000)
    counts = Counter(source.between(4, 9) for _ in range(6000))
    assert sorted(counts) == [4, 5, 6, 7, 8, 9]
    assert all(abs(count - 1000) < 5 * 29 for count in counts.values())  # a standard deviation is 29


def test_a_sample_holds_different_items_in_any_order():
    source = random_draws(3 * 2400)
    samples = Counter("".join(source.sample("abcd", 3)) for _ in range(2400))
    assert all(len(set(sample)) == 3 for sample in samples)
    assert len(samples) == 24
    assert all(abs(count - 100) < 5 * 10 for count in samples.values())


def test_a_sample_leaves_its_items_as_they_were():
    items = [1, 2, 3]
    assert sorted(draws(0.9, 0.9, 0.9).sample(items, 3)) == items == [1, 2, 3]


def test_numbers_are_used_in_turn():
    source = draws(0.1, 0.6, 0.9)
    assert [source.below(10) for _ in range(3)] == [1, 6, 9]


# --- answers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "steps", "answer"),
    [
        (" a  b\nc ", False, "a b c"),
        ("7+5=12 #### 12", False, "7+5=12 #### 12"),
        ("7+5=12 ####  12\n", True, "12"),
        ("#### 1 #### 2", True, "2"),
        ("12", True, None),
        ("12 ####", True, ""),
        ("", False, ""),
        ("", True, None),
    ],
)
def test_the_answer_is_the_whole_or_what_follows_the_last_mark(text, steps, answer):
    assert answer_of(text, steps=steps) == answer


PLAIN = Problem(key="k", prompt="p", response="12 7")
STEPS = Problem(key="k", prompt="p", response=f"5+7=12 {FINAL} 12")


class Any(ExactSkill):
    """Only its check is used."""


@pytest.mark.parametrize("reply", ["12 7", " 12  7\n", "12\n7", "12\t7"])
def test_blanks_are_evened_out(reply):
    assert Any(name="any").check(PLAIN, reply)


@pytest.mark.parametrize("reply", ["", "127", "12 8", "7 12", "12 7.", "12 7 7", f"{FINAL} 12 7", "the answer: 12 7"])
def test_any_other_reply_is_wrong(reply):
    assert not Any(name="any").check(PLAIN, reply)


def test_with_steps_only_what_follows_the_mark_counts():
    check = Any(name="any").check
    assert check(STEPS, f"{FINAL} 12")
    assert check(STEPS, f"no idea {FINAL}12")
    assert not check(STEPS, "12")
    assert not check(STEPS, f"12 {FINAL}")
    assert not check(STEPS, f"{FINAL} 12 {FINAL} 13")


@given(st.text())
def test_texts_without_the_answer_are_wrong_and_no_text_is_an_error(reply):
    check = Any(name="any").check
    assert check(PLAIN, reply) == (reply.split() == ["12", "7"])
    assert check(STEPS, reply) == (FINAL in reply and reply.split(FINAL)[-1].split() == ["12"])


def test_a_skill_is_known_by_what_it_can_do():
    assert isinstance(Repeat(), Skill)
    assert not isinstance(Any(name="any"), Skill)  # it makes nothing
