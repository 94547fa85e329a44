"""Points of quality against speed, their area, and which settings lose nothing."""

import xml.etree.ElementTree as ElementTree

import pytest

from illada.data.skills.registry import named_skills
from illada.evaluate.bootstrap import Difference
from illada.evaluate.fitting import Room
from illada.evaluate.frontier import Point, area, best, frontier, grid, measure
from illada.evaluate.frontier_plot import frontier_svg
from illada.evaluate.intervals import Interval, wilson_interval
from illada.evaluate.run import prepare
from illada.evaluate.suites import Asking
from illada.evaluate.summary import Part
from illada.evaluate.tasks.skills import skill_tasks
from illada.sample.request import Completion, SamplingParams

ROOM = Room(context=10_000, encode=lambda text: list(text.encode()), decode=lambda ids: bytes(ids).decode())


def point(*, speed, correct, count=100, positions=100.0, difference=0.0, p_value=1.0, caching="none"):
    return Point(
        caching=caching,
        unmasking="low_confidence",
        block_length=32,
        right=Part(count=count, correct=correct, interval=wilson_interval(correct, count)),
        difference=Difference(value=difference, interval=Interval(low=difference, high=difference)),
        p_value=p_value,
        tokens_per_forward=float(speed),
        forwards=10 / speed,
        positions=positions,
        seconds=1.0,
        tokens_per_second=10.0,
    )


def is_even(text):
    return sum(text.encode()) % 2 == 0


class Scripted:
    """Knows all answers; with a threshold it is fast, and wrong wherever the prompt is even."""

    def __init__(self, prepared):
        self.answers = {question.text: question.reference for question in prepared.questions}

    def chat(self, conversations, params):
        found = []
        for messages in conversations:
            text = self.answers[messages[-1].content]
            quick = params.unmasking != "low_confidence"
            if quick and is_even(messages[-1].content):
                text = "?"
            found.append(
                Completion(
                    text=text,
                    tokens=(1,) * 8,
                    finish_reason="stop",
                    prompt_tokens=1,
                    forwards=2 if quick else 8,
                    positions=16 if quick else 64,
                    seconds=0.0,
                    revealed_at=(1,) * 8,
                )
            )
        return found

    def generate(self, prompt, params):
        raise AssertionError

    def score(self, prompt, candidates, params):
        raise AssertionError

    def score_chat(self, conversations, candidates, params):
        raise AssertionError


class Exchanges(Scripted):
    """Knows one task; with a threshold the other instead."""

    def __init__(self, one, other):
        super().__init__(one)
        self.plain, self.quick = self.answers, Scripted(other).answers

    def chat(self, conversations, params):
        known = self.plain if params.unmasking == "low_confidence" else self.quick
        self.answers = {messages[-1].content: known.get(messages[-1].content, "?") for messages in conversations}
        return super().chat(conversations, SamplingParams())


def test_the_grid_begins_with_the_baseline_and_holds_every_combination_once():
    settings = grid(("none", "dual"), ("low_confidence", "threshold"), (16, 32), length=64)
    assert settings[0] == SamplingParams(length=64)
    combinations = {(one.caching, one.unmasking, one.block_length) for one in settings}
    assert len(settings) == len(combinations) == 8
    with pytest.raises(ValueError, match="caching must be one of"):
        grid(("best",), ("low_confidence",))


def test_points_count_answers_forwards_and_what_differs_from_the_first():
    task = prepare(skill_tasks(named_skills(("repeat",)))[0], Asking(task="repeat", chat=True), data=None, limit=40)
    even = sum(is_even(question.text) for question in task.questions)
    assert 0 < even < 40
    first, quick = measure(
        Scripted(task),
        [task],
        [SamplingParams(), SamplingParams(unmasking="threshold")],
        room=ROOM,
        batch_size=7,
    )
    assert (first.right.correct, first.forwards, first.tokens_per_forward) == (40, 8.0, 1.0)
    assert (quick.right.correct, quick.forwards, quick.tokens_per_forward) == (40 - even, 2.0, 4.0)
    assert quick.difference.value == pytest.approx(-even / 40)
    assert first.p_value == 1.0
    assert quick.p_value == pytest.approx(2 * 0.5**even)
    assert first.loses_nothing
    assert not quick.loses_nothing


def test_a_setting_loses_nothing_if_it_is_as_good_as_far_as_one_can_tell():
    assert point(speed=1, correct=90).loses_nothing
    assert point(speed=1, correct=95, difference=0.05, p_value=0.01).loses_nothing
    assert point(speed=1, correct=90, difference=-0.01, p_value=0.5).loses_nothing
    assert not point(speed=1, correct=90, difference=-0.02, p_value=0.5).loses_nothing
    assert not point(speed=1, correct=90, difference=-0.005, p_value=0.01).loses_nothing


def test_what_one_task_loses_is_not_hidden_by_others():
    """Half of one task's answers are lost and gained in another: together nothing has changed."""
    good, bad = (
        prepare(skill_tasks(named_skills((name,)))[0], Asking(task=name, chat=True), data=None, limit=24)
        for name in ("repeat", "reverse")
    )
    model = Exchanges(good, bad)
    first, other = measure(
        model, [good, bad], [SamplingParams(), SamplingParams(unmasking="threshold")], room=ROOM, batch_size=8
    )
    assert first.right.correct == other.right.correct == 24
    assert (other.difference.value, other.p_value) == (0.0, 1.0)
    assert other.losing == ("repeat",)
    assert not other.loses_nothing
    assert other.data()["losing"] == ["repeat"]


def test_the_best_is_the_cheapest_of_those_that_lose_nothing():
    dear, cheap = point(speed=1, correct=90, positions=90.0), point(speed=3, correct=90, positions=50.0)
    wrong = point(speed=9, correct=40, positions=5.0, difference=-0.5, p_value=0.0)
    assert best([dear, cheap, wrong]) is cheap
    slower = point(speed=2, correct=90, positions=50.0)
    assert best([slower, cheap]) is cheap


def test_the_frontier_has_what_no_other_beats():
    points = [
        point(speed=1, correct=90),
        point(speed=2, correct=80),
        point(speed=3, correct=85),
        point(speed=4, correct=10),
    ]
    assert frontier(points) == [points[0], points[2], points[3]]


def test_the_area_is_exact_match_times_tokens_per_forward_in_steps():
    one = [point(speed=1, correct=90)]
    assert area(one) == pytest.approx(0.9)
    assert area([*one, point(speed=3, correct=90)]) == pytest.approx(2.7)
    # 0.9 up to 1, then 0.5 up to 4; what is slower and worse adds nothing
    assert area([*one, point(speed=4, correct=50), point(speed=2, correct=20)]) == pytest.approx(0.9 + 3 * 0.5)


def test_the_picture_has_a_dot_for_each_setting_and_is_well_formed():
    points = [point(speed=1, correct=90), point(speed=3, correct=40, difference=-0.5, p_value=0.0, caching="a<b")]
    root = ElementTree.fromstring(frontier_svg(points, title="x < y & z"))
    circles = [node for node in root.iter() if node.tag.endswith("circle") and list(node)]
    assert [node.get("fill") == "#fff" for node in circles] == [False, True]
    assert any("a<b" in (node.text or "") for node in root.iter() if node.tag.endswith("title"))
