"""FairytaleQA: passages are put together, and an answer counts if one of the annotators gave it."""

import json

import pytest

from illada.evaluate.tasks.fairytaleqa import FAIRYTALEQA_TASKS, plain

TASK = FAIRYTALEQA_TASKS["fairytaleqa"]


@pytest.fixture
def folder(tmp_path):
    def write(questions):
        base = tmp_path / "fairytaleqa"
        base.mkdir(exist_ok=True)
        stories = [{"story": "fox", "sections": ["A fox ran.", "He met a crow.", "The crow flew."]}]
        for name, rows in (("stories_val", stories), ("qa_val", questions)):
            (base / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return tmp_path

    return write


def question(**values):
    return {"story": "fox", "cor_section": "1,2", "question": "Who ran?", "answer1": "The fox.", **values}


def asked(folder):
    return list(TASK.questions(TASK.local_rows(folder), folder, None))


def test_the_passage_stands_before_the_question(folder):
    [one] = asked(folder([question(answer4="a red fox")]))
    assert one.ask == "A fox ran.\nHe met a crow.\n\nWho ran?"
    assert one.reference == "The fox.\na red fox"


@pytest.mark.parametrize(
    ("answer", "correct"),
    [("the fox", True), (" Fox!", True), ("A  red fox.", True), ("the crow", False), ("", False), ("the", False)],
)
def test_an_answer_counts_if_an_annotator_gave_it(folder, answer, correct):
    [one] = asked(folder([question(answer4="a red fox")]))
    assert TASK.judge(one, answer).correct == correct


def test_an_empty_answer_is_none(folder):
    [one] = asked(folder([question()]))
    assert TASK.judge(one, " the ").extracted is None


@pytest.mark.parametrize("values", [{"story": "wolf"}, {"cor_section": "4"}, {"cor_section": "0"}])
def test_a_passage_that_is_not_there_is_named(folder, values):
    place = folder([question(**values)])
    with pytest.raises(ValueError, match="has no passage"):
        asked(place)


def test_examples_are_refused(folder):
    place = folder([question()])
    with pytest.raises(ValueError, match="no examples"):
        list(TASK.questions(TASK.local_rows(place), place, 2))


def test_rows_of_the_hub_have_the_same_form():
    row = TASK.hub_row({"story_section": "A fox.", "question": "Who?", "answer1": "fox", "answer2": ""})
    assert row == {"passage": "A fox.", "question": "Who?", "answers": ["fox"]}


def test_plain_leaves_words():
    assert plain("An  Apple, a day; the doctor's!") == "apple day doctors"
