"""Where a run is trained and examined: it is told to both, and no part of the plan."""

import json
import math

import pytest
import torch

from illada.compare.conduct import conduct
from illada.compare.plan import Exam, changed
from illada.compare.run import RESULT, Pool, finish
from illada.compare.stages import run_config
from illada.distributed.mesh import alone
from illada.train.run import Outcome

from .conftest import small_plan, small_study

GPU = torch.device("cuda")


class Reached(Exception):  # noqa: N818  # no error: the end of what a test looks at
    """Carries the device."""


def short_plan():
    return changed(small_plan(), {"lessons.pace.steps": 2, "exam": Exam(questions=1, likelihoods=1, samples=1)})


@pytest.fixture
def done(tmp_path) -> Pool:
    """A run that was trained and examined, its numbers taken away again."""
    pool = Pool(path=tmp_path)
    finish(short_plan(), pool)
    (pool.folder(short_plan()) / RESULT).unlink()
    return pool


def test_training_is_told_the_device_and_computes_in_fp32(done, monkeypatch):
    def look(config, folder, task, *, mesh, **options):
        raise Reached(config.device, config.loop.precision, mesh.device)

    monkeypatch.setattr("illada.compare.run.execute", look)
    with pytest.raises(Reached) as reached:
        finish(short_plan(), done, alone(GPU))
    assert reached.value.args == ("cuda", "fp32", GPU)


def test_the_examination_is_told_the_device(done, monkeypatch):
    def skip(config, folder, task, **options):
        return Outcome(folder=folder, checkpoint=folder, steps=2, stopped_by=None)

    def look(checkpoint, *, device):
        raise Reached(device)

    monkeypatch.setattr("illada.compare.run.execute", skip)
    monkeypatch.setattr("illada.compare.run.load", look)
    with pytest.raises(Reached) as reached:
        finish(short_plan(), done, alone(GPU))
    assert reached.value.args == ("cuda",)


def test_a_run_that_was_begun_elsewhere_goes_on_here(done):
    config = done.folder(short_plan()) / "lessons" / "config.json"
    values = json.loads(config.read_text())
    assert values["device"] == "cpu"
    config.write_text(json.dumps(values | {"device": "cuda"}))
    assert "diverged" not in finish(short_plan(), done)


def test_a_device_that_there_is_not_is_refused_before_anything_begins(tmp_path):
    with pytest.raises(ValueError, match="device 'abacus' cannot be used"):
        conduct(small_study(), Pool(path=tmp_path / "pool"), device="abacus")
    assert not (tmp_path / "pool").exists()


def test_only_the_device_differs():
    plan = small_plan()
    here, there = (run_config(plan, plan.lessons.pace, plan.lessons.noise, device=name) for name in ("cpu", "cuda"))
    assert here != there
    assert here.loop == there.loop


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_a_gpu_comes_to_what_the_cpu_comes_to(tmp_path):
    found = [
        finish(small_plan(), Pool(path=tmp_path / device), alone(torch.device(device)))["curves"]["lessons"]
        for device in ("cpu", "cuda")
    ]
    for one, other in zip(*found, strict=True):
        assert math.isclose(one["value"], other["value"], abs_tol=1e-3)
