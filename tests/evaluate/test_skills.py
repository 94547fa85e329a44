"""Scores of answerers whose scores are known: one that knows all, one that knows nothing, one in between."""

import json
import re

import pytest

from illada.data.skills.registry import SKILLS, items
from illada.evaluate import skills as module
from illada.evaluate.intervals import wilson_interval
from illada.evaluate.skills import Score, SkillReport, evaluate_skills
from illada.sample.request import Completion

SOME = ("repeat", "compare", "sudoku")
COUNT = 25


def answers_to(*names, count=COUNT, **options):
    return {
        item.problem.prompt: item.problem.response for name in names for item in items(name, "test", count, **options)
    }


def completion(text: str, *, tokens: int, forwards: int, positions: int) -> Completion:
    return Completion(
        text=text,
        tokens=tuple(range(tokens)),
        finish_reason="stop",
        prompt_tokens=9,
        forwards=forwards,
        positions=positions,
        seconds=100.0,  # of its batch: no answer took that long
        revealed_at=(1,) * tokens,
    )


class Knows:
    """Answers from a table; remembers what it was asked."""

    def __init__(self, table: dict[str, str]) -> None:
        self.table = table
        self.batches: list[list[str]] = []

    def __call__(self, prompts: list[str]) -> list[str]:
        self.batches.append(prompts)
        return [self.table.get(prompt, "?") for prompt in prompts]


def larger_only(prompts: list[str]) -> list[str]:
    """Knows how to compare, badly: it says the first number."""
    return [re.findall(r"\d+", prompt)[0] for prompt in prompts]


# --- what is asked ------------------------------------------------------------------------------------------------


def test_the_first_problems_of_the_test_are_asked_skill_by_skill_in_batches():
    answerer, seen = Knows({}), []
    evaluate_skills(answerer, SOME, count=COUNT, batch_size=10, on_progress=seen.append)
    assert [len(batch) for batch in answerer.batches] == [10, 10, 5] * 3
    asked = [prompt for batch in answerer.batches for prompt in batch]
    assert asked == [item.problem.prompt for name in SOME for item in items(name, "test", COUNT)]
    assert seen == [10, 20, 25, 35, 45, 50, 60, 70, 75]


@pytest.mark.parametrize("options", [{"seed": 4}, {"levels": (2,)}, {"split": "train"}])
def test_seed_levels_and_side_are_those_that_are_asked_for(options):
    answerer = Knows({})
    evaluate_skills(answerer, ("sort",), count=9, **options)
    expected = items("sort", options.get("split", "test"), 9, **{k: v for k, v in options.items() if k != "split"})
    assert answerer.batches == [[item.problem.prompt for item in expected]]


def test_all_skills_are_asked_if_none_is_named():
    report = evaluate_skills(lambda prompts: [""] * len(prompts), count=2)
    assert list(report.skills) == list(SKILLS)
    assert report.overall.count == 2 * len(SKILLS)


# --- scores -------------------------------------------------------------------------------------------------------


def test_one_that_knows_all_has_every_answer_right():
    report = evaluate_skills(Knows(answers_to(*SOME)), SOME, count=COUNT)
    assert report.overall.correct == report.overall.count == 3 * COUNT
    assert [score.exact_match for score in report.skills.values()] == [1.0] * 3
    assert all(answer.correct for answer in report.answers)


def test_one_that_knows_nothing_has_none():
    report = evaluate_skills(Knows({}), SOME, count=COUNT)
    assert (report.overall.correct, report.overall.exact_match) == (0, 0.0)
    assert report.overall.interval.low == 0.0 < report.overall.interval.high


def test_one_that_knows_one_skill_is_told_from_the_others():
    report = evaluate_skills(Knows(answers_to("compare")), SOME, count=COUNT)
    assert {name: score.correct for name, score in report.skills.items()} == {"repeat": 0, "compare": 25, "sudoku": 0}
    assert report.overall.exact_match == pytest.approx(1 / 3)


def test_scores_by_level_add_up_and_are_those_of_a_count_by_hand():
    report = evaluate_skills(larger_only, ("compare",), count=90)
    tally = {}
    for item in items("compare", "test", 90):
        one, other = map(int, re.findall(r"\d+", item.problem.prompt))
        count, correct = tally.get(item.level, (0, 0))
        tally[item.level] = (count + 1, correct + (one > other))
    levels = report.levels["compare"]
    assert list(levels) == [1, 2, 3]
    assert {level: (score.count, score.correct) for level, score in levels.items()} == tally
    score = report.skills["compare"]
    assert (score.count, score.correct) == (90, sum(correct for _, correct in tally.values()))
    assert 0 < score.correct < 90
    assert score.exact_match == score.correct / 90
    assert score.interval == wilson_interval(score.correct, 90)


def test_levels_that_did_not_occur_have_no_score():
    report = evaluate_skills(larger_only, ("compare",), count=5, levels=(3,))
    assert list(report.levels["compare"]) == [3]


# --- costs --------------------------------------------------------------------------------------------------------


def test_what_answers_cost_is_averaged():
    def generate(prompts):
        return [
            completion("x", tokens=number, forwards=2 * number, positions=30 * number)
            for number in range(1, len(prompts) + 1)
        ]

    score = evaluate_skills(generate, ("sort",), count=4).overall
    assert (score.tokens, score.forwards, score.positions) == (2.5, 5.0, 75.0)


def test_plain_texts_cost_what_nobody_knows():
    report = evaluate_skills(Knows({}), ("sort",), count=3)
    assert (report.overall.tokens, report.overall.forwards, report.overall.positions) == (None, None, None)
    assert report.overall.seconds >= 0


def test_the_seconds_of_an_answer_are_its_share_of_its_batch(monkeypatch):
    now = [0.0]

    def generate(prompts):
        now[0] += 6.0
        return [completion("", tokens=0, forwards=1, positions=1) for _ in prompts]

    monkeypatch.setattr(module.time, "perf_counter", lambda: now[0])
    report = evaluate_skills(generate, ("sort",), count=4, batch_size=3)
    assert [answer.seconds for answer in report.answers] == [2.0, 2.0, 2.0, 6.0]
    assert report.overall.seconds == 3.0


# --- as data ------------------------------------------------------------------------------------------------------


def test_the_summary_is_json_and_holds_every_score():
    report = evaluate_skills(larger_only, ("compare", "sort"), count=30)
    data = json.loads(json.dumps(report.summary()))
    assert data["overall"]["count"] == 60
    assert set(data["skills"]) == {"compare", "sort"}
    compare = data["skills"]["compare"]
    assert compare["correct"] == report.skills["compare"].correct
    assert compare["interval"] == {
        "low": report.skills["compare"].interval.low,
        "high": report.skills["compare"].interval.high,
    }
    assert sum(level["correct"] for level in compare["levels"].values()) == compare["correct"]
    assert set(compare["levels"]) == {"1", "2", "3"}


def test_a_row_says_what_was_asked_and_replied():
    report = evaluate_skills(larger_only, ("compare",), count=1)
    item = next(items("compare", "test", 1))
    row = report.answers[0].row()
    assert row == {
        "skill": "compare",
        "level": item.level,
        "prompt": item.problem.prompt,
        "expected": item.problem.response,
        "reply": larger_only([item.problem.prompt])[0],
        "correct": larger_only([item.problem.prompt])[0] == item.problem.response,
        "forwards": None,
        "positions": None,
        "tokens": None,
    }


def test_a_report_can_be_put_together_from_answers_in_any_order():
    report = evaluate_skills(larger_only, ("compare", "sort"), count=12)
    again = SkillReport.of(report.answers[::-1])
    assert again.skills == report.skills
    assert again.levels == report.levels


# --- refused ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"count": 0}, "count must be at least 1, got 0"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"levels": (7,)}, "there is no level 7"),
        ({"skills": ("juggle",)}, "no skill is called 'juggle'"),
    ],
)
def test_what_cannot_be_asked_is_refused_before_anything_is(options, message):
    answerer = Knows({})
    with pytest.raises(ValueError, match=message):
        evaluate_skills(answerer, **({"skills": ("sort",), "count": 2} | options))
    assert answerer.batches == []


@pytest.mark.parametrize("replies", [[], ["a"], ["a"] * 3])
def test_every_prompt_needs_its_reply(replies):
    with pytest.raises(ValueError, match=f"2 prompts need as many replies, got {len(replies)}"):
        evaluate_skills(lambda prompts: replies, ("sort",), count=2)


def test_a_score_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least 1 answer"):
        Score.of([])
