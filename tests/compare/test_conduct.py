"""Whole studies, carried out: the same numbers however often they are killed, and a planted effect that is found."""

import json
import multiprocessing
import os
import random
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest

from illada.compare.conduct import conduct
from illada.compare.folder import ARMS, PLANS, REPORT, RESULTS, RUNS, write_study
from illada.compare.lessons import Facts, Lessons
from illada.compare.plan import Exam, Pace
from illada.compare.run import RESULT, Pool, finish
from illada.compare.study import Arm, Claim, Study, Sweep
from illada.compare.summary import summarize

from .conftest import small_plan, small_study

COMPARED = (RESULTS, REPORT, RUNS, ARMS)


def carry_out(folder: Path, jobs: int = 1, study: Study | None = None) -> None:
    study, pool = study or small_study(), Pool(path=folder / "pool")
    # bit for bit the same numbers are those of a CPU
    conducted = conduct(study, pool, jobs=jobs, device="cpu")
    write_study(folder / "out", summarize(conducted), conducted, pool, command="illada compare small")


def contents(folder: Path) -> dict[str, bytes]:
    files = [folder / "out" / name for name in COMPARED] + sorted((folder / "out" / PLANS).iterdir())
    return {file.name: file.read_bytes() for file in files}


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A study that was never interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    carry_out(folder)
    return folder


def test_the_folder_holds_all_that_its_docstring_promises(whole):
    results = json.loads((whole / "out" / RESULTS).read_text())
    assert [arm["name"] for arm in results["arms"]] == ["diffusion", "autoregressive", "autoregressive, FLOPs"]
    assert len(results["runs"]) == 6
    assert len(results["sweep"]) == 4
    assert results["claims"][0]["sentence"] in (whole / "out" / REPORT).read_text().replace("&#x27;", "'")
    lines = (whole / "out" / RUNS).read_text().splitlines()
    assert lines[0] == "arm,seed,at,measure,value"
    assert sum("exact/compare" in line for line in lines) == 6
    assert len(list((whole / "out" / PLANS).iterdir())) == 6


def test_every_arm_has_the_rate_of_its_lowest_loss(whole):
    results = json.loads((whole / "out" / RESULTS).read_text())
    rates = {arm["name"]: arm["rate"] for arm in results["arms"]}
    for name in ("diffusion", "autoregressive"):
        own = [row for row in results["sweep"] if row["arm"] == name]
        assert rates[name] == min(own, key=lambda row: row["held_out"])["rate"]
    assert rates["autoregressive, FLOPs"] == rates["autoregressive"]


def test_the_arms_spend_what_they_should(whole):
    one, twin, by_flops = json.loads((whole / "out" / RESULTS).read_text())["arms"]
    assert one["steps"] == twin["steps"]
    assert one["tokens"] == twin["tokens"]
    step = by_flops["flops"]["lessons"] / by_flops["steps"]["lessons"]
    assert abs(by_flops["flops"]["lessons"] - one["flops"]["lessons"]) <= step / 2
    assert twin["differs_from_first_in"] == sorted(
        {"model.attention", "objective", "sampler.block_length"} | ({"peak"} if twin["rate"] != one["rate"] else set())
    )


def test_the_page_fetches_nothing_and_has_a_figure_for_every_share(whole):
    page = (whole / "out" / REPORT).read_text()
    assert "<script" not in page
    assert "src=" not in page
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "")
    assert page.count("<svg") >= 3


def test_finished_runs_are_found_again(whole):
    before = {file: file.stat().st_mtime_ns for file in (whole / "pool").rglob(RESULT)}
    carry_out(whole)
    assert {file: file.stat().st_mtime_ns for file in (whole / "pool").rglob(RESULT)} == before


def two_arms() -> Study:
    """A study of four runs."""
    study = small_study(sweep=Sweep(rates=(2e-3,)))
    return replace(study, arms=study.arms[:2])


@pytest.fixture(scope="module")
def whole_of_two(tmp_path_factory) -> Path:
    """That study, never interrupted."""
    folder = tmp_path_factory.mktemp("two")
    carry_out(folder, study=two_arms())
    return folder


def test_several_processes_find_the_same(whole_of_two, tmp_path):
    carry_out(tmp_path, jobs=2, study=two_arms())
    assert contents(tmp_path) == contents(whole_of_two)


def killed_at_random(folder: Path, seconds: float) -> bool:
    """Carry the study out in a process of its own and kill it after a while; True if it had finished before."""
    arguments = {"folder": folder, "study": two_arms()}
    process = multiprocessing.get_context("fork").Process(target=carry_out, kwargs=arguments)
    process.start()
    process.join(seconds)
    if process.is_alive():
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        return False
    return process.exitcode == 0


def test_a_study_that_is_killed_again_and_again_ends_with_the_same_report(whole_of_two, tmp_path):
    draw, finished = random.Random(time.time_ns()), False
    for number in range(40):
        finished = killed_at_random(tmp_path, draw.uniform(0.3, 1.5) * (1 + number / 2))
        if finished:
            break
    assert finished
    assert contents(tmp_path) == contents(whole_of_two)


def test_a_run_that_diverged_is_told_of(tmp_path, monkeypatch):
    def diverge(*arguments, **options):
        raise FloatingPointError("the loss is nan at step 3")

    monkeypatch.setattr("illada.compare.run._run", diverge)
    assert "nan at step 3" in finish(small_plan(), Pool(path=tmp_path))["diverged"]
    with pytest.raises(ValueError, match=r"diffusion, seed 0, diverged .*sweep lower"):
        conduct(replace(small_study(), sweep=Sweep(rates=(1e-3,))), Pool(path=tmp_path))


@pytest.mark.parametrize("options", [{"jobs": 0}, {"threads": 0}])
def test_jobs_and_threads_must_be_some(options, tmp_path):
    with pytest.raises(ValueError, match="must be at least 1"):
        conduct(small_study(), Pool(path=tmp_path), **options)


def test_a_planted_effect_is_found_by_training(tmp_path):
    """Facts to learn by heart, and the same with wrong answers to most of them."""
    plan = small_plan()
    lessons = Lessons(facts=Facts(forward=8))
    stage = replace(plan.lessons, lessons=lessons, pace=Pace(steps=120, batch_size=8, curve=1, decay=0.5))
    examples = replace(stage.examples, block_length=6)
    plan = replace(
        plan,
        objective="next_token",
        model=replace(plan.model, attention="causal"),
        lessons=replace(stage, examples=examples),
        sampler=replace(plan.sampler, block_length=32, length=6),
        exam=Exam(questions=8),
    )
    study = Study(
        name="planted",
        question="Is it noticed?",
        plan=plan,
        arms=(Arm(name="right"), Arm(name="wrong", changes=(("lessons.lessons.wrong", 1.0),))),
        claims=(Claim(measure="exact/as told", better="right", worse="wrong", says="right answers teach more"),),
        sweep=Sweep(rates=(1e-2,)),
    )
    claim = summarize(conduct(study, Pool(path=tmp_path), device="cpu"))["claims"][0]
    assert claim["outcome"] == "shown", claim["sentence"]
