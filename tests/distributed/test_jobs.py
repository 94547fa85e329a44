"""Runs of several processes through the command line: what they leave, and how they survive one another."""

import json
import os
import random
import signal
import time

import pytest
import safetensors.torch
import torch

from illada.checkpoint.native import list_checkpoints, load_checkpoint

LAST = 30


@pytest.fixture(scope="module")
def arguments(small_run):
    return [*small_run, "--mesh.shard", "2"]


@pytest.fixture(scope="module")
def undisturbed(arguments, job, finish, tmp_path_factory):
    """The run that nobody disturbs, all its checkpoints kept."""
    folder = tmp_path_factory.mktemp("undisturbed")
    codes = finish(job([*arguments, "--out", folder / "run", "--keep-last", "99"], folder / "logs", size=2))
    assert codes == [0, 0], (folder / "logs" / "0").read_text()
    return folder / "run"


@pytest.fixture
def start(job, arguments, tmp_path):
    """Start, or resume, the run of this test."""

    def begin(*flags, size=2, **options):
        chosen = [*arguments, "--out", tmp_path / "run", *flags]
        return job(chosen, tmp_path / "logs", size=size, **options)

    return begin


def steps_taken(folder):
    metrics = folder / "metrics.jsonl"
    lines = metrics.read_text().split("\n")[:-1] if metrics.exists() else []
    return json.loads(lines[-1])["step"] if lines else -1


def wait_for(condition, processes):
    deadline = time.monotonic() + 120
    while not condition():
        assert all(process.is_alive() for process in processes), "the run ended before it could be disturbed"
        assert time.monotonic() < deadline
        time.sleep(0.001)


def whole(checkpoint):
    saved = load_checkpoint(checkpoint, with_optimizer=True)
    return saved.weights | saved.optimizer


def assert_same(folder, undisturbed, readings):
    (step, ours), (_, theirs) = (list_checkpoints(root / "checkpoints")[-1] for root in (folder, undisturbed))
    assert step == LAST
    got, expected = whole(ours), whole(theirs)
    assert got.keys() == expected.keys()
    assert all(torch.equal(got[name], tensor) for name, tensor in expected.items())
    assert (ours / "state.json").read_bytes() == (theirs / "state.json").read_bytes()
    assert readings(folder) == readings(undisturbed)


# --- what they leave ----------------------------------------------------------------------------------------------


def test_they_come_to_what_one_process_comes_to(undisturbed, small_run, processes, finish, tmp_path):
    process = processes([*small_run, "--out", tmp_path / "alone"], tmp_path / "log")
    assert finish([process]) == [0]
    expected = whole(list_checkpoints(tmp_path / "alone" / "checkpoints")[-1][1])
    got = whole(list_checkpoints(undisturbed / "checkpoints")[-1][1])
    for name, tensor in expected.items():
        torch.testing.assert_close(got[name], tensor, rtol=0, atol=1e-5, msg=name)


def test_one_speaks_and_writes_for_all(undisturbed, readings):
    logs = [(undisturbed.parent / "logs" / str(rank)).read_text() for rank in (0, 1)]
    assert "pre-training 30/30" in logs[0]
    assert logs[0].splitlines()[-1].endswith("checkpoints/step_00000030")
    assert logs[1] == ""
    steps = [line["step"] for line in readings(undisturbed) if "train/tokens" in line]
    assert steps == list(range(2, 31, 2))


def test_the_metrics_tell_memory_waiting_and_the_slowest(undisturbed):
    lines = [json.loads(line) for line in (undisturbed / "metrics.jsonl").read_text().splitlines()]
    last = [line for line in lines if "train/tokens" in line][-1]
    assert 0.05 < last["train/peak_memory_gib"] < 10
    assert 0 <= last["train/data_wait_fraction"] < 1
    assert last["train/slowest_process"] in (0.0, 1.0)
    assert last["train/forward_slowest_over_median"] >= 1
    assert any("checkpoint/write_seconds" in line for line in lines)
    assert any("checkpoint/blocked_seconds" in line for line in lines)


SLOW = """
import time
import illada.model.layers as layers
forward = layers.SwiGLU.forward

def slow(self, x):
    time.sleep(0.05)
    return forward(self, x)

import os
if os.environ["RANK"] == "1":
    layers.SwiGLU.forward = slow
"""


def test_a_straggler_shows_in_the_metrics(start, finish, tmp_path):
    assert finish(start("--steps", "6", prelude=SLOW)) == [0, 0]
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    told = [line for line in lines if "train/slowest_process" in line]
    assert [line["train/slowest_process"] for line in told] == [1.0] * 3
    # the median of two is between them
    assert all(line["train/forward_slowest_over_median"] > 1.3 for line in told)


# --- other numbers of processes -----------------------------------------------------------------------------------


@pytest.mark.parametrize("mesh", [["--mesh.replicate", "2"], ["--mesh.tensor", "2"], ["--mesh.context", "2"]])
def test_a_run_goes_on_in_another_shape(mesh, undisturbed, small_run, start, job, finish, tmp_path):
    assert finish(start("--max-minutes", "1e-9")) == [0, 0]
    assert [step for step, _ in list_checkpoints(tmp_path / "run" / "checkpoints")] == [1]
    arguments = [*small_run, "--model.kv-heads", "1", "--out", tmp_path / "run", "--resume", *mesh]
    if "--mesh.tensor" in mesh:
        codes = finish(job(arguments, tmp_path / "logs", size=2))
        assert codes == [2, 2]
        assert "mesh.tensor 2 does not divide the model's kv_heads of 1" in (tmp_path / "logs" / "0").read_text()
        return
    assert finish(job(arguments, tmp_path / "logs", size=2)) == [0, 0]
    got = whole(list_checkpoints(tmp_path / "run" / "checkpoints")[-1][1])
    expected = whole(list_checkpoints(undisturbed / "checkpoints")[-1][1])
    for name, tensor in expected.items():
        torch.testing.assert_close(got[name], tensor, rtol=0, atol=1e-5, msg=name)


# --- killed -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("victims", [(1,), (0, 1)])
def test_killed_at_any_moment_they_end_the_same(victims, start, finish, undisturbed, readings, tmp_path):
    chance = random.Random()
    after, delay = chance.randint(4, 24), chance.uniform(0, 0.05)
    print(f"killed {delay:.3f} s after step {after}")
    started = start()
    wait_for(lambda: steps_taken(tmp_path / "run") >= after, started)
    time.sleep(delay)
    for rank in victims:
        started[rank].kill()
    codes = finish(started)
    assert all(codes[rank] == -signal.SIGKILL for rank in victims)
    if victims == (1,):
        assert codes[0] == 1
        last = (tmp_path / "logs" / "0").read_text().splitlines()[-1]
        assert last.startswith("illada: process 0: another process of the job has gone: start the same command with")
    for _, checkpoint in list_checkpoints(tmp_path / "run" / "checkpoints"):
        load_checkpoint(checkpoint, with_optimizer=True)
    assert finish(start("--resume")) == [0, 0]
    assert_same(tmp_path / "run", undisturbed, readings)


def test_restarted_by_torchrun_they_resume_without_being_told(start, finish, undisturbed, readings, tmp_path):
    started = start()
    wait_for(lambda: steps_taken(tmp_path / "run") >= 12, started)
    started[1].kill()
    finish(started)
    again = "import os; os.environ['TORCHELASTIC_RESTART_COUNT'] = '1'"
    assert finish(start(prelude=again)) == [0, 0]
    assert_same(tmp_path / "run", undisturbed, readings)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_to_one_of_them_saves_and_ends_all(number, start, finish, undisturbed, readings, tmp_path):
    started = start()
    wait_for(lambda: steps_taken(tmp_path / "run") >= 6, started)
    os.kill(started[1].pid, number)
    assert finish(started) == [0, 0]
    step, newest = list_checkpoints(tmp_path / "run" / "checkpoints")[-1]
    assert 6 <= step < LAST
    lines = (tmp_path / "logs" / "0").read_text().splitlines()
    assert f"left at step {step} ({number.name}): add --resume to go on" in lines
    assert lines[-1] == str(newest)
    assert finish(start("--resume")) == [0, 0]
    assert_same(tmp_path / "run", undisturbed, readings)


# --- damaged ------------------------------------------------------------------------------------------------------


def test_a_damaged_part_is_named_and_the_checkpoint_before_used(start, finish, undisturbed, readings, tmp_path):
    assert finish(start("--keep-last", "3")) == [0, 0]
    newest = list_checkpoints(tmp_path / "run" / "checkpoints")[-1][1]
    part = newest / "optimizer-00002-of-00002.safetensors"
    content = bytearray(part.read_bytes())
    content[-100] ^= 8
    part.write_bytes(content)
    assert finish(start("--resume")) == [0, 0]
    told = (tmp_path / "logs" / "0").read_text()
    assert f"checkpoint {newest} is damaged: {part.name} was altered: it is kept as" in told
    assert_same(tmp_path / "run", undisturbed, readings)


# --- a full disk --------------------------------------------------------------------------------------------------


def test_where_one_cannot_write_all_leave_and_the_checkpoint_before_stays(start, finish, tmp_path):
    assert finish(start("--max-minutes", "1e-9")) == [0, 0]
    checkpoints = tmp_path / "run" / "checkpoints"
    size = (checkpoints / "step_00000001" / "optimizer-00002-of-00002.safetensors").stat().st_size
    full = f"""
import os, resource
if os.environ["RANK"] == "1":
    resource.setrlimit(resource.RLIMIT_FSIZE, ({size // 2}, {size // 2}))
"""
    codes = finish(start("--resume", "--faults.pause-minutes", "0", prelude=full))
    assert codes == [1, 1]
    for rank in (0, 1):
        last = (tmp_path / "logs" / str(rank)).read_text().splitlines()[-1]
        assert last.startswith(f"illada: process {rank}: cannot write optimizer-00002-of-00002.safetensors: ")
    assert [path.name for path in checkpoints.iterdir()] == ["step_00000001"]
    load_checkpoint(checkpoints / "step_00000001", with_optimizer=True)


# --- asked for wrongly --------------------------------------------------------------------------------------------


def test_a_mesh_that_does_not_fit_is_told_once(start, finish, tmp_path):
    assert finish(start("--mesh.shard", "3")) == [2, 2]
    told = [(tmp_path / "logs" / str(rank)).read_text() for rank in (0, 1)]
    assert "has 3 places, but there are 2 processes" in told[0]
    assert told[1] == ""
    assert not (tmp_path / "run").exists()


def test_rows_that_do_not_divide_are_refused(start, finish, tmp_path):
    assert finish(start("--batch-size", "7")) == [2, 2]
    told = (tmp_path / "logs" / "0").read_text()
    assert "a step of 7 rows (batch_size) does not divide among 2 processes" in told
    assert not (tmp_path / "run").exists()


def test_one_file_holds_no_more_than_the_part_of_its_process(undisturbed):
    newest = list_checkpoints(undisturbed / "checkpoints")[-1][1]
    parts = [safetensors.torch.load_file(path) for path in sorted(newest.glob("model-*"))]
    assert len(parts) == 2
    assert [part["embedding.weight"].shape[0] for part in parts] == [150, 150]
