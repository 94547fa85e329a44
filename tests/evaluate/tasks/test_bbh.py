"""BBH: the files of worked examples, the order of questions, and how answers are compared."""

import json

import pytest

from illada.evaluate.task import Question
from illada.evaluate.tasks.bbh import BBH, SUBTASKS

PROMPT = """A warning that is not for models.
-----
Count the words.

Q: one two
A: Let's think step by step.
There are two. So the answer is 2.

Q: three
A: Let's think step by step.
There is one. So the answer is 1.

Q: x y z
A: Let's think step by step.
There are three. So the answer is 3."""


@pytest.fixture
def folder(tmp_path):
    for place in ("bbh", "cot-prompts"):
        (tmp_path / "bbh" / place).mkdir(parents=True)
    for number, name in enumerate(SUBTASKS):
        examples = [{"input": f"{name} {n}", "target": str(n)} for n in range(1 + number % 2)]
        (tmp_path / "bbh" / "bbh" / f"{name}.json").write_text(json.dumps({"examples": examples}))
        (tmp_path / "bbh" / "cot-prompts" / f"{name}.txt").write_text(PROMPT)
    return tmp_path


def test_description_examples_and_question(folder, asked):
    question = asked(BBH(), folder, shots=1)[0]
    assert question.text == (
        "Count the words.\n\nQ: one two\nA: Let's think step by step.\nThere are two. So the answer is 2.\n\n"
        f"Q: {SUBTASKS[0]} 0\nA: Let's think step by step."
    )
    assert (question.id, question.group) == (f"{SUBTASKS[0]}/0", SUBTASKS[0])


def test_the_first_questions_are_one_of_each_task(folder, asked):
    questions = asked(BBH(), folder)
    assert [question.group for question in questions[:27]] == SUBTASKS
    assert len(questions) == 27 + 13
    assert {len(question.shots) for question in questions} == {3}


def test_what_is_missing_is_named(folder, asked):
    with pytest.raises(ValueError, match="3 examples"):
        asked(BBH(), folder, shots=4)
    with pytest.raises(ValueError, match="--data"):
        list(BBH().questions(iter([{}]), None, 3))
    (folder / "bbh" / "cot-prompts" / f"{SUBTASKS[0]}.txt").unlink()
    (folder / "bbh" / "bbh" / "navigate.json").write_text("[]")
    with pytest.raises(ValueError, match=r"navigate.json does not hold"):
        asked(BBH(), folder)
    (folder / "bbh" / "bbh" / "navigate.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"navigate.json"):
        asked(BBH(), folder)


@pytest.mark.parametrize(
    ("answer", "reference", "correct"),
    [
        (" So the answer is (B).", "(B)", True),
        ("So the answer is B.", "(B)", True),
        ("So the answer is (B) a thing.", "(B)", True),
        ("So the answer is (C).", "(B)", False),
        ("So the answer is Yes.", "yes", True),
        ("the answer is no. So the answer is yes.\nQ: next", "yes", True),
        ("So the answer is } ] >.", "} ] >", True),
        ("So the answer is }]>.", "} ] >", True),
        ("So the answer is ant bee.", "ant bee", True),
        ("So the answer is ant, bee.", "ant bee", True),
        ("So the answer is bee ant.", "ant bee", False),
        ("So the answer is -35.", "-35", True),
        ("So the answer is 35.", "-35", False),
        ("So the answer is valid.", "invalid", False),
    ],
)
def test_answers(answer, reference, correct):
    assert BBH().judge(Question(id="", ask="", reference=reference), answer).correct is correct


def test_no_answer_is_told_from_a_wrong_one():
    assert BBH().judge(Question(id="", ask="", reference="(A)"), "I do not know").extracted is None


def test_who_knows_the_answers_is_right_on_every_real_question(benchmarks, asked):
    questions = asked(BBH(), benchmarks)
    assert len(questions) == len({question.id for question in questions}) == 6511
    for question in questions:
        assert len(question.shots) == 3
        assert BBH().judge(question, f" 3 is more than 2. So the answer is {question.reference}.").correct
        assert not BBH().judge(question, "So the answer is (Z) 4711.").correct
