"""`illada eval`: with a stand-in whose answers are known, with a model that knows nothing, stopped and gone on with."""

import gzip
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from io import StringIO
from types import SimpleNamespace

import pytest
from rich.console import Console

from illada import __version__
from illada.cli import eval as module
from illada.cli import scores
from illada.cli.loading import Loading
from illada.data.skills.registry import SKILLS
from illada.evaluate.summary import AnswerLine, summarize
from illada.sample.request import Completion

COMPARE = ("eval", "--skills", "compare", "--limit", "20")


class FirstNumber:
    """Replies with the first number of a prompt: right for about half of the comparisons, for nothing else."""

    def __init__(self):
        self.conversations, self.params = [], []
        self.transformer = SimpleNamespace(config=SimpleNamespace(max_length=512))
        self.tokenizer = SimpleNamespace(encode=lambda text: list(text.encode()), decode=bytes)

    def chat(self, conversations, params):
        self.conversations += conversations
        self.params.append(params)
        return [completion((re.findall(r"\d+", turns[0].content) or ["?"])[0]) for turns in conversations]

    def generate(self, prompts, params):
        raise AssertionError

    def score(self, prompts, candidates, params):
        raise AssertionError

    def score_chat(self, conversations, candidates, params):
        raise AssertionError


def completion(text):
    return Completion(
        text=text,
        tokens=(5, 6, 7),
        finish_reason="stop",
        prompt_tokens=4,
        forwards=9,
        positions=99,
        seconds=1.0,
        revealed_at=(1, 2, 3),
    )


@pytest.fixture
def fake(monkeypatch):
    model = FirstNumber()
    monkeypatch.setattr(Loading, "load", lambda self, where: model)
    monkeypatch.setattr(module, "_evaluated", unchecked(module._evaluated))
    return model


def unchecked(function):
    """Without the check that the model is a LanguageModel."""
    return getattr(function, "__wrapped__", function)


# --- what is asked, and printed -----------------------------------------------------------------------------------


def test_every_problem_is_the_only_turn_of_a_conversation(fake, illada):
    assert illada(*COMPARE).code == 0
    assert len(fake.conversations) == 20
    assert {(len(turns), turns[0].role) for turns in fake.conversations} == {(1, "user")}


def test_without_flags_every_skill_is_asked(fake, illada):
    answer = illada("eval", "--limit", "1")
    assert len(fake.conversations) == len(SKILLS)
    assert all(name in answer.out for name in SKILLS)


def test_flags_of_sampling_and_levels_are_passed_on(fake, illada):
    illada(*COMPARE, "--levels", "3", "--length", "17", "--temperature", "0.5")
    assert (fake.params[0].length, fake.params[0].temperature) == (17, 0.5)
    assert {len(re.findall(r"\d+", turns[0].content)) for turns in fake.conversations} == {2}


def test_the_table_has_a_line_for_each_task_and_the_average(fake, illada):
    answer = illada("eval", "--skills", "compare", "repeat", "--limit", "40")
    lines = answer.out.splitlines()
    assert lines[1].split()[:5] == ["task", "n", "exact", "95", "%"]
    assert "level 1" in lines[1]
    assert lines[2].startswith("compare")
    assert lines[3].split()[:6] == ["repeat", "40", "0.0", "0.0", "to", "8.8"]
    assert lines[4].startswith("average")
    assert "questions" in answer.err


def test_json_is_one_object_and_nothing_else(fake, illada):
    results = json.loads(illada(*COMPARE, "--json").out)
    assert results["settings"]["illada"] == __version__
    assert results["settings"]["run"]["command"] == "illada eval --skills compare --limit 20 --json"
    assert results["tasks"]["compare"]["count"] == 20
    assert 0 < results["tasks"]["compare"]["correct"] < 20
    assert results["average"] == results["tasks"]["compare"]["share"]


def test_numbers_in_the_table_are_those_of_the_lines(line):
    lines = [line(n, group=f"level {1 + n % 2}", correct=n % 2 == 0) for n in range(8)]
    shown = StringIO()
    scores.show(Console(file=shown, width=150), summarize(lines, {"gsm8k": 81.9}), left_out={"mmlu": "no such file"})
    text = shown.getvalue()
    assert re.search(r"gsm8k\s+8\s+50.0\s+[\d.]+ to [\d.]+\s+81.9\s+100.0\s+0.0\s+3.5", text)
    assert "left out: mmlu (no such file)" in text


@pytest.fixture
def line():
    def make(number, **changes):
        values = dict.fromkeys(("group", "prompt", "output", "reference", "note"), "")
        values |= {"task": "gsm8k", "id": str(number), "extracted": "4", "correct": True, "scores": ()}
        return AnswerLine(**{**values, "forwards": number, "positions": 1, "tokens": 1, "seconds": 0.1, **changes})

    return make


# --- folders ------------------------------------------------------------------------------------------------------


def test_a_folder_is_written_and_gone_on_with(fake, illada, tmp_path):
    out = tmp_path / "out"
    first = illada(*COMPARE, "--out", out)
    assert sorted(path.name for path in out.iterdir()) == [
        "answers.jsonl",
        "report.html",
        "results.json",
        "settings.json",
    ]
    asked = len(fake.conversations)
    second = illada(*COMPARE, "--out", out)
    assert len(fake.conversations) == asked
    assert second.out == first.out


def test_another_evaluation_in_the_folder_is_kept_unless_told_otherwise(fake, illada, refusal, tmp_path):
    out = tmp_path / "out"
    illada(*COMPARE, "--out", out)
    (out / "notes.txt").write_text("mine")
    assert "another levels" in refusal(*COMPARE, "--levels", "1", "--out", out)
    assert illada(*COMPARE, "--levels", "1", "--out", out, "--overwrite").code == 0
    rows = [json.loads(row) for row in (out / "answers.jsonl").read_text().splitlines()]
    assert {row["group"] for row in rows} == {"level 1"}
    assert (out / "notes.txt").read_text() == "mine"


def test_a_folder_is_not_begun_anew_before_the_model_is_there(fake, illada, monkeypatch, refusal, tmp_path):
    out = tmp_path / "out"
    illada(*COMPARE, "--out", out)
    before = (out / "answers.jsonl").read_bytes()

    def damaged(self, where):
        raise ValueError("the checkpoint is damaged")

    monkeypatch.setattr(Loading, "load", damaged)
    assert refusal(*COMPARE, "--out", out, "--overwrite") == "the checkpoint is damaged"
    assert (out / "answers.jsonl").read_bytes() == before


def test_a_file_is_no_folder(fake, refusal, tmp_path):
    (tmp_path / "out").write_text("mine")
    assert "is a file, but the answers need a folder" in refusal(*COMPARE, "--out", tmp_path / "out")
    assert (tmp_path / "out").read_text() == "mine"


def test_a_comparison_as_json(fake, illada, tmp_path):
    illada(*COMPARE, "--out", tmp_path / "a")
    compared = json.loads(illada("eval", "--compare", tmp_path / "a", tmp_path / "a", "--json").out)
    assert compared["compare"]["difference"]["value"] == 0
    assert compared["compare"]["first"] == compared["compare"]["second"]
    assert (compared["compare"]["only_first"], compared["compare"]["p_value"]) == (0, 1)


def test_two_folders_are_compared(fake, illada, refusal, tmp_path):
    illada(*COMPARE, "--out", tmp_path / "a")
    illada(*COMPARE, "--out", tmp_path / "b", "--length", "9")
    illada("eval", "--skills", "compare", "--limit", "10", "--out", tmp_path / "c")
    answer = illada("eval", "--compare", tmp_path / "a", tmp_path / "b")
    assert re.search(r"compare\s+20\s+([\d.]+)\s+\1\s+\+0.0\s+\+0.0 to \+0.0\s+0\s+0\s+1\s+1", answer.out)
    assert "--common" in refusal("eval", "--compare", tmp_path / "a", tmp_path / "c")
    assert illada("eval", "--compare", tmp_path / "a", tmp_path / "c", "--common").code == 0


KILLED_SKILLS = ("repeat", "sort", "compare", "count", "next", "lookup")


@pytest.fixture
def begin(saved_model):
    """Starts an evaluation of 6 times 130 problems in a process of its own, into a folder."""

    def start(out):
        flags = ["--model", str(saved_model), "--limit", "130", "--length", "8", "--skills", *KILLED_SKILLS]
        command = [sys.executable, "-m", "illada", "eval", *flags, "--out", str(out)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment, text=True)

    return start


def table_of(process):
    """What a process prints that goes on to its end."""
    shown, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    return shown


def kill_behind(process, answers, lines, pause):
    """Kill -9 once there are more lines than that, and a moment later; returns how many there are then."""
    deadline = time.monotonic() + 120
    while count_lines(answers) <= lines and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    time.sleep(pause)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    return count_lines(answers)


def count_lines(answers):
    return answers.read_bytes().count(b"\n") if answers.exists() else 0


def rows_of(folder):
    """The whole lines; a last one may have been cut off."""
    lines = (folder / "answers.jsonl").read_bytes().split(b"\n")[:-1]
    return [{**json.loads(line), "seconds": 0} for line in lines]


def scores_of(folder):
    tasks = json.loads((folder / "results.json").read_text())["tasks"]
    return {name: {**scores, "seconds": 0} for name, scores in tasks.items()}


def test_killed_again_and_again_it_ends_as_if_it_had_not_been(begin, tmp_path):
    """Kill -9 at random moments, while it loads and while it answers; then the same command to its end."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    table = table_of(begin(whole))
    moments = random.Random(0)
    there = [0]
    for _ in range(3):
        there.append(kill_behind(begin(parts), parts / "answers.jsonl", there[-1], moments.uniform(0, 0.05)))
        assert not (parts / "results.json").exists()
    assert 0 < there[1] < there[2] < there[3] < 6 * 130
    before = rows_of(parts)[: there[1]]
    assert table_of(begin(parts)) == table
    assert rows_of(parts)[: there[1]] == before == rows_of(whole)[: there[1]]
    assert rows_of(parts) == rows_of(whole)
    assert scores_of(parts) == scores_of(whole)
    assert len({(row["task"], row["id"]) for row in rows_of(parts)}) == len(rows_of(parts)) == 6 * 130


def test_skills_are_choices_too(illada, tmp_path):
    """With the model of the package, which copies: it knows which repetition is the right one."""
    flags = ("--tasks", "skills_choice", "--skills", "repeat", "--levels", "1", "--limit", "16", "--out", tmp_path)
    answer = illada("eval", *flags, "--scoring.method", "chain")
    assert re.search(r"repeat_choice\s+16\s", answer.out)
    rows = [json.loads(row) for row in (tmp_path / "answers.jsonl").read_text().splitlines()]
    assert [row["task"] for row in rows] == ["repeat_choice"] * 16
    assert all(len(row["scores"]) == 4 and row["output"] == row["extracted"] for row in rows)
    assert sum(row["correct"] for row in rows) >= 12
    [asking] = json.loads((tmp_path / "settings.json").read_text())["tasks"]
    assert (asking["task"], asking["chat"], asking["scoring"]["method"]) == ("repeat_choice", True, "chain")


# --- benchmarks ---------------------------------------------------------------------------------------------------


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    (folder / "gsm8k").mkdir(parents=True)
    rows = [{"question": f"{n} and 1?", "answer": f"#### {n + 1}"} for n in range(5)]
    (folder / "gsm8k" / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "piqa").mkdir()
    rows = [{"goal": "go", "sol1": "walk", "sol2": "fox", "label": 0}] * 4
    (folder / "piqa" / "validation.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_a_suite_asks_what_is_there_and_says_what_is_not(saved_model, illada, data, tmp_path):
    flags = ("--suite", "illada_base", "--data", data, "--limit", "3", "--model", saved_model, "--out", tmp_path / "o")
    answer = illada("eval", *flags)
    assert answer.code == 0
    assert "81.9" in answer.out
    assert re.search(r"piqa\s+3", answer.out)
    assert "left out: mmlu (no such file" in answer.out
    assert "left out: humaneval (it runs programs that the model writes: --allow-code)" in answer.out
    rows = [json.loads(row) for row in (tmp_path / "o" / "answers.jsonl").read_text().splitlines()]
    assert [row["task"] for row in rows] == ["piqa"] * 3 + ["gsm8k"] * 3
    assert all(len(row["scores"]) == 2 for row in rows[:3])
    assert "0 of 8 examples fit the context" in rows[3]["note"]


def test_single_tasks_take_flags_for_scoring_and_examples(saved_model, illada, data):
    flags = ("--data", data, "--model", saved_model, "--json")
    results = json.loads(illada("eval", "--tasks", "piqa,gsm8k", "--scoring.method", "chain", "--shots", 0, *flags).out)
    assert [asking["scoring"]["method"] for asking in results["settings"]["tasks"]] == ["chain", "chain"]
    assert [asking["shots"] for asking in results["settings"]["tasks"]] == [0, 0]
    assert list(results["tasks"]) == ["piqa", "gsm8k"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--tasks", "arithmetic"), "no task is called 'arithmetic'; there are: skills, skills_choice, mmlu"),
        (("--suite", "gpt"), "no suite is called 'gpt'; there are: illada_base"),
        (("--suite", "illada_base", "--tasks", "gsm8k"), "name tasks or a suite, not both"),
        (("--skills", "juggle"), "no skill is called 'juggle'"),
        (("--limit", "0"), "limit must be at least 1, got 0"),
        (("--levels", "4"), "there is no level 4"),
        (("--tasks", "gsm8k", "--data", "nowhere"), "no such file: nowhere"),
        (("--suite", "illada_base", "--data", "nowhere"), "nothing of illada_base can be asked"),
    ],
)
def test_what_cannot_be_asked_is_refused(flags, message, fake, refusal):
    assert refusal("eval", *flags).startswith(message)
    assert fake.conversations == []


def test_a_row_that_is_none_is_named(saved_model, data, refusal):
    file = data / "gsm8k" / "test.jsonl"
    rows = file.read_text().splitlines()

    def said(row):
        file.write_text("\n".join([*rows[:2], row, *rows[3:]]) + "\n")
        return refusal("eval", "--tasks", "gsm8k", "--shots", 0, "--data", data, "--model", saved_model)

    assert said('{"question": "1 and 1?"}') == "row 3 of gsm8k is not what it should be: it has no field 'answer'"
    assert said('{"question": "1 and').startswith(f"{file}, line 3 is not valid JSON")
    assert said("[1]") == f"{file}, line 3 is no object: '[1]'"


def test_programs_are_not_run_unasked(saved_model, refusal, tmp_path):
    (tmp_path / "humaneval").mkdir()
    row = {"task_id": "a", "prompt": "def f():\n", "entry_point": "f", "test": "def check(f):\n    pass\n"}
    (tmp_path / "humaneval" / "HumanEval.jsonl.gz").write_bytes(gzip.compress(json.dumps(row).encode()))
    said = refusal("eval", "--tasks", "humaneval", "--data", tmp_path, "--model", saved_model)
    assert "add --allow-code to run them" in said


def test_a_model_that_is_not_there_is_refused(refusal, tmp_path):
    assert "none" in refusal("eval", "--model", tmp_path / "none", "--limit", "1")


def test_a_causal_model_is_asked_like_any_other(saved_twin, illada):
    flags = ("--tasks", "skills", "--skills", "repeat", "compare", "--limit", "3", "--model", saved_twin, "--length", 8)
    results = json.loads(illada("eval", *flags, "--json").out)
    assert list(results["tasks"]) == ["repeat", "compare"]
    assert all(task["count"] == 3 for task in results["tasks"].values())
