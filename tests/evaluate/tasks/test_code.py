"""HumanEval and MBPP: programs that pass if and only if the answer is right."""

import gzip
import json

import pytest

from illada.evaluate.sandbox import launcher, run_program, run_programs
from illada.evaluate.tasks.code import CODE_TASKS, extract_code

confined = pytest.mark.skipif(bool(launcher.supported()), reason="programs cannot be confined here")

HUMANEVAL = {
    "task_id": "Own/0",
    "prompt": 'from typing import List\n\n\ndef total(xs: List[int]) -> int:\n    """The sum."""\n',
    "entry_point": "total",
    "canonical_solution": "    return sum(xs)\n",
    "test": "def check(candidate):\n    assert candidate([1, 2]) == 3\n    assert candidate([]) == 0\n",
}


def mbpp(number):
    return {
        "task_id": number,
        "text": f"Write a function to add {number}.",
        "code": f"def add(x):\n    return x + {number}",
        "test_setup_code": "",
        "test_list": [f"assert add(1) == {number + 1}", f"assert add(0) == {number}"],
    }


@pytest.fixture
def folder(tmp_path):
    for name in ("humaneval", "mbpp"):
        (tmp_path / name).mkdir()
    (tmp_path / "humaneval" / "HumanEval.jsonl.gz").write_bytes(gzip.compress(json.dumps(HUMANEVAL).encode()))
    rows = [mbpp(number) for number in (1, 2, 3, 4, 11, 12, 510, 511)]
    (tmp_path / "mbpp" / "mbpp.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


@confined
@pytest.mark.parametrize(("answer", "passed"), [("    return sum(xs)\n", True), ("    return 0\n", False), ("", False)])
def test_humaneval(answer, passed, folder, asked):
    task = CODE_TASKS["humaneval"]
    [question] = asked(task, folder)
    assert question.text == HUMANEVAL["prompt"]
    assert "\ndef" in question.stop
    assert run_program(task.program(question, answer)).passed is passed


@confined
def test_humaneval_in_a_chat_takes_the_block_of_code_and_the_imports_of_the_question(folder, asked):
    task = CODE_TASKS["humaneval_chat"]
    [question] = asked(task, folder)
    answer = (
        "<think>```python\nwrong\n```</think>Here:\n```python\ndef total(xs: List[int]):\n    return sum(xs)\n```\nOK"
    )
    assert run_program(task.program(question, answer)).passed
    assert not run_program(task.program(question, answer.replace("sum", "max"))).passed


@confined
def test_mbpp(folder, asked):
    task = CODE_TASKS["mbpp"]
    questions = asked(task, folder)
    assert [question.id for question in questions] == ["11", "12", "510"]
    assert questions[0].text.count("[DONE]") == 3
    assert questions[0].text.endswith("assert add(0) == 11\n[BEGIN]\n")
    assert run_program(task.program(questions[0], mbpp(11)["code"])).passed
    assert not run_program(task.program(questions[0], mbpp(12)["code"])).passed


@confined
def test_mbpp_in_a_chat(folder, asked):
    task = CODE_TASKS["mbpp_chat"]
    question = asked(task, folder)[0]
    assert "assert add(1) == 12" in question.text
    assert run_program(task.program(question, f"```python\n{mbpp(11)['code']}\n```")).passed


def test_examples_that_are_not_there_are_refused(folder, asked):
    with pytest.raises(ValueError, match="3 examples"):
        asked(CODE_TASKS["mbpp"], folder, shots=4)
    with pytest.raises(ValueError, match="lacks task 2"):
        list(CODE_TASKS["mbpp"].questions(iter([mbpp(11)]), folder, 1))
    with pytest.raises(ValueError, match="no examples"):
        asked(CODE_TASKS["humaneval"], folder, shots=1)


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ("```python\nx = 1\n```", "x = 1\n"),
        ("```\nx = 1\n```", "x = 1\n"),
        ("```py\na\n```\nor\n```python\nb\n```", "b\n"),
        ("```python\nx = 1", "x = 1"),
        ("Sure. \ndef f():\n    pass", "def f():\n    pass"),
        ("import os\nx", "import os\nx"),
        ("nothing", "nothing"),
    ],
)
def test_the_code_of_an_answer(answer, code):
    assert extract_code(answer) == code


def canonical(name, row):
    if name == "humaneval":
        return row["canonical_solution"]
    if name == "humaneval_chat":
        return f"```python\n{row['prompt']}{row['canonical_solution']}```"
    return row["code"] if name == "mbpp" else f"```python\n{row['code']}\n```"


@confined
@pytest.mark.slow
@pytest.mark.parametrize(("name", "count"), [("humaneval", 164), ("humaneval_chat", 164), ("mbpp", 500)])
def test_the_canonical_solutions_of_the_real_sets_pass(name, count, benchmarks, asked):
    task = CODE_TASKS[name]
    rows = {str(row["task_id"]): row for row in task.local_rows(benchmarks)}
    questions = asked(task, benchmarks)
    assert len(questions) == count
    programs = [task.program(question, canonical(name, rows[question.id])) for question in questions]
    outcomes = run_programs(programs)
    failed = [
        (question.id, outcome) for question, outcome in zip(questions, outcomes, strict=True) if not outcome.passed
    ]
    assert not failed


@confined
def test_an_empty_answer_passes_no_real_test(benchmarks, asked):
    for name in ("humaneval", "mbpp"):
        task = CODE_TASKS[name]
        programs = [task.program(question, "    pass\n") for question in asked(task, benchmarks)[:20]]
        assert not any(outcome.passed for outcome in run_programs(programs))
