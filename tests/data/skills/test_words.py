"""Every problem solved once more, from its prompt alone."""

import re
from string import ascii_lowercase

import pytest

from illada.data.skills.registry import items
from illada.data.skills.words import _NAMES

LENGTHS = {1: {3, 4}, 2: {5, 6}, 3: {7, 8}}
LEVELS = pytest.mark.parametrize("level", [1, 2, 3])


def problems(skill, level, *, count=150, split="train"):
    return [item.problem for item in items(skill, split, count, levels=(level,))]


def letters_of(prompt: str, form: str) -> list[str]:
    found = re.fullmatch(form + r": ([a-z](?: [a-z])*)", prompt)
    assert found, prompt
    return found[1].split(" ")


@LEVELS
def test_repeat_gives_the_letters_again(level):
    sizes = set()
    for problem in problems("repeat", level):
        letters = letters_of(problem.prompt, "Repeat")
        assert problem.response.split(" ") == letters
        assert len(set(letters)) == len(letters)
        sizes.add(len(letters))
    assert sizes == LENGTHS[level]


@LEVELS
def test_reverse_gives_them_from_the_last_to_the_first(level):
    sizes = set()
    for problem in problems("reverse", level):
        letters = letters_of(problem.prompt, "Reverse")
        answer = problem.response.split(" ")
        assert [answer[len(letters) - 1 - place] for place in range(len(letters))] == letters
        sizes.add(len(letters))
    assert sizes == LENGTHS[level]


def test_a_sequence_and_its_reverse_are_one_key():
    found = problems("reverse", 1, count=4000)
    keys = {problem.prompt.partition(": ")[2]: problem.key for problem in found}
    both = [(text, back) for text in keys if (back := " ".join(reversed(text.split()))) in keys]
    assert both
    assert all(keys[text] == keys[back] for text, back in both)


@LEVELS
def test_count_says_how_often(level):
    sizes, answers = set(), set()
    for problem in problems("count", level, count=400):
        asked = problem.prompt.removeprefix("Count ")[0]
        letters = letters_of(problem.prompt, f"Count {asked} in")
        assert int(problem.response) == sum(1 for letter in letters if letter == asked)
        assert len(set(letters) | {asked}) <= 3
        sizes.add(len(letters))
        answers.add(int(problem.response))
    assert sizes == {1: {4, 5, 6}, 2: {7, 8, 9}, 3: {10, 11, 12}}[level]
    assert {0, 1, 2, 3} <= answers


@LEVELS
def test_lookup_says_the_number_beside_the_name(level):
    sizes, places = set(), set()
    for problem in problems("lookup", level):
        table, _, question = problem.prompt.partition(". ")
        rows = [row.split(" ") for row in table.split(", ")]
        asked = re.fullmatch(r"What number has ([a-z]+)\?", question)[1]
        assert [number for name, number in rows if name == asked] == [problem.response]
        assert all(name in _NAMES and 10 <= int(number) <= 99 for name, number in rows)
        sizes.add(len(rows))
        places.add([name for name, _ in rows].index(asked))
    assert sizes == LENGTHS[level]
    assert places == set(range(max(sizes)))  # no place is safe to guess


def test_the_names_are_different_and_short():
    assert len(set(_NAMES)) == len(_NAMES)
    assert all(len(name) == 3 and set(name) <= set(ascii_lowercase) for name in _NAMES)
