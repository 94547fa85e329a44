"""MMLU and its relatives: letters, examples by subject, and how a letter is read from an answer."""

import json
from collections import Counter

import pytest

from illada.evaluate.task import Question
from illada.evaluate.tasks.mmlu import MMLU_CHOICES, MMLU_WRITTEN, first_letter, last_letter

PROMPT = """The following are multiple choice questions (with answers) about small things.

Q: What is small?
(A) a whale (B) an ant (C) the sea (D) a hill
A: Let's think step by step. Ants are small. The answer is (B).

Q: Two lines
of a question?
(A) one (B) two
(C) three (D) four
A: Let's think step by step. There are two. (A) is not right. The answer is (B).

Q: Five?
(A) a (B) b (C) c (D) d (E) e
A: Let's think step by step. The answer is (E).

"""


def redux(number, error="ok", subject="small_things"):
    return {
        "subject": subject,
        "question": f"Question {number}?",
        "choices": ["p", "q", "r", "s"],
        "answer": number % 4,
        "error_type": error,
    }


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "mmlu-redux").mkdir()
    rows = [redux(0), redux(1, "wrong_groundtruth"), redux(2)]
    (tmp_path / "mmlu-redux" / "mmlu_redux.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "mmlu-dev").mkdir()
    (tmp_path / "mmlu-dev" / "flan_cot_dev_prompts.json").write_text(json.dumps({"small_things": PROMPT}))
    return tmp_path


def test_a_question_with_two_examples(folder, asked):
    question = asked(MMLU_CHOICES["mmlu_redux"], folder, shots=1)[0]
    assert question.text == (
        "The following are multiple choice questions (with answers) about small things.\n\n"
        "What is small?\nA. a whale\nB. an ant\nC. the sea\nD. a hill\nAnswer: B\n\n"
        "Question 0?\nA. p\nB. q\nC. r\nD. s\nAnswer:"
    )
    assert (question.candidates, question.gold, question.group) == ((" A", " B", " C", " D"), 0, "small_things")


def test_as_a_chat_each_example_is_a_turn_and_its_answer(folder, asked):
    turns = asked(MMLU_WRITTEN["mmlu_redux_generative"], folder)[0].messages
    assert [turn.role for turn in turns] == ["user", "assistant", "user", "assistant", "user"]
    assert turns[0].content.startswith("The following are")
    assert (turns[1].content, turns[3].content) == ("B", "B")


def test_options_on_two_lines_and_five_options(folder, asked):
    """The former are read, the latter are no example of four options."""
    shots = asked(MMLU_CHOICES["mmlu_redux"], folder)[0].shots
    assert len(shots) == 2
    assert shots[1].ask == "Two lines\nof a question?\nA. one\nB. two\nC. three\nD. four\nAnswer:"


def test_questions_with_faults_are_left_out_and_the_others_keep_their_numbers(folder, asked):
    assert [question.id for question in asked(MMLU_CHOICES["mmlu_redux"], folder)] == ["0", "2"]


def test_examples_that_are_not_there_are_refused(folder, asked):
    with pytest.raises(ValueError, match="at most 5 examples"):
        asked(MMLU_CHOICES["mmlu_redux"], folder, shots=6)
    task = MMLU_CHOICES["mmlu_redux"]
    with pytest.raises(ValueError, match="--data"):
        list(task.questions(iter([redux(0)]), None, 5))
    with pytest.raises(ValueError, match="no example about other"):
        list(task.questions(iter([redux(0, subject="other")]), folder, 5))
    (folder / "mmlu-dev" / "flan_cot_dev_prompts.json").unlink()
    with pytest.raises(FileNotFoundError, match="flan_cot"):
        list(task.questions(iter([redux(0)]), folder / "mmlu-redux", 5))


def test_no_example_needs_no_file(asked, folder):
    (folder / "mmlu-dev" / "flan_cot_dev_prompts.json").unlink()
    assert len(asked(MMLU_CHOICES["mmlu_redux"], folder, shots=0)) == 2


def test_mmlu_pro_lists_its_options(tmp_path, asked):
    (tmp_path / "mmlu-pro").mkdir()
    row = {"question_id": 7, "question": "Q?", "options": ["x", "y", "z"], "answer_index": 2, "category": "law"}
    (tmp_path / "mmlu-pro" / "test.jsonl").write_text(json.dumps(row))
    file = tmp_path / "mmlu-pro" / "test.jsonl"
    (tmp_path / "mmlu-pro" / "test.jsonl.gz").write_bytes(__import__("gzip").compress(file.read_bytes()))
    [written] = asked(MMLU_WRITTEN["mmlu_pro"], tmp_path)
    assert "A. x\nB. y\nC. z\n" in written.text
    assert (written.id, written.reference, written.group) == ("7", "C", "law")
    [choice] = asked(MMLU_CHOICES["mmlu_pro_choice"], tmp_path)
    assert (choice.candidates, choice.gold) == ((" A", " B", " C"), 2)
    assert choice.text == "Q?\nA. x\nB. y\nC. z\nAnswer:"


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        (" B", "B"),
        ("(C) because", "C"),
        ("Answer: D.", "D"),
        ("A", "A"),
        ("I'd say B", "B"),
        ("none", None),
        ("", None),
    ],
)
def test_the_first_letter(answer, letter):
    assert first_letter(answer) == letter


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("A is wrong, so the answer is (C).", "C"),
        ("The answer is B", "B"),
        ("the answer is: **(j)**", "J"),
        ("The answer is (A). No: the answer is (D).", "D"),
        ("Answer: E", "E"),
        ("It must be F, not G", "G"),
        ("<think>The answer is (A)</think>The answer is (B).", "B"),
        ("nothing here", None),
    ],
)
def test_the_last_letter(answer, letter):
    assert last_letter(answer) == letter


def test_verdicts():
    question = Question(id="0", ask="", reference="B")
    task = MMLU_WRITTEN["mmlu_generative"]
    assert task.judge(question, " B.").correct
    assert not task.judge(question, " A, not B").correct
    assert task.judge(question, "?").extracted is None


@pytest.mark.parametrize(("name", "count"), [("mmlu_redux", 5330), ("mmlu_pro_choice", 12032)])
def test_every_real_choice_can_be_asked(name, count, benchmarks, asked):
    questions = asked(MMLU_CHOICES[name], benchmarks)
    assert len(questions) == len({question.id for question in questions}) == count
    assert all(0 <= question.gold < len(question.candidates) for question in questions)
    if name == "mmlu_redux":
        shots = Counter(len(question.shots) for question in questions)
        assert set(shots) == {3, 4, 5}
        assert shots[5] > 5000


@pytest.mark.parametrize("name", ["mmlu_redux_generative", "mmlu_pro"])
def test_who_knows_the_letter_is_right_on_every_real_question(name, benchmarks, asked):
    task = MMLU_WRITTEN[name]
    say = "C is wrong. The answer is ({}).".format if name == "mmlu_pro" else " {}".format
    for question in asked(task, benchmarks):
        other = "B" if question.reference == "A" else "A"
        assert task.judge(question, say(question.reference)).correct
        assert not task.judge(question, say(other)).correct
