"""Choices: rows in the layout of the local files and of the hub, and every row of the real ones."""

import json

import pytest

from illada.evaluate.tasks.choice import CHOICE_TASKS

ASKED = "Please choose the correct answer to the question: "
COUNTS = {"arc_challenge": 1172, "arc_easy": 2376, "openbookqa": 500, "winogrande": 1267}


def one_string(question, options, gold):
    listed = " ".join(f"Answer{number}: {text}" for number, text in enumerate(options, 1))
    return {
        "instruction": f"{ASKED}{question}\n\n{listed}\n\nAnswer format: answer1/answer2",
        "answer": f"answer{gold}",
    }


def write(folder, file, rows):
    path = folder / file
    path.parent.mkdir(parents=True)
    text = json.dumps(rows) if path.suffix == ".json" else "".join(json.dumps(row) + "\n" for row in rows)
    path.write_text(text)


def test_arc_is_split_into_question_and_options(tmp_path, asked):
    rows = [
        one_string("What is wet?", ["a stone", "rain"], 2),
        one_string("Which says it?\nThink.", ["Answer1: no", "the second: Answer3: yes", "a third"], 3),
    ]
    write(tmp_path, "commonsense/ARC-Challenge/test.json", rows)
    first, second = asked(CHOICE_TASKS["arc_challenge"], tmp_path)
    assert first.ask == "Question: What is wet?\nAnswer:"
    assert (first.candidates, first.gold, first.reference) == ((" a stone", " rain"), 1, "rain")
    assert second.ask == "Question: Which says it?\nThink.\nAnswer:"
    assert second.gold == 2
    assert [question.id for question in (first, second)] == ["0", "1"]


def test_openbookqa_is_asked_bare(tmp_path, asked):
    write(tmp_path, "commonsense/openbookqa/test.json", [one_string("Ice is", ["warm", "cold"], 2)])
    [question] = asked(CHOICE_TASKS["openbookqa"], tmp_path)
    assert (question.text, question.candidates) == ("Ice is", (" warm", " cold"))


def test_winogrande_puts_either_word_into_the_blank(tmp_path, asked):
    text = (
        "Please choose the correct answer to fill in the blank to complete the given sentence: The cup fell off the "
        "shelf because _ was slippery.\n\nOption1: the cup Option2: the shelf Answer format: option1/option2"
    )
    write(tmp_path, "commonsense/winogrande/test.json", [{"instruction": text, "answer": "option2"}])
    [question] = asked(CHOICE_TASKS["winogrande"], tmp_path)
    assert question.text == "The cup fell off the shelf because "
    assert question.candidates == ("the cup was slippery.", "the shelf was slippery.")
    assert question.gold == 1


def test_hellaswag_loses_its_marks(tmp_path, asked):
    row = {
        "activity_label": "Baking bread",
        "ctx_a": "[header] How to bake [title] Take flour.",
        "ctx_b": "then",
        "endings": ["eat it [step] now.", "knead  it."],
        "label": "1",
    }
    write(tmp_path, "hellaswag/validation.jsonl", [row])
    [question] = asked(CHOICE_TASKS["hellaswag"], tmp_path)
    assert question.text == "Baking bread: How to bake. Take flour. Then"
    assert question.candidates == (" eat it now.", " knead it.")
    assert question.gold == 1


def test_piqa_asks_for_one_of_two_ways(tmp_path, asked):
    write(tmp_path, "piqa/validation.jsonl", [{"goal": "cool soup", "sol1": "wait", "sol2": "boil it", "label": 0}])
    [question] = asked(CHOICE_TASKS["piqa"], tmp_path)
    assert question.text == "Question: cool soup\nAnswer:"
    assert (question.candidates, question.gold) == ((" wait", " boil it"), 0)


@pytest.mark.parametrize("labels", [["A", "B", "C"], ["1", "2", "3"]])
def test_the_hub_names_options_by_letters_or_numbers(labels):
    row = {"question": "Which?", "choices": {"label": labels, "text": ["x", "y", "z"]}, "answerKey": labels[2]}
    task = CHOICE_TASKS["arc_easy"]
    [question] = task.questions(iter([task.hub_row(row)]), None, None)
    assert (question.candidates, question.gold) == ((" x", " y", " z"), 2)


def test_the_hub_calls_a_question_a_stem():
    row = {"question_stem": "Ice is", "choices": {"label": ["A", "B"], "text": ["hot", "cold"]}, "answerKey": "B"}
    task = CHOICE_TASKS["openbookqa"]
    [question] = task.questions(iter([task.hub_row(row)]), None, None)
    assert (question.text, question.gold) == ("Ice is", 1)


@pytest.mark.parametrize(
    ("task", "file", "row"),
    [
        ("arc_easy", "commonsense/ARC-Easy/test.json", one_string("Q?", ["a", "b"], 3)),
        ("arc_easy", "commonsense/ARC-Easy/test.json", {"instruction": "Hello", "answer": "answer1"}),
        ("winogrande", "commonsense/winogrande/test.json", {"instruction": "Hello", "answer": "option1"}),
    ],
)
def test_a_row_that_does_not_split_is_named(task, file, row, tmp_path, asked):
    write(tmp_path, file, [row])
    with pytest.raises(ValueError, match=r"test.json, row 1 is no"):
        asked(CHOICE_TASKS[task], tmp_path)


def test_examples_are_refused_where_there_are_none(tmp_path, asked):
    write(tmp_path, "piqa/validation.jsonl", [{"goal": "g", "sol1": "a", "sol2": "b", "label": 0}])
    with pytest.raises(ValueError, match="piqa has no examples"):
        asked(CHOICE_TASKS["piqa"], tmp_path, shots=2)


def test_a_missing_file_is_named(tmp_path, asked):
    with pytest.raises(FileNotFoundError, match=r"hellaswag.validation.jsonl"):
        asked(CHOICE_TASKS["hellaswag"], tmp_path)


@pytest.mark.parametrize("name", COUNTS)
def test_every_real_row_can_be_asked(name, benchmarks, asked):
    questions = asked(CHOICE_TASKS[name], benchmarks)
    assert len(questions) == COUNTS[name]
    assert len({question.id for question in questions}) == len(questions)
    for question in questions:
        assert 2 <= len(question.candidates) <= 5
        assert all(candidate.strip() for candidate in question.candidates)
        assert 0 <= question.gold < len(question.candidates)
        assert "Answer1" not in question.text
        assert "Option1" not in question.text
