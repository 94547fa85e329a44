"""The benchmark of scoring: two contenders that agree, and a check that would notice if they did not."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from illada.evaluate.scoring import ScoringParams
from illada.pipeline import load

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "scoring.py"


@pytest.fixture(scope="module")
def scoring(benchmark_module):
    return benchmark_module("scoring")


@pytest.fixture(scope="module")
def model():
    return load("tiny-instruct", device="cpu")


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    """What the command writes, and the last line that it prints."""
    out = tmp_path_factory.mktemp("results") / "new" / "result.json"
    flags = ["--skills", "compare", "sort", "--skill-questions", "3", "--rounds", "2", "--threads", "1"]
    command = [sys.executable, "-W", "error", str(SCRIPT), *flags, "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=250)
    written = json.loads(out.read_text())
    assert json.loads(done.stdout.splitlines()[-1]) == written
    assert "times as fast" in done.stdout
    return written


def test_a_result_says_what_was_measured(result):
    assert (result["subject"], result["threads"]) == ("scoring", 1)
    assert result["settings"]["out"] == "result.json", "no place on this machine"
    [record] = result["records"]
    assert (record["kind"], record["questions"], record["candidates"]) == ("skills", 6, 24)
    assert 0 <= record["largest_difference"] <= 3e-4
    ratio = record["times_as_fast"]
    assert 0 < ratio["q1"] <= ratio["median"] <= ratio["q3"]


def test_the_loop_takes_a_forward_of_one_row_for_every_token(result):
    [record] = result["records"]
    loop, shared = record["loop"], record["shared"]
    assert loop["rows"] == loop["forwards"] == round(record["answer_tokens"] * record["candidates"])
    assert loop["positions"] == pytest.approx(record["row_tokens"] * loop["rows"])
    assert shared["forwards"] < shared["rows"] < loop["rows"]


def test_the_loop_is_the_rule_and_the_library_agrees(scoring, model):
    loop = scoring.OneAtATime(transformer=model.transformer, tokenizer=model.tokenizer)
    question = ("Sort: 3 1 2", ["1 2 3", "3 2 1"])
    [plain] = loop.score_chat([[{"role": "user", "content": question[0]}]], [question[1]], ScoringParams())
    [shared] = model.score_chat([[{"role": "user", "content": question[0]}]], [question[1]], ScoringParams())
    for one, other in zip(plain, shared, strict=True):
        assert one.log_probability == pytest.approx(other.log_probability, abs=3e-4)
        assert (one.order, one.forwards, one.positions) == (other.order, other.forwards, other.positions)
    assert plain[0].log_probability > plain[1].log_probability


def test_another_score_or_choice_is_noticed(scoring, model):
    tasks = scoring.kinds(scoring.Settings(skills=("compare",), skill_questions=2))["skills"]
    lines = scoring.ask(model, tasks)
    assert scoring.largest_difference(lines, lines) == 0
    scores = (lines[0].scores[0] + 1e-3, *lines[0].scores[1:])
    with pytest.raises(AssertionError, match="the scores are"):
        scoring.largest_difference(lines, [replace(lines[0], scores=scores), *lines[1:]])
    with pytest.raises(AssertionError, match="another candidate"):
        scoring.largest_difference(lines, [replace(lines[0], output="else"), *lines[1:]])


def test_questions_are_spread_over_a_benchmark(scoring):
    kept = scoring.evenly(tuple(range(1000)), 64)
    assert len(kept) == 64
    assert (kept[0], kept[1]) == (0, 15)
    assert kept[-1] > 900
    assert scoring.evenly((1, 2, 3), 64) == (1, 2, 3)
