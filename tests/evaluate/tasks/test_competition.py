"""MATH: boxes, and which answers are the same."""

import json

import pytest

from illada.evaluate.task import Question
from illada.evaluate.tasks.competition import EXAMPLES, MATH_TASKS, boxed, equivalent


@pytest.mark.parametrize(
    ("text", "content"),
    [
        (r"so $\boxed{5}$", "5"),
        (r"\boxed{1} then \boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\fbox{3}", "3"),
        (r"\boxed{a{b}c}", "a{b}c"),
        (r"\boxed{2} and \boxed{3", "2"),
        ("none", None),
    ],
)
def test_the_last_box_that_closes(text, content):
    assert boxed(text) == content


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (r"\frac12", "0.5"),
        (r"\dfrac{1}{2}", r"\frac{1}{2}"),
        (r"\frac{2}{4}", "1/2"),
        ("1,000", "1000"),
        ("x=5", "5"),
        (r"5\text{ cm}", "5"),
        (r"\text{(A)}", "(A)"),
        ("(3, 4)", "(3,4)"),
        (r"\left( 3, 4 \right)", "(3,4)"),
        ("12.0", "12"),
        (r"90^\circ", "90"),
        (r"\$18", "18"),
        (r"50\%", "50"),
        ("$7$.", "7"),
    ],
)
def test_the_same_answer_set_in_another_way(one, other):
    assert equivalent(one, other)
    assert equivalent(other, one)


@pytest.mark.parametrize(
    ("one", "other"),
    [("3", "4"), (r"\text{even}", r"\text{odd}"), ("(3,4)", "(4,3)"), ("", ""), (r"\frac{1}{0}", "1"), ("12", "1,2")],
)
def test_other_answers(one, other):
    assert not equivalent(one, other)


def test_the_examples_of_ours_are_right():
    for _, solution, answer in EXAMPLES:
        assert boxed(solution) == answer


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "math").mkdir()
    row = {"problem": "1+1?", "solution": r"It is $\boxed{2}$.", "type": "Prealgebra", "level": "Level 1"}
    (tmp_path / "math" / "test.jsonl").write_text(json.dumps(row) + "\n")
    return tmp_path


def test_four_examples_and_the_problem(folder, asked):
    [question] = asked(MATH_TASKS["math"], folder)
    assert question.text.endswith("\n\nProblem:\n1+1?\n\nSolution:")
    assert (len(question.shots), question.reference, question.group) == (4, "2", "Prealgebra")
    with pytest.raises(ValueError, match="4 examples"):
        asked(MATH_TASKS["math"], folder, shots=5)


def test_verdicts():
    question = Question(id="0", ask="", reference="2")
    assert MATH_TASKS["math"].judge(question, r"\boxed{2.0}").correct
    assert MATH_TASKS["math"].judge(question, "2").extracted is None
    assert not MATH_TASKS["math_chat"].judge(question, r"<think>\boxed{2}</think> \boxed{3}").correct
