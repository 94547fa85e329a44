"""GSM8K: examples, and which number an answer ends with."""

import json

import pytest

from illada.evaluate.task import Question
from illada.evaluate.tasks.gsm8k import EXAMPLES, GSM8K_TASKS, final_number

ROW = {"question": "Two and two?", "answer": "It is <<2+2=4>>4.\n#### 4"}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "gsm8k").mkdir()
    (tmp_path / "gsm8k" / "test.jsonl").write_text(json.dumps(ROW) + "\n")
    return tmp_path


def test_eight_examples_and_the_question(folder, asked):
    [question] = asked(GSM8K_TASKS["gsm8k"], folder)
    assert len(question.shots) == 8
    assert question.text.count("The answer is ") == 8
    assert question.text.endswith("\n\nQ: Two and two?\nA:")
    assert question.reference == "4"
    assert "Q:" in question.stop


def test_the_examples_of_ours_are_right():
    for _, steps, number in EXAMPLES:
        last = steps.rpartition("=")[2] if "=" in steps else steps
        assert final_number(last) == number


def test_examples_come_from_training_data_where_there_is_some(folder, asked):
    train = [{"question": f"Problem {n}?", "answer": f"So <<{n}*1={n}>>{n}.\n#### {n}"} for n in range(9)]
    (folder / "gsm8k" / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in train))
    [question] = asked(GSM8K_TASKS["gsm8k"], folder, shots=2)
    assert question.text.startswith(
        "Q: Problem 0?\nA: So 0. The answer is 0.\n\nQ: Problem 1?\nA: So 1. The answer is 1."
    )


def test_too_many_examples_are_refused(folder, asked):
    with pytest.raises(ValueError, match="there are 8 examples"):
        asked(GSM8K_TASKS["gsm8k"], folder, shots=9)
    with pytest.raises(ValueError, match="no examples"):
        asked(GSM8K_TASKS["gsm8k_chat"], folder, shots=1)


@pytest.mark.parametrize(
    ("answer", "number"),
    [
        ("The answer is 12.", "12"),
        ("so 3 + 4 = 7. The answer is $1,200.50.", "1200.5"),
        ("#### 18", "18"),
        (r"It is \boxed{-5}", "-5"),
        (r"It is \boxed{\$7}", "7"),
        ("first 3, then 4", "4"),
        ("The answer is 12.0", "12"),
        ("the answer is 007", "7"),
        ("-0", "0"),
        (".5", "0.5"),
        ("The answer is 3. Q: 9", "3"),
        ("none", None),
        ("", None),
    ],
)
def test_the_number_of_an_answer(answer, number):
    assert final_number(answer) == number


def test_verdicts():
    question, task = Question(id="0", ask="", reference="1,000"), GSM8K_TASKS["gsm8k"]
    assert task.judge(question, "The answer is 1000.00.").correct
    assert not task.judge(question, "The answer is 1001.").correct
    nothing = task.judge(question, "who knows")
    assert (nothing.correct, nothing.extracted) == (False, None)
    chat = GSM8K_TASKS["gsm8k_chat"]
    assert not chat.judge(question, "<think>The answer is 1000.</think>\\boxed{5}").correct


def test_who_writes_the_solutions_of_the_real_set_is_right_everywhere(benchmarks, asked):
    task = GSM8K_TASKS["gsm8k"]
    rows, questions = list(task.local_rows(benchmarks)), asked(task, benchmarks)
    assert len(questions) == 1319
    for row, question in zip(rows, questions, strict=True):
        assert task.judge(question, row["answer"]).correct
        wrong = f"The answer is {float(final_number(question.reference)) + 1}."
        assert not task.judge(question, wrong).correct
