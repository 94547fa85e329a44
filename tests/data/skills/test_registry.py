"""Any amount of problems, the same for everyone, train and test apart."""

import hashlib
import re
from collections import Counter
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from illada.data.skills import registry
from illada.data.skills.problem import FINAL, Problem, Skill
from illada.data.skills.registry import SKILLS, is_test, item, items, named_skill, named_skills

EACH = pytest.mark.parametrize("name", SKILLS)
MANY = 600


@cache
def some(name: str, split: str) -> list[registry.Item]:
    return list(items(name, split, MANY))


# --- train and test -----------------------------------------------------------------------------------------------


def identity(name: str, problem: Problem) -> object:
    """What a problem is, read off from its prompt: nothing that the generator says about it."""
    body = problem.prompt.partition(": ")[2]
    numbers = tuple(sorted(int(number) for number in re.findall(r"\d+", problem.prompt)))
    if name == "reverse":
        return frozenset({tuple(body.split()), tuple(reversed(body.split()))})
    if name in ("sort", "compare", "add", "subtract", "next"):
        return numbers
    if name == "countdown":
        target = re.findall(r"\d+", problem.prompt)[0]
        return target, numbers
    return problem.response if name == "sudoku" else problem.prompt


@EACH
def test_train_and_test_share_no_problem(name):
    train, test = ({identity(name, one.problem) for one in some(name, split)} for split in ("train", "test"))
    assert not train & test
    assert len(train) > 200
    assert len(test) > 55


@EACH
def test_train_and_test_share_no_problem_at_the_easiest_level_of_other_seeds(name):
    train = {identity(name, one.problem) for one in items(name, "train", 600, seed=1, levels=(1,))}
    test = {identity(name, one.problem) for one in items(name, "test", 150, seed=2, levels=(1,))}
    assert not train & test


@EACH
def test_a_key_is_on_one_side_and_says_which(name):
    skill = SKILLS[name]
    assert not any(is_test(skill, one.problem) for one in some(name, "train"))
    assert all(is_test(skill, one.problem) for one in some(name, "test"))


@pytest.mark.parametrize("name", ["repeat", "sudoku"])
def test_the_side_is_the_hash_of_skill_and_key_read_as_a_fraction(name):
    skill = SKILLS[name]
    share = {"repeat": 0.1, "sudoku": 0.2}[name]
    kept = 0
    for number in range(3000):
        digest = hashlib.sha256(name.encode() + b"\0" + str(number).encode()).digest()
        expected = int.from_bytes(digest[:4], "big") < share * 2**32
        assert is_test(skill, Problem(key=str(number), prompt="", response="")) == expected
        kept += expected
    assert abs(kept - 3000 * share) < 5 * (3000 * share * (1 - share)) ** 0.5


@EACH
def test_the_problems_of_the_two_sides_are_not_only_few(name):
    prompts = {one.problem.prompt for one in some(name, "test")}
    assert len(prompts) > MANY / 3


# --- the same for everyone ----------------------------------------------------------------------------------------


@EACH
@pytest.mark.parametrize("split", ["train", "test"])
def test_a_problem_depends_on_its_number_alone(name, split, monkeypatch):
    whole = some(name, split)[:40]
    assert list(items(name, split, 13)) == whole[:13]
    assert list(items(name, split, 20, start=17)) == whole[17:37]
    assert [item(name, split, number) for number in (31, 2, 17)] == [whole[31], whole[2], whole[17]]
    monkeypatch.setattr(registry, "_MADE_AT_ONCE", 7)
    assert list(items(name, split, 40)) == whole


@EACH
def test_random_numbers_do_not_run_out(name, monkeypatch):
    whole = some(name, "test")[:30]
    monkeypatch.setattr(registry, "_DRAWS", 1)
    assert list(items(name, "test", 30)) == whole


@EACH
def test_seeds_and_sides_give_other_problems(name):
    first = [one.problem for one in some(name, "train")[:30]]
    other = [one.problem for one in items(name, "train", 30, seed=1)]
    assert first != other
    assert len({problem.prompt for problem in first}) > 20


FROZEN = {
    "repeat": ("a741d98eadf2575f", "596423ba4d5a80fe"),
    "reverse": ("4073b30f3bde9eaf", "df1e8cfd047b59f4"),
    "sort": ("2b093faceefe9c74", "8db99ff320553161"),
    "count": ("358e631c25c69fac", "1bb995ac4afee538"),
    "compare": ("01ad433bd6832317", "db280cbba752499e"),
    "lookup": ("98f6bf54a833dbd8", "9c91866bbf5bb0b6"),
    "next": ("f0f71c6da7aafe45", "28bbc58a7287e6e0"),
    "add": ("289a519b6caabaee", "b2a1abbad4404926"),
    "subtract": ("82c8bd3938c5cdd8", "737937bad4ea2cc3"),
    "countdown": ("0eef9c52cd74cef8", "e797f70c9eae8535"),
    "sudoku": ("7f4c13e2bbadfbe3", "0334b0416e5c6894"),
}
"""SHA-256 of the first 30 problems of train and of test. Scores of models are comparable only while these stand, and
a model that was trained on problems has not seen the test only while these stand."""


def fingerprint(found: list[registry.Item]) -> str:
    digest = hashlib.sha256()
    for one in found:
        problem = one.problem
        digest.update(repr((one.level, problem.key, problem.prompt, problem.response)).encode())
    return digest.hexdigest()[:16]


@EACH
def test_the_problems_are_those_that_models_were_trained_and_measured_on(name):
    assert (fingerprint(some(name, "train")[:30]), fingerprint(some(name, "test")[:30])) == FROZEN[name]


# --- levels -------------------------------------------------------------------------------------------------------


@EACH
@pytest.mark.parametrize("split", ["train", "test"])
def test_levels_are_drawn_alike(name, split):
    counts = Counter(one.level for one in some(name, split))
    # small worlds of level 1 may have more or less than their share on a side: 56 of 459 keys where 46 are expected
    assert sorted(counts) == [1, 2, 3]
    assert all(abs(count - MANY / 3) < 60 for count in counts.values())


@EACH
@pytest.mark.parametrize("level", [1, 2, 3])
def test_a_chosen_level_is_the_only_one(name, level):
    found = list(items(name, "train", 20, levels=(level,)))
    assert {one.level for one in found} == {level}
    assert item(name, "train", 7, levels=(level,)) == found[7]


# --- every skill --------------------------------------------------------------------------------------------------


@EACH
def test_responses_pass_their_own_check_and_texts_are_short(name):
    skill = SKILLS[name]
    assert isinstance(skill, Skill)
    assert skill.name == name
    for one in (*some(name, "train")[:300], *some(name, "test")[:300]):
        problem = one.problem
        assert one.skill == name
        assert skill.check(problem, problem.response)
        assert skill.check(problem, f"\n {problem.response} ")
        assert FINAL not in problem.prompt
        assert problem.response == problem.response.strip()
        assert len(problem.prompt) < 100
        assert len(problem.response) < 60


@given(name=st.sampled_from([name for name in SKILLS if name != "countdown"]), data=st.data())
@settings(max_examples=300)
def test_a_changed_answer_is_refused(name, data):
    problem = data.draw(st.sampled_from(some(name, "test"))).problem
    response = problem.response
    begin = response.rfind(FINAL) + len(FINAL) if FINAL in response else 0
    places = [i for i in range(begin, len(response)) if not response[i].isspace()]
    place = data.draw(st.sampled_from(places))
    new = data.draw(st.sampled_from([c for c in "0123456789abcxyz.-" if c != response[place]] + [""]))
    assert not SKILLS[name].check(problem, response[:place] + new + response[place + 1 :])


@EACH
@pytest.mark.parametrize("reply", ["", " ", "I do not know.", FINAL, f"{FINAL} ", "0" * 5000, "None"])
def test_no_answer_is_no_right_one(name, reply):
    assert not SKILLS[name].check(some(name, "test")[0].problem, reply)


@EACH
def test_the_answer_to_another_problem_is_wrong(name):
    first, *others = [one.problem for one in some(name, "test")[:60]]
    wrong = [problem.response for problem in others if problem.response.split() != first.response.split()]
    assert wrong
    # the responses of sums end alike by chance; here they do not, and no countdown fits other numbers
    assert sum(SKILLS[name].check(first, response) for response in wrong) <= 1


# --- asked for wrongly --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: items("juggle", "train", 1), "no skill is called 'juggle'; there are: repeat, reverse"),
        (lambda: items("sort", "train", 1, levels=(1, 4)), "there is no level 4: choose among 1, 2, 3"),
        (lambda: items("sort", "train", 1, levels=()), "there are 0 levels"),
        (lambda: items("sort", "train", -1), "there are no -1 from number 0 on"),
        (lambda: item("sort", "train", -3), "there are no 1 from number -3 on"),
        (lambda: named_skill("juggle"), "no skill is called 'juggle'"),
        (lambda: named_skills(["sort,juggle"]), "no skill is called 'juggle'"),
        (lambda: named_skills(["sort", "add,sort"]), "the skill 'sort' is named twice"),
        (lambda: named_skills([]), "name at least 1 skill"),
    ],
)
def test_what_is_not_there_is_refused_at_once(call, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        call()


def test_names_may_be_joined_by_commas():
    assert [skill.name for skill in named_skills(["sort,add", "sudoku"])] == ["sort", "add", "sudoku"]


def test_none_is_none():
    assert list(items("sort", "train", 0)) == []
