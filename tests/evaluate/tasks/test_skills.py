"""The skills as tasks: written answers, and choices of which one is right."""

import pytest

from illada.data.skills.registry import SKILLS, is_test, items, named_skill
from illada.evaluate.run import prepare
from illada.evaluate.suites import Asking
from illada.evaluate.tasks.skills import SkillChoice, SkillTask, skill_choices, skill_tasks


def questions(task, **asking):
    return prepare(task, Asking(task=task.name, **asking), data=None, limit=None).questions


def choice(skill, **options):
    return SkillChoice(written=SkillTask(skill=skill, **options))


def test_skills_are_asked_by_level_and_judged_by_their_own_check():
    task = SkillTask(skill="sort", count=20)
    asked = questions(task)
    assert {question.group for question in asked} == {"level 1", "level 2", "level 3"}
    for question in asked:
        assert task.judge(question, question.reference).correct
        assert not task.judge(question, question.reference + " 7").correct


@pytest.mark.parametrize("task", [SkillTask(skill="sort"), choice("sort")])
def test_there_are_no_examples(task):
    with pytest.raises(ValueError, match="without examples, got 1"):
        questions(task, shots=1)


@pytest.mark.parametrize("skill", SKILLS)
def test_choices_have_one_right_answer_anywhere(skill):
    task = choice(skill, count=60)
    asked = questions(task)
    for question in asked:
        right = [task.written.judge(question, text).correct for text in question.candidates]
        assert right == [number == question.gold for number in range(4)]
        assert question.candidates[question.gold] == question.reference
        assert len(set(question.candidates)) == 4
    assert {question.gold for question in asked} == {0, 1, 2, 3}
    assert questions(task) == asked


def test_choices_are_the_written_problems_of_the_test_split():
    asked, written = questions(choice("add", count=30)), questions(SkillTask(skill="add", count=30))
    assert [(one.id, one.ask, one.reference) for one in asked] == [(one.id, one.ask, one.reference) for one in written]
    problems = {item.problem.prompt: item.problem for item in items("add", "test", 30)}
    assert all(is_test(named_skill("add"), problems[question.ask]) for question in asked)


def test_a_choice_does_not_depend_on_how_many_are_asked():
    few, many = questions(choice("repeat", count=5)), questions(choice("repeat", count=100))
    assert few == many[:5]


def test_another_seed_gives_other_choices():
    assert questions(choice("sort", count=5)) != questions(choice("sort", count=5, seed=1))


def test_a_task_for_every_skill():
    chosen = tuple(SKILLS.values())
    assert [task.name for task in skill_tasks(chosen)] == list(SKILLS)
    choices = skill_choices(chosen, count=7, levels=(2,))
    assert [task.name for task in choices] == [f"{name}_choice" for name in SKILLS]
    assert {(task.kind, task.written.count, task.written.levels) for task in choices} == {("choice", 7, (2,))}
