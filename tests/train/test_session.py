"""Runs in which something goes wrong: what they do about it, what they say, and what they come to."""

import io
import json
import math
import socket
from dataclasses import replace

import pytest
import torch
from rich.console import Console

import illada.train.session as session_module
from illada.checkpoint.native import list_checkpoints, load_checkpoint
from illada.checkpoint.saver import Saver
from illada.data.corpus import CorpusConfig
from illada.data.packing import PackingConfig
from illada.distributed.processes import Processes
from illada.model.config import ModelConfig
from illada.train.faults import FaultConfig, Rollbacks
from illada.train.learning_rate import WarmupConstantCosine
from illada.train.loop import LoopConfig
from illada.train.objective import DiffusionObjective
from illada.train.pretrain import HeldOutConfig, PretrainConfig, run
from illada.train.session import newest_sound

ROWS = 4
LOOP = LoopConfig(
    steps=20, batch_size=ROWS, precision="fp32", log_every=3, validate_every=0, checkpoint_every=5, keep_last=9
)


@pytest.fixture(scope="module")
def config(small_text) -> PretrainConfig:
    return PretrainConfig(
        model=ModelConfig(hidden_size=16, layers=1, heads=2, kv_heads=1, ffn_size=24, max_length=32),
        corpus=CorpusConfig(sources=(str(small_text),), vocab_size=300, workers=1),
        packing=PackingConfig(length=16),
        learning_rate=WarmupConstantCosine(peak=1e-2, floor=1e-3, warmup_steps=2),
        loop=LOOP,
        held_out=HeldOutConfig(rows=2, samples=1),
        device="cpu",
    )


@pytest.fixture
def poison(monkeypatch):
    """Let the loss of chosen examples be multiplied."""
    call = DiffusionObjective.__call__

    def set_poison(examples, factor):
        def poisoned(self, model, batch, *, normaliser):
            value = call(self, model, batch, normaliser=normaliser)
            return value * factor if set(batch.example.tolist()) & set(examples) else value

        monkeypatch.setattr(DiffusionObjective, "__call__", poisoned)

    return set_poison


def train(config, folder, cache, **options):
    """(outcome, what was said)."""
    output = io.StringIO()
    return run(config, folder, cache=cache, console=Console(file=output, width=400), **options), output.getvalue()


def weights(folder, step=20):
    return load_checkpoint(folder / "checkpoints" / f"step_{step:08d}", with_optimizer=True)


def assert_same(one, other):
    for got, expected in ((one.weights, other.weights), (one.optimizer, other.optimizer)):
        assert got.keys() == expected.keys()
        assert all(torch.equal(got[name], tensor) for name, tensor in expected.items())


def lines_of(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


# --- going back ---------------------------------------------------------------------------------------------------

# step 13 is trained on examples 48 to 51; the checkpoint before it is that of step 10
BAD = (50,)


@pytest.fixture
def never_met(monkeypatch, config, cache, tmp_path):
    """The run that passes over these examples because it was told so, not because something went wrong."""

    def build(skip, factor=None):
        with monkeypatch.context() as patch:
            patch.setattr(Rollbacks, "examples_to_pass", lambda self, example: skip.get(example, 0))
            if factor is not None:
                patch.setattr(Rollbacks, "rate_factor", lambda self, step: factor if step >= 10 else 1.0)
            train(config, tmp_path / "never", cache)
        return tmp_path / "never"

    return build


@pytest.mark.parametrize("factor", [math.nan, math.inf])
def test_a_loss_that_is_no_number_is_gone_back_from(factor, poison, never_met, config, cache, tmp_path):
    expected = never_met({48: 4})
    poison(BAD, factor)
    outcome, said = train(config, tmp_path / "run", cache)
    assert (outcome.steps, outcome.stopped_by) == (20, None)
    told = (
        f"the loss is {'nan' if math.isnan(factor) else 'inf'} at step 13: back to step 10; the 4 examples from "
        "number 48 on are passed over"
    )
    assert told in said.splitlines()
    assert_same(weights(tmp_path / "run"), weights(expected))
    state = json.loads((tmp_path / "run" / "checkpoints" / "step_00000020" / "state.json").read_text())
    assert state["loader"]["example"] == 21 * ROWS


def test_it_is_recorded_in_the_metrics(poison, config, cache, tmp_path):
    poison(BAD, math.nan)
    train(config, tmp_path / "run", cache)
    lines = lines_of(tmp_path / "run")
    assert [line for line in lines if "fault/step" in line] == [
        {"step": 10, "fault/step": 13, "fault/examples_passed_over": 4}
    ]
    # what was told of steps that were taken back is gone, and told anew
    assert [line["step"] for line in lines if "train/tokens" in line] == [3, 6, 9, 12, 15, 18, 20]
    (entry,) = [json.loads(line) for line in (tmp_path / "run" / "rollbacks.jsonl").read_text().splitlines()]
    assert entry == {
        "step": 13,
        "reason": "the loss is nan",
        "back_to": 10,
        "first_example": 48,
        "examples": 4,
        "rate_factor": 1.0,
    }


def test_a_spike_beyond_the_bound_is_gone_back_from(poison, never_met, config, cache, tmp_path):
    config = replace(config, loop=replace(LOOP, steps=40), faults=FaultConfig(spike=3.0))
    poison((130,), 20.0)  # step 33
    _, said = train(config, tmp_path / "run", cache)
    (line,) = [line for line in said.splitlines() if "back to" in line]
    assert line.startswith("the loss is ")
    assert "times its running mean of" in line
    assert line.endswith("at step 33: back to step 30; the 4 examples from number 128 on are passed over")


def test_without_a_bound_a_spike_is_trained_on(poison, config, cache, tmp_path):
    poison((130,), 20.0)
    _, said = train(replace(config, loop=replace(LOOP, steps=40)), tmp_path / "run", cache)
    assert "back to" not in said


def test_more_steps_can_be_passed_over_and_the_rate_lowered(poison, never_met, config, cache, tmp_path):
    config = replace(config, faults=FaultConfig(skip_steps=2, rate_factor=0.5))
    expected = never_met({44: 8}, factor=0.5)
    poison(BAD, math.nan)
    _, said = train(config, tmp_path / "run", cache)
    assert "back to step 10; the 8 examples from number 44 on are passed over, the learning rate is 0.5 of what" in said
    assert_same(weights(tmp_path / "run"), weights(expected))


def test_no_step_before_the_checkpoint_is_passed_over(poison, config, cache, tmp_path):
    poison(BAD, math.nan)
    _, said = train(replace(config, faults=FaultConfig(skip_steps=9)), tmp_path / "run", cache)
    assert "back to step 10; the 12 examples from number 40 on are passed over" in said


def test_a_run_that_resumes_passes_over_them_too(poison, config, cache, tmp_path):
    poison(BAD, math.nan)
    train(config, tmp_path / "run", cache)
    expected = weights(tmp_path / "run")
    for step in (15, 20):
        folder = tmp_path / "run" / "checkpoints" / f"step_{step:08d}"
        folder.rename(folder.with_name(f"gone_{step}"))
    _, said = train(config, tmp_path / "run", cache, resume=True)
    assert "back to" not in said
    assert_same(weights(tmp_path / "run"), expected)
    assert len((tmp_path / "run" / "rollbacks.jsonl").read_text().splitlines()) == 1


def test_faults_one_after_the_other_are_all_passed(poison, config, cache, tmp_path):
    poison((50, 58), math.nan)
    _, said = train(config, tmp_path / "run", cache)
    assert [line.split(":")[0] for line in said.splitlines() if "back to" in line] == [
        "the loss is nan at step 13",
        "the loss is nan at step 14",  # the examples that followed on those that were passed over
    ]


def test_where_going_back_does_not_help_the_run_ends(poison, config, cache, tmp_path):
    poison(range(48, 10_000), math.nan)
    with pytest.raises(FloatingPointError, match="the loss is nan at step 13: lower the learning rate"):
        train(replace(config, faults=FaultConfig(rollbacks=2)), tmp_path / "run", cache)
    assert len((tmp_path / "run" / "rollbacks.jsonl").read_text().splitlines()) == 2
    assert list_checkpoints(tmp_path / "run" / "checkpoints")[-1][0] == 10
    weights(tmp_path / "run", step=10)


@pytest.mark.parametrize(("examples", "faults"), [((6,), FaultConfig()), (BAD, FaultConfig(rollbacks=0))])
def test_where_there_is_no_going_back_the_first_fault_ends_the_run(examples, faults, poison, config, cache, tmp_path):
    poison(examples, math.nan)
    with pytest.raises(FloatingPointError, match=r"the loss is nan at step (2|13)"):
        train(replace(config, faults=faults), tmp_path / "run", cache)


def test_with_an_average_it_goes_back_too(poison, never_met, config, cache, tmp_path):
    config = replace(config, average_decay=0.8)
    poison(BAD, math.nan)
    train(config, tmp_path / "run", cache)
    assert all(tensor.isfinite().all() for tensor in weights(tmp_path / "run").weights.values())


# --- a disk that is full for a while ------------------------------------------------------------------------------


@pytest.fixture
def full(monkeypatch):
    """Let so many attempts to save fail."""
    monkeypatch.setattr(session_module, "RETRY_SECONDS", 0.01)
    save = Saver.save
    attempts = []

    def set_full(times, step):
        def save_or_not(self, at, *args, **options):
            if at == step and len(attempts) < times:
                attempts.append(at)
                raise OSError(28, "No space left on device")
            save(self, at, *args, **options)

        monkeypatch.setattr(Saver, "save", save_or_not)
        return attempts

    return set_full


def test_a_run_waits_for_room_and_says_so(full, config, cache, tmp_path):
    attempts = full(3, step=10)
    outcome, said = train(config, tmp_path / "run", cache)
    assert (outcome.steps, len(attempts)) == (20, 3)
    lines = said.splitlines()
    (paused,) = [line for line in lines if "Paused" in line]
    assert paused == (
        "the checkpoint of step 10 cannot be written: [Errno 28] No space left on device. Paused, for 10 minutes at "
        "most: make room, and the run goes on; the checkpoint of step 5 is whole"
    )
    assert "step 10 is saved: the run goes on" in lines
    assert [step for step, _ in list_checkpoints(tmp_path / "run" / "checkpoints")] == [5, 10, 15, 20]


def test_a_pause_changes_nothing_about_the_result(full, config, cache, tmp_path):
    train(config, tmp_path / "smooth", cache)
    full(2, step=10)
    train(config, tmp_path / "run", cache)
    assert_same(weights(tmp_path / "run"), weights(tmp_path / "smooth"))


@pytest.mark.parametrize("minutes", [0.0, 0.001])
def test_when_the_time_is_over_the_run_leaves_with_the_error(minutes, full, config, cache, tmp_path):
    full(10**6, step=10)
    config = replace(config, faults=FaultConfig(pause_minutes=minutes))
    with pytest.raises(OSError, match="No space left"):
        train(config, tmp_path / "run", cache)
    assert [step for step, _ in list_checkpoints(tmp_path / "run" / "checkpoints")] == [5]
    weights(tmp_path / "run", step=5)


# --- which checkpoint to begin from -------------------------------------------------------------------------------


def test_without_checkpoints_there_is_none_to_begin_from(tmp_path):
    assert newest_sound(tmp_path, Processes(), report=print) is None


def test_damaged_ones_are_set_aside_one_after_the_other(config, cache, tmp_path):
    train(config, tmp_path / "run", cache)
    root, said = tmp_path / "run" / "checkpoints", []
    for step, name in ((20, "model.json"), (15, "optimizer.safetensors")):
        (root / f"step_{step:08d}" / name).unlink()
    assert newest_sound(root, Processes(), report=said.append) == root / "step_00000010"
    aside = "it is kept as {}.damaged-1, and the one before it is used"
    assert said == [
        f"checkpoint {root / name} is damaged: {file} is missing: {aside.format(name)}"
        for name, file in (("step_00000020", "model.json"), ("step_00000015", "optimizer.safetensors"))
    ]
    assert [step for step, _ in list_checkpoints(root)] == [5, 10]


def test_what_dead_processes_left_is_swept_up(config, cache, tmp_path):
    train(config, tmp_path / "run", cache)
    root = tmp_path / "run" / "checkpoints"
    (step,) = [path for path in root.iterdir() if path.name == "step_00000020"]
    leftover = root / f".step_00000017.partial-{socket.gethostname()}-999999999"
    step.rename(leftover)
    train(config, tmp_path / "run", cache, resume=True)
    assert not leftover.exists()
