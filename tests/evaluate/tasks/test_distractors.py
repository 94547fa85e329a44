"""Wrong answers: never right, of the form of the right one, and the same for the same random numbers."""

import re
from collections import Counter

import pytest
import torch

from illada.data.skills.problem import FINAL, Draws, Problem
from illada.data.skills.registry import SKILLS, items, named_skill
from illada.evaluate.tasks.distractors import DRAWS, distractors
from illada.seeding import Stream


def wrong_answers(name, *, count=60, wanted=3):
    """(problem, its distractors) for some problems of a skill."""
    others = [item.problem.response for item in items(name, "test", 64)]
    for number, item in enumerate(items(name, "test", count)):
        draws = Draws(iter(Stream(0, "test").uniform64(torch.tensor(number), DRAWS).tolist()))
        yield item.problem, distractors(item.problem, SKILLS[name], others=others, draws=draws, count=wanted)


@pytest.mark.parametrize("name", SKILLS)
def test_none_is_right_and_none_comes_twice(name):
    for problem, wrong in wrong_answers(name):
        assert len(set(wrong)) == 3
        assert not [text for text in wrong if named_skill(name).check(problem, text)]


@pytest.mark.parametrize("name", ["repeat", "reverse", "add", "subtract", "sudoku"])
def test_they_have_the_form_of_the_right_answer(name):
    """As many words and characters, at the same places: length and layout do not give the right one away."""
    for problem, wrong in wrong_answers(name):
        assert {form(text) for text in wrong} == {form(problem.response)}


def form(text):
    return re.sub(r"[a-z]", "a", re.sub(r"\d", "0", text))


def test_numbers_of_numbers_stay_numbers_of_as_many_words():
    for problem, wrong in wrong_answers("sort"):
        for text in wrong:
            assert re.fullmatch(r"\d+( \d+)*", text)
            assert len(text.split()) == len(problem.response.split())


def test_a_number_is_mistaken_for_those_of_the_prompt_first():
    for problem, wrong in wrong_answers("lookup"):
        known = set(re.findall(r"\d+", problem.prompt))
        assert len(known & set(wrong)) == min(3, len(known) - 1)
    for problem, wrong in wrong_answers("compare"):
        assert set(re.findall(r"\d+", problem.prompt)) - {problem.response} <= set(wrong)


def test_a_number_that_is_new_is_not_the_only_one():
    for problem, wrong in wrong_answers("next"):
        known = set(re.findall(r"\d+", problem.prompt))
        assert problem.response not in known
        assert any(text not in known for text in wrong)


def test_no_number_begins_with_a_zero_that_nobody_would_write():
    for name in ("add", "next", "compare", "countdown"):
        for _, wrong in wrong_answers(name):
            assert not [text for text in wrong if re.search(r"\b0\d", text)]


def test_steps_stay_and_what_they_end_in_changes():
    for problem, wrong in wrong_answers("add"):
        steps = problem.response.rpartition(FINAL)[0]
        assert all(text.startswith(f"{steps}{FINAL} ") for text in wrong)


def test_both_kinds_of_change_occur():
    """Words of the answer in another order, and words that it has not."""
    kinds = Counter(
        Counter(text.split()) == Counter(problem.response.split())
        for problem, wrong in wrong_answers("repeat")
        for text in wrong
    )
    assert min(kinds[True], kinds[False]) > 30


def test_they_are_a_function_of_the_draws():
    assert list(wrong_answers("sort", count=5)) == list(wrong_answers("sort", count=5))


def test_where_there_are_not_enough_one_line_says_so():
    class Easy:
        name, test_fraction = "easy", 0.1

        def make(self, draws, level):
            raise AssertionError

        def check(self, problem, reply):
            return True

    draws = Draws(iter([0.5] * DRAWS))
    problem = Problem(key="", prompt="Say anything", response="a")
    with pytest.raises(ValueError, match="3 wrong answers are needed, but only 0 are found for 'Say anything'"):
        distractors(problem, Easy(), others=["b"], draws=draws, count=3)
