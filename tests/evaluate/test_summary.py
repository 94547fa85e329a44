"""Lines and what they add up to."""

import json

import pytest

from illada.evaluate.intervals import wilson_interval
from illada.evaluate.summary import AnswerLine, summarize


def test_a_line_comes_back_from_json(line):
    one = line(3, scores=(-1.5, -2.0), extracted=None)
    assert AnswerLine.from_row(json.loads(json.dumps(one.row()))) == one


@pytest.mark.parametrize("changes", [{"more": 1}, {"correct": "yes"}, {"id": 4}])
def test_a_row_that_is_no_line_is_refused(changes, line):
    for row in (3, [], {}, line(1).row() | changes):
        with pytest.raises(ValueError, match="an answer has"):
            AnswerLine.from_row(row)


def test_shares_intervals_and_means(line):
    lines = [line(1), line(2, correct=False, extracted=None), line(3), line(6)]
    [summary] = summarize(lines, {"gsm8k": 81.9})
    assert (summary.whole.count, summary.whole.correct, summary.whole.share) == (4, 3, 0.75)
    assert summary.whole.interval == wilson_interval(3, 4)
    assert summary.bootstrap.low < 0.75 <= summary.bootstrap.high
    assert (summary.forwards, summary.positions, summary.tokens, summary.seconds) == (3, 30, 6, 0.5)
    assert (summary.published, summary.nothing_found, summary.groups) == (81.9, 1, {})
    assert summary.interval == summary.bootstrap


@pytest.mark.parametrize("correct", [True, False])
def test_where_all_are_equal_the_interval_is_not_a_point(correct, line):
    [summary] = summarize([line(n, correct=correct) for n in range(5)], {})
    assert summary.bootstrap.low == summary.bootstrap.high == float(correct)
    assert summary.interval == wilson_interval(5 * correct, 5)


def test_tasks_in_their_order_and_groups_sorted(line):
    lines = [line(1, task="b", group="y"), line(2, task="a"), line(3, task="b", group="x", correct=False)]
    first, second = summarize(lines, {})
    assert (first.task, second.task) == ("b", "a")
    assert {name: part.share for name, part in first.groups.items()} == {"x": 0.0, "y": 1.0}
    assert list(first.groups) == ["x", "y"]
    assert json.loads(json.dumps(first.data()))["groups"]["y"]["count"] == 1
    assert first.published is None


def test_nothing_is_nothing():
    assert summarize([], {}) == []
