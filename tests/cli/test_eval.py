"""`illada eval --tasks skills`: with a stand-in whose answers are known, and with a model that knows nothing."""

import json
import re
from io import StringIO

import pytest
from rich.console import Console

from illada import __version__
from illada.assets import INSTRUCT
from illada.cli import eval as module
from illada.data.skills.registry import SKILLS, items
from illada.evaluate.skills import evaluate_skills
from illada.sample.request import Completion, SamplingParams


class FirstNumber:
    """Replies with the first number of a prompt: right for about half of the comparisons, for nothing else."""

    def __init__(self) -> None:
        self.conversations: list[list[dict[str, str]]] = []
        self.params: list[SamplingParams] = []

    def chat(self, conversations: list[list[dict[str, str]]], params: SamplingParams) -> list[Completion]:
        self.conversations += conversations
        self.params.append(params)
        return [completion(first_number(turns[0]["content"])) for turns in conversations]


def first_number(prompt: str) -> str:
    return (re.findall(r"\d+", prompt) or ["?"])[0]


def completion(text: str) -> Completion:
    return Completion(
        text=text,
        tokens=(5, 6, 7),
        finish_reason="stop",
        prompt_tokens=4,
        forwards=12,
        positions=480,
        seconds=0.5,
        revealed_at=(1, 1, 2),
    )


@pytest.fixture
def fake(monkeypatch):
    """A model in place of any that is loaded, and what was to be loaded."""
    model = FirstNumber()
    model.loaded = []

    def load(path, *, device="auto"):
        model.loaded.append((path, device))
        return model

    monkeypatch.setattr(module, "load", load)
    return model


def right(count: int) -> int:
    """How many of the first comparisons the stand-in has right."""
    return sum(first_number(item.problem.prompt) == item.problem.response for item in items("compare", "test", count))


COMPARE = ("eval", "--tasks", "skills", "--model", "some/model", "--skills", "compare", "--limit", 40)

# --- what is asked ------------------------------------------------------------------------------------------------


def test_every_prompt_is_the_only_turn_of_a_conversation(fake, illada):
    assert illada(*COMPARE).code == 0
    expected = [item.problem.prompt for item in items("compare", "test", 40)]
    assert fake.conversations == [[{"role": "user", "content": prompt}] for prompt in expected]
    assert fake.loaded == [("some/model", "auto")]


def test_without_flags_every_skill_is_asked_with_the_default_sampling(fake, illada):
    assert illada("eval", "--limit", 2).code == 0
    assert fake.loaded == [(INSTRUCT, "auto")]
    assert len(fake.conversations) == 2 * len(SKILLS)
    assert set(fake.params) == {SamplingParams(length=128)}


def test_sampling_flags_device_and_levels_are_passed_on(fake, illada):
    flags = ["--length", 64, "--steps", 16, "--temperature", 0.5, "--device", "cpu", "--levels", 2]
    assert illada(*COMPARE, *flags).code == 0
    assert set(fake.params) == {SamplingParams(length=64, steps=16, temperature=0.5)}
    assert fake.loaded == [("some/model", "cpu")]
    expected = [item.problem.prompt for item in items("compare", "test", 40, levels=(2,))]
    assert [turns[0]["content"] for turns in fake.conversations] == expected


# --- what is printed ----------------------------------------------------------------------------------------------


def test_the_table_has_a_line_for_each_skill_and_one_for_all(fake, illada):
    answer = illada("eval", "--skills", "compare", "sort", "--limit", 40)
    lines = [line.split() for line in answer.out.splitlines()]
    share = right(40)
    assert 10 < share < 30
    compare, sort, both = lines[-3:]
    assert compare[:3] == ["compare", "40", f"{100 * share / 40:.1f}"]
    assert sort[:6] == ["sort", "40", "0.0", "0.0", "to", "8.8"]
    assert both[:3] == ["all", "80", f"{100 * share / 80:.1f}"]
    assert {line[-1] for line in lines[-3:]} == {"12.0"}


def test_progress_goes_to_standard_error(fake, illada):
    answer = illada("eval", "--skills", "compare", "sort", "--limit", 100)
    assert [line.strip() for line in answer.err.splitlines()] == [
        "skills 64/200",
        "skills 100/200",
        "skills 164/200",
        "skills 200/200",
    ]


def test_the_table_fits_a_narrow_terminal():
    report = evaluate_skills(lambda prompts: [completion(prompt[-1]) for prompt in prompts], count=20)
    output = StringIO()
    Console(file=output, width=80).print(module.table(report))
    lines = output.getvalue().splitlines()
    assert len(lines) == 2 + len(SKILLS) + 1
    assert [line.split()[0] for line in lines[2:]] == [*SKILLS, "all"]
    assert "…" not in output.getvalue()


def test_where_costs_and_levels_are_unknown_the_table_is_blank():
    report = evaluate_skills(lambda prompts: [""] * len(prompts), ("sort",), count=3, levels=(2,))
    output = StringIO()
    Console(file=output, width=100).print(module.table(report))
    assert output.getvalue().splitlines()[-2].split() == ["sort", "3", "0.0", "0.0", "to", "56.1", "0.0"]


def test_json_is_one_object_and_nothing_else(fake, illada):
    answer = illada(*COMPARE, "--json", "--temperature", 0.5)
    results = json.loads(answer.out)
    assert results["skills"]["compare"]["correct"] == results["overall"]["correct"] == right(40)
    assert results["overall"]["forwards"] == 12.0
    assert results["overall"]["positions"] == 480.0
    assert (results["task"], results["model"], results["limit"]) == ("skills", "some/model", 40)
    assert (results["illada"], results["levels"]) == (__version__, [1, 2, 3])
    assert results["params"]["temperature"] == 0.5


# --- what is written ----------------------------------------------------------------------------------------------


def test_results_and_every_answer_are_written(fake, illada, tmp_path):
    out = tmp_path / "new" / "scores"
    printed = json.loads(illada(*COMPARE, "--out", out, "--json").out)
    assert sorted(path.name for path in out.iterdir()) == ["answers.jsonl", "results.json"]
    assert json.loads((out / "results.json").read_text()) == printed
    rows = [json.loads(line) for line in (out / "answers.jsonl").read_text().splitlines()]
    found = list(items("compare", "test", 40))
    assert [row["prompt"] for row in rows] == [item.problem.prompt for item in found]
    assert [row["reply"] for row in rows] == [first_number(item.problem.prompt) for item in found]
    assert sum(row["correct"] for row in rows) == right(40)
    assert all(row["correct"] == (row["reply"] == row["expected"]) for row in rows)


@pytest.mark.parametrize("name", ["results.json", "answers.jsonl"])
def test_results_that_are_there_are_kept_unless_told_otherwise(name, fake, illada, refusal, tmp_path):
    (tmp_path / name).write_text("precious")
    line = refusal(*COMPARE, "--out", tmp_path)
    assert line == f"{tmp_path / name} is there already: add --overwrite, or choose another folder"
    assert (tmp_path / name).read_text() == "precious"
    assert fake.loaded == []  # refused before any work
    assert illada(*COMPARE, "--out", tmp_path, "--overwrite").code == 0
    assert json.loads((tmp_path / "answers.jsonl").read_text().splitlines()[0])["skill"] == "compare"


def test_other_files_of_the_folder_are_left_alone(fake, illada, tmp_path):
    (tmp_path / "config.json").write_text("a run's")
    assert illada(*COMPARE, "--out", tmp_path).code == 0
    assert (tmp_path / "config.json").read_text() == "a run's"


# --- refused ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--tasks", "mmlu"], "no task is called 'mmlu'; there are: skills"),
        (["--tasks", "skills,mmlu"], "no task is called 'mmlu'; there are: skills"),
        (["--tasks"], "name at least 1 task; there are: skills"),
        (["--skills", "juggle"], "no skill is called 'juggle'; there are: repeat, reverse"),
        (["--skills"], "name at least 1 skill"),
        (["--limit", 0], "limit must be at least 1, got 0"),
        (["--levels", 9], "there is no level 9"),
        (["--steps", 500], "got 500 steps for 128 tokens"),
    ],
)
def test_what_cannot_be_measured_is_refused(flags, message, fake, refusal):
    assert message in refusal("eval", *flags)
    assert fake.conversations == []


# --- a real model -------------------------------------------------------------------------------------------------


def test_a_model_that_was_never_trained_knows_nothing(saved_model, illada, tmp_path):
    flags = ["--skills", "repeat", "--limit", 3, "--length", 4, "--out", tmp_path]
    answer = illada("eval", "--model", saved_model, *flags)
    assert answer.code == 0, answer.err
    assert json.loads((tmp_path / "results.json").read_text())["overall"]["correct"] == 0
    rows = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    assert [row["prompt"] for row in rows] == [item.problem.prompt for item in items("repeat", "test", 3)]
    assert all(row["forwards"] >= 1 for row in rows)


def test_a_model_that_is_not_there_is_refused(refusal, tmp_path):
    line = refusal("eval", "--model", tmp_path / "none")
    assert line.startswith(f"{tmp_path / 'none'} does not exist")
