"""A run that is killed and resumed ends with the same bytes as one that nobody disturbed."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from illada.checkpoint.native import list_checkpoints, load_checkpoint
from illada.cli.main import main
from illada.config import from_json
from illada.train.loop import LoopConfig
from illada.train.pretrain import PretrainConfig, run

LAST = 30
TWIN = ("--model.attention", "causal", "--objective", "next_token")

# stands in front of the command line: the process kills itself while it writes the optimizer's tensors of step 15
KILLED_WHILE_SAVING = """
import signal
import illada.checkpoint.native as native
save = native.save_tensors

def save_and_die(tensors, path):
    save(tensors, path)
    if "step_00000015" in str(path) and path.name == "optimizer.safetensors":
        os.truncate(path, path.stat().st_size // 2)
        os.kill(os.getpid(), signal.SIGKILL)

native.save_tensors = save_and_die
"""


@pytest.fixture(scope="module")
def undisturbed(small_run, tmp_path_factory):
    """The same run, left alone, started as a user starts it."""
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    done = subprocess.run(
        [sys.executable, "-m", "illada", *small_run, "--out", str(folder)],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [str(folder / "checkpoints" / f"step_{LAST:08d}")]
    return folder


@pytest.fixture
def start(processes, small_run, tmp_path):
    """Start the run of this test in a process of its own."""

    def begin(*flags, **options):
        return processes([*small_run, "--out", tmp_path / "run", *flags], tmp_path / "log", **options)

    return begin


def steps_taken(folder) -> int:
    """The newest step that a run has told of."""
    metrics = folder / "metrics.jsonl"
    lines = metrics.read_text().split("\n")[:-1] if metrics.exists() else []
    return json.loads(lines[-1])["step"] if lines else -1


def wait_for(condition, process) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert process.is_alive(), "the run ended before it could be disturbed"
        assert time.monotonic() < deadline
        time.sleep(0.001)


def finish(process) -> int:
    process.join(120)
    code = process.exitcode
    process.close()
    return code


def assert_same(folder, undisturbed, readings):
    ours, theirs = (list_checkpoints(root / "checkpoints") for root in (folder, undisturbed))
    assert ours[-1][0] == theirs[-1][0] == LAST
    for name in ("model.safetensors", "optimizer.safetensors", "state.json"):
        assert (ours[-1][1] / name).read_bytes() == (theirs[-1][1] / name).read_bytes(), name
    assert readings(folder) == readings(undisturbed)
    assert (folder / "config.json").read_bytes() == (undisturbed / "config.json").read_bytes()
    hidden = [path.name for path in (folder / "checkpoints").iterdir() if path.name.startswith(".")]
    assert hidden == []


# --- killed -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("turn", range(3))
def test_killed_at_any_moment_and_resumed_it_ends_the_same(turn, start, undisturbed, readings, tmp_path):
    chance = random.Random()
    after, delay = chance.randint(7 * turn, 7 * turn + 6), chance.uniform(0, 0.02)
    print(f"killed {delay:.3f} s after step {after}")
    process = start()
    wait_for(lambda: steps_taken(tmp_path / "run") >= after, process)
    time.sleep(delay)
    process.kill()
    assert finish(process) == -signal.SIGKILL
    for _, checkpoint in list_checkpoints(tmp_path / "run" / "checkpoints"):
        load_checkpoint(checkpoint, with_optimizer=True)
    assert finish(start("--resume")) == 0
    assert_same(tmp_path / "run", undisturbed, readings)


def test_killed_before_its_first_checkpoint_it_begins_again(start, undisturbed, readings, tmp_path):
    process = start()
    wait_for(lambda: steps_taken(tmp_path / "run") >= 2, process)
    process.kill()
    assert finish(process) == -signal.SIGKILL
    shutil.rmtree(tmp_path / "run" / "checkpoints", ignore_errors=True)  # should it have been quicker than we were
    assert finish(start("--resume")) == 0
    assert_same(tmp_path / "run", undisturbed, readings)


def test_killed_while_it_saves_it_resumes_from_the_checkpoint_before(start, undisturbed, readings, tmp_path):
    assert finish(start(prelude=KILLED_WHILE_SAVING)) == -signal.SIGKILL
    checkpoints = tmp_path / "run" / "checkpoints"
    assert [step for step, _ in list_checkpoints(checkpoints)] == [5, 10]
    half_written = [path for path in checkpoints.iterdir() if path.name.startswith(".step_00000015")]
    assert len(half_written) == 1
    with pytest.raises(FileNotFoundError, match="holds no manifest"):
        load_checkpoint(half_written[0])
    assert finish(start("--resume")) == 0
    assert_same(tmp_path / "run", undisturbed, readings)


def test_the_autoregressive_twin_killed_and_resumed_ends_the_same(start, processes, small_run, readings, tmp_path):
    assert finish(processes([*small_run, *TWIN, "--out", tmp_path / "undisturbed"], tmp_path / "other-log")) == 0
    process = start(*TWIN)
    wait_for(lambda: steps_taken(tmp_path / "run") >= 12, process)
    process.kill()
    assert finish(process) == -signal.SIGKILL
    assert finish(start(*TWIN, "--resume")) == 0
    assert_same(tmp_path / "run", tmp_path / "undisturbed", readings)


# --- asked to leave -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_asked_to_leave_it_saves_says_so_and_can_go_on(number, start, undisturbed, readings, tmp_path):
    process = start()
    wait_for(lambda: steps_taken(tmp_path / "run") >= 6, process)
    os.kill(process.pid, number)
    assert finish(process) == 0
    (step, newest) = list_checkpoints(tmp_path / "run" / "checkpoints")[-1]
    assert 6 <= step < LAST
    lines = (tmp_path / "log").read_text().splitlines()
    assert f"left at step {step} ({number.name}): add --resume to go on" in lines
    assert lines[-1] == str(newest)
    assert finish(start("--resume")) == 0
    assert_same(tmp_path / "run", undisturbed, readings)


# --- in one process -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def config(undisturbed) -> PretrainConfig:
    """That of the undisturbed run, shortened: shape checks are slow."""
    told = from_json(PretrainConfig, (undisturbed / "config.json").read_text())
    loop = LoopConfig(steps=8, batch_size=4, log_every=3, validate_every=4, checkpoint_every=3, precision="fp32")
    return replace(told, loop=loop)


def test_with_an_average_of_the_weights_it_ends_the_same_too(config, cache, readings, tmp_path):
    config = replace(config, average_decay=0.8)
    run(config, tmp_path / "whole", cache=cache)
    in_two = replace(config, loop=replace(config.loop, max_minutes=1e-9))
    first = run(in_two, tmp_path / "parts", cache=cache)
    assert (first.stopped_by, first.steps) == ("its time is up", 1)
    second = run(config, tmp_path / "parts", cache=cache, resume=True)
    assert (second.stopped_by, second.steps) == (None, 8)
    whole, parts = (load_checkpoint(tmp_path / name / "checkpoints" / "step_00000008") for name in ("whole", "parts"))
    assert all((whole.weights[name] == tensor).all() for name, tensor in parts.weights.items())
    assert readings(tmp_path / "whole") == readings(tmp_path / "parts")
    for name in ("model.safetensors", "optimizer.safetensors", "state.json"):
        files = [tmp_path / run / "checkpoints" / "step_00000008" / name for run in ("whole", "parts")]
        assert files[0].read_bytes() == files[1].read_bytes()


def test_a_finished_run_resumed_changes_nothing(undisturbed, small_run, readings, tmp_path, capsys):
    folder = tmp_path / "run"
    shutil.copytree(undisturbed, folder)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert main([*small_run, "--out", str(folder), "--resume"]) == 0
    assert capsys.readouterr().out.strip() == str(folder / "checkpoints" / f"step_{LAST:08d}")
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


# --- refused ------------------------------------------------------------------------------------------------------


@pytest.fixture
def used(undisturbed, tmp_path):
    folder = tmp_path / "used"
    shutil.copytree(undisturbed, folder)
    return folder


def refusal(arguments, capsys) -> str:
    assert main(list(map(str, arguments))) == 2
    lines = capsys.readouterr().err.splitlines()
    return lines[-1]


def test_a_folder_in_use_is_refused_without_resume(used, small_run, capsys):
    before = (used / "metrics.jsonl").read_bytes()
    expected = f"illada: {used} holds a run already: add --resume to go on with it, or choose another folder"
    assert refusal([*small_run, "--out", used], capsys) == expected
    assert (used / "metrics.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--steps", "40"], ["loop.steps was 30 and is 40"]),
        (["--seed", "1", "--noise.floor", "0.01"], ["noise.floor was 0.001 and is 0.01", "seed was 0 and is 1"]),
        (["--average-decay", "0.9"], ["average_decay was None and is 0.9"]),
    ],
)
def test_another_configuration_is_refused_by_its_fields(flags, named, used, small_run, capsys):
    before = (used / "config.json").read_bytes()
    message = refusal([*small_run, "--out", used, "--resume", *flags], capsys)
    assert message == f"illada: the run in {used} began with another configuration: {'; '.join(named)}"
    assert (used / "config.json").read_bytes() == before


def test_how_long_a_session_may_take_is_no_other_configuration(used, small_run, capsys):
    assert main([*small_run, "--out", str(used), "--resume", "--max-minutes", "5"]) == 0


def test_another_device_is_no_other_configuration_where_the_precision_is_given(used, small_run, capsys):
    elsewhere = [*small_run, "--out", str(used), "--resume", "--device", "auto"]
    assert main(elsewhere) == 0
    config = used / "config.json"
    values = json.loads(config.read_text())
    values["loop"]["precision"] = "auto"  # on one device that is bf16, on another fp32
    config.write_text(json.dumps(values))
    message = refusal([*elsewhere, "--precision", "auto"], capsys)
    assert message == f"illada: the run in {used} began with another configuration: device was cpu and is auto"


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "state.json", "manifest.json"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(name, used, small_run, undisturbed, readings, capsys):
    newest = used / "checkpoints" / f"step_{LAST:08d}"
    flip_a_bit(newest / name)
    # the suite's shape checks change no number
    assert main([*small_run, "--out", str(used), "--resume"]) == 0
    told = capsys.readouterr().err
    what = f"{newest / name} is damaged" if name == "manifest.json" else f"checkpoint {newest} is damaged: {name} was"
    assert what in told
    assert "it is kept as step_00000030.damaged-1, and the one before it is used" in told
    assert (newest.parent / "step_00000030.damaged-1" / name).exists()
    assert_same(used, undisturbed, readings)


def test_where_every_checkpoint_is_damaged_the_run_does_not_begin_again(used, small_run, capsys):
    before = (used / "metrics.jsonl").read_bytes()
    for _, checkpoint in list_checkpoints(used / "checkpoints"):
        flip_a_bit(checkpoint / "state.json")
    message = refusal([*small_run, "--out", used, "--resume"], capsys)
    assert message.startswith(f"illada: none of the checkpoints in {used / 'checkpoints'} is whole: checkpoint ")
    assert "step_00000030 is damaged: state.json was altered" in message
    assert (used / "metrics.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    "flags",
    [
        ["--micro-batch-size", "3"],
        ["--mesh.shard", "1"],
        ["--activation-checkpointing", "full"],
        ["--no-background-saving"],
        ["--keep-last", "5"],
    ],
)
def test_what_decides_nothing_about_the_result_may_differ(flags, used, small_run):
    assert main([*small_run, "--out", str(used), "--resume", *flags]) == 0
