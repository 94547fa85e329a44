"""Questions on tales: those on training stories are learnt, those on others asked."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from illada.cli.main import main
from illada.compare.exam import Examiner
from illada.compare.lessons import Lessons, exercises
from illada.compare.run import Pool, finish
from illada.compare.stages import Opening, Places, lesson_task
from illada.compare.tales import tale_questions
from illada.pipeline import load
from illada.sample.request import Completion

from .conftest import small_plan

COLOURS = ("red", "green", "blue")


@pytest.fixture(scope="module")
def tales(tmp_path_factory) -> Path:
    """Benchmarks with 3 training tales and 2 others, one of them too long for a small context."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "fairytaleqa").mkdir()
    for part, names in (("train", ("fox", "hen", "owl")), ("val", ("cat", "whale"))):
        stories, questions = [], []
        for number, name in enumerate(names):
            passage = f"The {name} was {COLOURS[number]}." + " It swam on." * (200 if name == "whale" else 0)
            stories.append({"story": name, "sections": [f"Here comes the {name}.", passage]})
            answers = {"answer1": COLOURS[number], "answer4": f"It was {COLOURS[number]}."}
            questions.append({"story": name, "cor_section": "2", "question": f"Which colour was the {name}?"} | answers)
        for kind, rows in (("stories", stories), ("qa", questions)):
            (folder / "fairytaleqa" / f"{kind}_{part}.jsonl").write_text(
                "".join(json.dumps(row) + "\n" for row in rows)
            )
    return folder


def test_the_answers_of_both_annotators_are_learnt_of_training_stories_alone(tales):
    learnt = exercises(Lessons(tales=str(tales)))
    asked = "The hen was green.\n\nWhich colour was the hen?"
    assert len(learnt) == 6
    assert [answer for prompt, answer in learnt if prompt == asked] == ["green", "It was green."]
    assert not any("cat" in prompt for prompt, _ in learnt)
    assert [question.ask.split()[1] for question in tale_questions(str(tales), "val")] == ["cat", "whale"]


def told(tales) -> Examiner:
    """A plan whose answers the test says itself."""
    plan = small_plan()
    plan = replace(plan, lessons=replace(plan.lessons, lessons=Lessons(tales=str(tales))))
    return Examiner(model=load("tiny-instruct"), plan=plan, stage=plan.lessons)


@pytest.mark.parametrize(("said", "share"), [("Red!", 1.0), ("it was red", 1.0), ("green", 0.0), ("", 0.0)])
def test_tales_that_fit_are_asked_and_judged_as_the_benchmark_does(tales, monkeypatch, said, share):
    examiner = told(tales)
    prompts = []

    def answer(self, asked):
        prompts.extend(asked)
        counts = {"prompt_tokens": 9, "forwards": 3, "positions": 12, "seconds": 0.0, "revealed_at": ()}
        return [Completion(text=said, tokens=(), finish_reason="stop", **counts)] * len(asked)

    monkeypatch.setattr(Examiner, "_answers", answer)
    found = examiner.measures()
    assert found["exact/fairytaleqa"] == share
    assert (found["forwards/answer"], found["positions/answer"]) == (3, 12)
    assert prompts == ["The cat was red.\n\nWhich colour was the cat?"]  # the whale's passage does not fit


def test_a_run_learns_tales_and_is_asked_them(tales, tmp_path):
    plan = small_plan()
    stage = replace(plan.lessons, lessons=Lessons(tales=str(tales)), vocab_size=300)
    result = finish(replace(plan, lessons=stage), Pool(path=tmp_path))
    assert set(result["looks"][-1]["measures"]) >= {"exact/fairytaleqa", "forwards/answer", "mflops/answer"}


def test_tales_none_of_which_fits_are_refused_before_anything_is_trained(tales, tmp_path):
    plan = small_plan()
    rows = replace(plan.lessons.examples, length=32)
    stage = replace(plan.lessons, lessons=Lessons(skills=("compare",), problems=9, tales=str(tales)), examples=rows)
    opening = Opening(tokenizer=load("tiny-instruct").tokenizer)
    long = tuple(replace(question, ask=question.ask * 40) for question in tale_questions(str(tales), "val"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("illada.compare.stages.tale_questions", lambda folder, part: long)
        patch.setattr("illada.compare.stages.items", lambda *_, **__: [])
        with pytest.raises(ValueError, match="no held-out exercise fits into rows of 32 tokens"):
            lesson_task(plan, stage, opening, None, Places(cache=tmp_path))


def test_the_command_reads_tales_and_no_other_study_does(tales, tmp_path, capsys):
    options = ["--share", "0.002", "--seeds", "2", "--pool", str(tmp_path / "pool")]
    assert main(["compare", "reading", "--data", str(tales), *options]) == 0
    assert "FairytaleQA" in capsys.readouterr().out
    assert main(["compare", "planning", "--data", str(tales), *options]) == 2
    assert "the study planning reads no data" in capsys.readouterr().err


def test_tales_that_are_not_there_are_named(tmp_path, capsys):
    assert main(["compare", "reading", "--data", str(tmp_path), "--pool", str(tmp_path / "pool")]) == 2
    assert "fairytaleqa/stories_train.jsonl" in capsys.readouterr().err
