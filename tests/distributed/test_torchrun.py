"""The whole way: torchrun starts the command, a process of it is killed, torchrun starts it again, it resumes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from illada.checkpoint.native import list_checkpoints, load_checkpoint

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif("ILLADA_SLOW" not in os.environ, reason="ILLADA_SLOW is not set: every start takes seconds"),
]


def torchrun(arguments, log, *flags):
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", *flags]
    program = ["--no-python", sys.executable, "-m", "illada", *map(str, arguments)]
    return subprocess.Popen(
        [*command, *program], stdout=log.open("w"), stderr=subprocess.STDOUT, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )


def workers(launcher):
    """The process numbers of what the launcher started."""
    children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
    return [int(child) for child in children]


def wait_for_step(folder, step, launcher):
    deadline = time.monotonic() + 250
    while not (folder / "checkpoints" / f"step_{step:08d}").exists():
        assert launcher.poll() is None, "torchrun ended before it could be disturbed"
        assert time.monotonic() < deadline
        time.sleep(0.01)


def whole(folder):
    saved = load_checkpoint(list_checkpoints(folder / "checkpoints")[-1][1], with_optimizer=True)
    return saved.weights | saved.optimizer


def assert_same(one, other):
    got, expected = whole(one), whole(other)
    assert got.keys() == expected.keys()
    assert all(torch.equal(got[name], tensor) for name, tensor in expected.items())


@pytest.fixture(scope="module")
def undisturbed(small_run, job, finish, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    assert finish(job([*small_run, "--out", folder / "run"], folder / "logs", size=2)) == [0, 0]
    return folder / "run"


@pytest.mark.parametrize("rendezvous", [[], ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"]])
def test_killed_it_is_started_again_and_ends_the_same(rendezvous, small_run, undisturbed, tmp_path):
    log = tmp_path / "log"
    launcher = torchrun([*small_run, "--out", tmp_path / "run"], log, "--max-restarts", "2", *rendezvous)
    wait_for_step(tmp_path / "run", 10, launcher)
    os.kill(workers(launcher)[-1], signal.SIGKILL)
    assert launcher.wait(280) == 0, log.read_text()
    assert_same(tmp_path / "run", undisturbed)


def test_asked_to_leave_it_saves_and_goes_on_when_started_again(small_run, undisturbed, tmp_path):
    log = tmp_path / "log"
    flags = ["--signals-to-handle", "SIGTERM,SIGUSR1", "--shutdown-timeout", "100"]
    launcher = torchrun([*small_run, "--out", tmp_path / "run"], log, *flags)
    wait_for_step(tmp_path / "run", 10, launcher)
    launcher.send_signal(signal.SIGUSR1)
    assert launcher.wait(280) != 0  # torchrun itself was told to end
    assert "add --resume to go on" in log.read_text()
    (step, _) = list_checkpoints(tmp_path / "run" / "checkpoints")[-1]
    assert 10 <= step < 30
    launcher = torchrun([*small_run, "--out", tmp_path / "run", "--resume"], log)
    assert launcher.wait(280) == 0, log.read_text()
    assert_same(tmp_path / "run", undisturbed)
