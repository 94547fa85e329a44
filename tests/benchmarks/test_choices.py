"""The benchmark of choices: how answers become shares, costs and paired differences."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from illada.evaluate.bootstrap import mcnemar
from illada.evaluate.summary import AnswerLine
from illada.pipeline import load

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "choices.py"


@pytest.fixture(scope="module")
def choices(benchmark_module):
    return benchmark_module("choices")


def line(number, correct, *, task="sort_choice", forwards=12):
    values = dict.fromkeys(("group", "prompt", "output", "extracted", "reference", "note"), "")
    values |= {"task": task, "id": str(number), "correct": correct, "forwards": forwards}
    return AnswerLine(**values, positions=1, tokens=1, scores=(0.0, -1.0), seconds=0.1)


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    folder = tmp_path_factory.mktemp("choices")
    flags = ["--skills", "compare", "sort", "--questions", "4", "--exact-tokens", "4"]
    command = [sys.executable, "-W", "error", str(SCRIPT), *flags, "--folders", str(folder / "answers")]
    done = subprocess.run([*command, "--out", str(folder / "r.json")], capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    written = json.loads((folder / "r.json").read_text())
    assert json.loads(done.stdout.splitlines()[-1]) == written
    assert sorted(path.name for path in (folder / "answers").iterdir()) == sorted(written["records"]["short"])
    return written


def test_every_rule_answers_the_same_questions(result):
    everything, short = result["records"]["all"], result["records"]["short"]
    assert list(short) == [*everything, "exact"]
    assert {record["count"] for record in everything.values()} == {8}
    assert len({record["count"] for record in short.values()}) == 1
    assert 0 < short["exact"]["count"] < 8
    assert set(everything["chain"]["skills"]) == {"compare", "sort"}


def test_forwards_are_those_of_the_rules(result):
    everything, short = result["records"]["all"], result["records"]["short"]
    assert everything["likelihood 1"]["forwards"] == 4
    assert everything["confidence"]["forwards"] == everything["chain"]["forwards"] > 4
    assert short["exact"]["forwards"] > short["chain"]["forwards"]
    assert everything["likelihood 8"]["forwards"] <= everything["likelihood 128"]["forwards"]


def test_differences_are_paired_and_corrected(choices):
    first = [line(number, number < 30) for number in range(40)]
    same = [line(number, number < 30, forwards=4) for number in range(40)]
    worse = [line(number, 10 <= number < 32) for number in range(40)]
    found = choices.compared({"confidence": first, "same": same, "worse": worse})
    assert "confidence_minus_this" not in found["confidence"]
    assert (found["confidence"]["share"], found["same"]["forwards"]) == (0.75, 4)
    assert found["same"]["confidence_minus_this"]["p_value"] == 1
    pair = found["worse"]["confidence_minus_this"]
    assert (pair["only_confidence"], pair["only_this"]) == (10, 2)
    assert pair["value"] == pytest.approx(8 / 40)
    assert pair["interval"]["low"] < pair["value"] < pair["interval"]["high"]
    assert pair["p_value"] == pytest.approx(mcnemar(10, 2))
    assert pair["corrected"] == pytest.approx(2 * pair["p_value"])


def test_shares_are_told_by_skill(choices):
    lines = [line(1, True), line(2, False), line(1, True, task="add_choice")]
    found = choices.compared({"confidence": lines})["confidence"]
    assert (found["skills"]["sort"]["share"], found["skills"]["add"]["share"]) == (0.5, 1.0)


def test_short_is_what_no_candidate_exceeds(choices):
    model = load("tiny-instruct", device="cpu")
    tasks = choices.prepared(choices.Settings(skills=("compare", "add"), questions=5))
    short = choices.only_short(tasks[0], model, 3)
    assert 0 < len(short.questions) < 5
    for question in short.questions:
        assert max(len(model.tokenizer.encode(text)) for text in question.candidates) <= 3
    assert choices.only_short(tasks[1], model, 3).questions == ()
