"""Two folders side by side."""

import json

import pytest

from illada.evaluate.bootstrap import mcnemar
from illada.evaluate.comparison import compare_folders


def write(folder, lines):
    folder.mkdir()
    (folder / "answers.jsonl").write_text("".join(json.dumps(one.row()) + "\n" for one in lines))
    return folder


@pytest.fixture
def lines_of(line):
    """An x for a right answer, a dot for a wrong one."""

    def make(pattern, task="gsm8k"):
        return [line(number, task=task, correct=mark == "x") for number, mark in enumerate(pattern)]

    return make


def test_pairs_and_p_values(tmp_path, lines_of):
    one = write(tmp_path / "a", lines_of("xxxx....xx") + lines_of("x.", task="bbh"))
    other = write(tmp_path / "b", lines_of("xxxxxx..x.") + lines_of("xx", task="bbh"))
    first, second = compare_folders(one, other)
    assert (first.first.correct, first.second.correct, first.only_first, first.only_second) == (6, 7, 1, 2)
    assert first.difference.value == pytest.approx(0.1)
    assert first.p_value == mcnemar(1, 2)
    assert (second.task, second.only_second, second.p_value, second.corrected) == ("bbh", 1, 1.0, 1.0)


def test_p_values_are_corrected_for_the_number_of_tasks(tmp_path, lines_of):
    one = write(tmp_path / "a", lines_of("." * 8) + lines_of("." * 8, task="bbh"))
    other = write(tmp_path / "b", lines_of("x" * 8) + lines_of("." * 8, task="bbh"))
    first, second = compare_folders(one, other)
    assert first.corrected == pytest.approx(2 * first.p_value)
    assert second.corrected == 1.0


def test_other_questions_are_refused_or_left_out(tmp_path, lines_of):
    one, other = write(tmp_path / "a", lines_of("x.x")), write(tmp_path / "b", lines_of("x.xx"))
    with pytest.raises(ValueError, match=r"has 3 answers and .* has 4, of which 3 .*--common"):
        compare_folders(one, other)
    [found] = compare_folders(one, other, common=True)
    assert found.first.count == 3


def test_an_id_that_stands_for_another_question_is_refused(tmp_path, line):
    one = write(tmp_path / "a", [line(1)])
    other = write(tmp_path / "b", [line(1, reference="5")])
    with pytest.raises(ValueError, match="gsm8k 1 is another question"):
        compare_folders(one, other)


def test_folders_without_anything_to_compare(tmp_path, lines_of):
    one, other = write(tmp_path / "a", lines_of("x")), write(tmp_path / "b", lines_of("x", task="bbh"))
    with pytest.raises(ValueError, match="no question in common"):
        compare_folders(one, other)
    with pytest.raises(FileNotFoundError, match="is not there"):
        compare_folders(one, tmp_path)
