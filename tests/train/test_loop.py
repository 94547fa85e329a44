"""The loop on a model of a few thousand weights and rows of random tokens, with hooks that only take notes."""

import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from rich.console import Console

from illada.data.loader import Loader
from illada.data.packing import PADDING, FixedRows, Row
from illada.model.config import ModelConfig
from illada.model.transformer import Transformer, initialize
from illada.track.console import ProgressBar
from illada.track.throughput import Throughput
from illada.train.learning_rate import Plateau, WarmupConstantCosine
from illada.train.loop import Hooks, LoopConfig, TrainState, fit
from illada.train.objective import DiffusionObjective, NoiseConfig
from illada.train.optimizer import AdamWConfig, WeightAverage, build_optimizer

CONFIG = ModelConfig(vocab_size=20, hidden_size=16, layers=1, heads=2, kv_heads=1, ffn_size=24, max_length=12)
MASK_ID = 19
CPU = torch.device("cpu")
LOOP = LoopConfig(steps=5, batch_size=8, precision="fp32", log_every=1, validate_every=0, checkpoint_every=100)
SCHEDULE = WarmupConstantCosine(peak=3e-3, floor=1e-4, warmup_steps=2)
LOSS = DiffusionObjective(NoiseConfig(), mask_id=MASK_ID, seed=0)


class Notes:
    """Hooks that write down what was called, and at which step."""

    def __init__(self, state):
        self.state, self.logged, self.validated, self.saved, self.weights = state, [], [], [], []

    def log(self, step, metrics):
        self.logged.append((step, dict(metrics)))
        self.weights.append({name: p.detach().clone() for name, p in self.state.model.named_parameters()})

    def close(self):
        raise AssertionError("the loop did not open the sink, so it must not close it")

    def validate(self):
        self.validated.append(self.state.step)
        return {"held_out/nats_per_token": 1.0}

    def save(self, wait):
        self.saved.append(self.state.step)

    def hooks(self, steps):
        return Hooks(
            validate=self.validate,
            save=self.save,
            sink=self,
            progress=ProgressBar(Console(quiet=True), title="test", total_steps=steps),
            throughput=Throughput(flops_per_token=1.0, device=CPU),
        )

    def train(self, key="train/loss_nats_per_token"):
        return [(step, metrics[key]) for step, metrics in self.logged if key in metrics]


def new_state(*, average=None, sources=None):
    model = Transformer(CONFIG)
    initialize(model, seed=0)
    tokens = torch.randint(0, MASK_ID, (30, 12), generator=torch.Generator().manual_seed(1))
    return TrainState(
        model=model,
        optimizer=build_optimizer(model, AdamWConfig()),
        loader=Loader(sources or [(FixedRows(tokens), 1.0)], seed=0),
        average=None if average is None else WeightAverage(model, decay=average),
    )


def train(state, config=LOOP, *, loss=LOSS, schedule=SCHEDULE, clip_norm=1.0):
    notes = Notes(state)
    notes.reason = fit(
        state, config, loss=loss, schedule=schedule, clip_norm=clip_norm, hooks=notes.hooks(config.steps)
    )
    return notes


def weights(state):
    return {name: parameter.detach().clone() for name, parameter in state.model.named_parameters()}


class At:
    """The diffusion loss, with something happening in the forward of one step."""

    def __init__(self, state, step, event):
        self.state, self.step, self.event = state, step, event

    def __call__(self, model, batch, *, normaliser):
        value = LOSS(model, batch, normaliser=normaliser)
        return self.event(value) if self.state.step == self.step - 1 else value


# --- steps --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 3, 8, 100])
def test_the_size_of_micro_batches_changes_nothing(size):
    whole, parts = new_state(), new_state()
    expected = train(whole)
    got = train(parts, replace(LOOP, micro_batch_size=size))
    assert [loss for _, loss in got.train()] == pytest.approx([loss for _, loss in expected.train()], abs=1e-6)
    for name, weight in weights(whole).items():
        torch.testing.assert_close(parts.model.get_parameter(name).detach(), weight, rtol=0, atol=1e-6)


def test_micro_batches_have_at_most_their_size():
    sizes = []
    state = new_state()

    def loss(model, batch, *, normaliser):
        sizes.append((len(batch), normaliser))
        return LOSS(model, batch, normaliser=normaliser)

    train(state, replace(LOOP, steps=2, micro_batch_size=3), loss=loss)
    assert sizes == [(3, 96), (3, 96), (2, 96)] * 2


def test_training_lowers_the_loss():
    notes = train(new_state(), replace(LOOP, steps=30, batch_size=30, log_every=10))
    losses = [loss for _, loss in notes.train()]
    assert losses[-1] < losses[0] - 0.1


def test_each_step_has_the_rate_of_its_number():
    notes = train(new_state(), replace(LOOP, steps=7))
    expected = [SCHEDULE.rate(step, steps=7) for step in range(7)]
    assert notes.train("train/learning_rate") == list(enumerate(expected, start=1))


@pytest.mark.parametrize("clip", [1e-3, 0.05])
def test_the_gradient_is_clipped_over_all_parameters_together(clip):
    state = new_state()
    state.optimizer = torch.optim.SGD(state.model.parameters(), lr=0.0)
    before = weights(state)
    flat = WarmupConstantCosine(peak=1.0, floor=1.0, warmup_steps=0)
    train(state, replace(LOOP, steps=1, micro_batch_size=2), schedule=flat, clip_norm=clip)
    moved = math.sqrt(sum(float((weight - before[name]).square().sum()) for name, weight in weights(state).items()))
    assert moved == pytest.approx(clip, rel=1e-3)


def test_without_clipping_the_gradient_is_as_it_is():
    clipped, free = new_state(), new_state()
    for state, clip in ((clipped, 1e9), (free, None)):
        train(state, clip_norm=clip)
    assert all(torch.equal(weight, weights(free)[name]) for name, weight in weights(clipped).items())


def test_the_average_takes_in_every_step():
    state = new_state(average=0.5)
    expected = {name: weight.double() for name, weight in weights(state).items()}
    for after in train(state).weights[1:6]:  # the first is from before the run
        expected = {name: 0.5 * average + 0.5 * after[name].double() for name, average in expected.items()}
    for name, average in state.average.tensors.items():
        torch.testing.assert_close(average.double(), expected[name], rtol=0, atol=1e-6)


class Padded:
    """Rows of which row number n keeps n + 1 tokens."""

    rows, length = 12, 12

    def read(self, row, *, example, epoch):
        segments = np.where(np.arange(12) <= row, 0, PADDING)
        return Row(np.where(segments == PADDING, 0, 5), segments)


def test_padding_is_no_token():
    state = new_state(sources=[(Padded(), 1.0)])
    notes = train(state, replace(LOOP, steps=2, batch_size=12))  # two epochs
    assert notes.train("train/tokens") == [(1, 78.0), (2, 156.0)]
    assert state.tokens == 156


# --- what is told, and when ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("every", "expected"), [(1, [1, 2, 3, 4, 5, 6, 7]), (3, [3, 6, 7]), (7, [7]), (50, [7])])
def test_the_loss_is_logged_when_it_is_due_and_at_the_end(every, expected):
    notes = train(new_state(), replace(LOOP, steps=7, log_every=every))
    assert [step for step, _ in notes.train()] == expected


def test_what_is_logged_is_the_mean_since_the_last_time():
    single = [loss for _, loss in train(new_state(), replace(LOOP, steps=7)).train()]
    means = [loss for _, loss in train(new_state(), replace(LOOP, steps=7, log_every=3)).train()]
    assert means == pytest.approx([sum(single[:3]) / 3, sum(single[3:6]) / 3, single[6]], rel=1e-6)


def test_the_metrics_have_their_names():
    _, metrics = train(new_state()).logged[1]
    assert set(metrics) == {
        "train/loss_nats_per_token",
        "train/gradient_norm",
        "train/learning_rate",
        "train/tokens",
        "train/tokens_per_second",
        "train/data_wait_fraction",
    }
    assert metrics["train/tokens"] == 8 * 12
    assert metrics["train/tokens_per_second"] > 0


@pytest.mark.parametrize(
    ("every", "expected"), [(0, [0, 7]), (1, [0, 1, 2, 3, 4, 5, 6, 7]), (3, [0, 3, 6, 7]), (7, [0, 7]), (9, [0, 7])]
)
def test_the_bound_is_measured_before_the_first_step_when_due_and_after_the_last(every, expected):
    notes = train(new_state(), replace(LOOP, steps=7, validate_every=every))
    assert notes.validated == expected
    assert [step for step, _ in notes.train("held_out/nats_per_token")] == expected


@pytest.mark.parametrize(("every", "expected"), [(1, [1, 2, 3, 4, 5]), (2, [2, 4, 5]), (5, [5]), (9, [5])])
def test_a_checkpoint_is_saved_when_due_and_at_the_end(every, expected):
    notes = train(new_state(), replace(LOOP, checkpoint_every=every))
    assert notes.saved == expected
    assert notes.reason is None


def test_a_run_that_is_done_does_nothing_more():
    state = new_state()
    train(state)
    before = weights(state)
    again = train(state)
    assert (again.saved, again.validated, again.logged, again.reason) == ([], [], [], None)
    assert all(torch.equal(weight, before[name]) for name, weight in weights(state).items())


def test_a_loss_that_no_longer_falls_brings_the_decay_forward():
    def flat(model, batch, *, normaliser):
        return LOSS(model, batch, normaliser=normaliser) * 0 + 2.0

    rule = Plateau(smoothing=0.0, patience=2)
    schedule = WarmupConstantCosine(peak=1e-3, floor=0.0, warmup_steps=0, decay_start=15, plateau=rule)
    state = new_state()
    notes = train(state, replace(LOOP, steps=20, log_every=2), loss=flat, schedule=schedule)
    # readings at 2, 4, 6: the third is the second without an improvement
    assert state.rate.plateau_at == 6
    rates = dict(notes.train("train/learning_rate"))
    assert rates[6] == 1e-3
    assert rates[8] == pytest.approx(1e-3 * (1 + math.cos(math.pi * 2 / 14)) / 2)


# --- leaving early ------------------------------------------------------------------------------------------------


def test_time_that_is_up_saves_and_leaves():
    state = new_state()
    notes = train(state, replace(LOOP, max_minutes=1e-9))
    assert (notes.reason, state.step, notes.saved) == ("its time is up", 1, [1])


def test_time_that_is_not_up_changes_nothing():
    notes = train(new_state(), replace(LOOP, max_minutes=10.0))
    assert (notes.reason, notes.saved) == (None, [5])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_ends_the_step_saves_and_leaves(number):
    state = new_state()
    before = signal.getsignal(number)

    def send(value):
        os.kill(os.getpid(), number)
        return value

    notes = train(state, loss=At(state, 3, send))
    assert (notes.reason, state.step, notes.saved) == (number.name, 3, [3])
    assert signal.getsignal(number) == before


def test_a_signal_in_the_last_step_comes_too_late_to_matter():
    state = new_state()

    def send(value):
        os.kill(os.getpid(), signal.SIGTERM)
        return value

    notes = train(state, loss=At(state, 5, send))
    assert (notes.reason, state.step, notes.saved) == (None, 5, [5])


@pytest.mark.parametrize("pause", [1, 2, 4])
def test_a_run_that_left_goes_on_as_if_it_had_not(pause):
    config = replace(LOOP, log_every=3)
    whole = new_state()
    expected = train(whole, config)

    first = new_state()

    def send(value):
        os.kill(os.getpid(), signal.SIGTERM)
        return value

    begun = train(first, config, loss=At(first, pause, send))
    second = new_state()
    second.model.load_state_dict(first.model.state_dict())
    second.optimizer.load_state_dict(first.optimizer.state_dict())
    second.load_plain(json.loads(json.dumps(first.plain())))
    resumed = train(second, config)
    assert begun.train() + resumed.train() == expected.train()
    assert begun.validated + resumed.validated == expected.validated
    assert second.plain() == whole.plain()
    assert all(torch.equal(weight, weights(whole)[name]) for name, weight in weights(second).items())


# --- a loss that is no number -------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize(("log_every", "checkpoint_every", "saved"), [(1, 2, [2]), (10, 2, [2]), (4, 10, [])])
def test_a_loss_that_is_no_number_stops_the_run_before_it_is_saved(bad, log_every, checkpoint_every, saved):
    state = new_state()
    config = replace(LOOP, steps=9, log_every=log_every, checkpoint_every=checkpoint_every)
    notes = Notes(state)
    with pytest.raises(FloatingPointError, match=r"the loss is (nan|inf) at step 3: lower the learning rate"):
        fit(
            state,
            config,
            loss=At(state, 3, lambda value: value * bad),
            schedule=SCHEDULE,
            clip_norm=1.0,
            hooks=notes.hooks(9),
        )
    assert notes.saved == saved
    assert all(math.isfinite(loss) for _, loss in notes.train())


def test_a_gradient_that_is_no_number_under_a_finite_loss_is_not_saved_either():
    state = new_state()
    notes = Notes(state)

    def poison(value):
        # the square root has an infinite slope at 0: the sum is finite, its gradient is not
        return value + (0 * value).abs().sqrt()

    with pytest.raises(FloatingPointError, match="the norm of the gradient is nan at step 3"):
        fit(
            state,
            replace(LOOP, steps=9, log_every=10, checkpoint_every=1),
            loss=At(state, 3, poison),
            schedule=SCHEDULE,
            clip_norm=1.0,
            hooks=notes.hooks(9),
        )
    assert notes.saved == [1, 2]


# --- precision ----------------------------------------------------------------------------------------------------


def test_bf16_computes_in_bf16_and_keeps_fp32_weights():
    seen = []
    state = new_state()

    def loss(model, batch, *, normaliser):
        seen.append(model.blocks[0].mlp.up_proj(torch.ones(1, 16)).dtype)
        return LOSS(model, batch, normaliser=normaliser)

    notes = train(state, replace(LOOP, precision="bf16"), loss=loss)
    assert set(seen) == {torch.bfloat16}
    assert {parameter.dtype for parameter in state.model.parameters()} == {torch.float32}
    exact = [loss for _, loss in train(new_state()).train()]
    got = [loss for _, loss in notes.train()]
    assert got == pytest.approx(exact, rel=2e-2)
    assert got != exact


# --- configuration ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["steps", "batch_size", "log_every", "checkpoint_every", "keep_last"])
def test_counts_must_be_positive(name):
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
        LoopConfig(**{name: 0})


@pytest.mark.parametrize(("name", "value", "least"), [("validate_every", -1, 0), ("micro_batch_size", 0, 1)])
def test_optional_counts_have_their_own_least(name, value, least):
    with pytest.raises(ValueError, match=re.escape(f"{name} must be") + f".* {least}.*, got {value}"):
        LoopConfig(**{name: value})


# --- torch.compile ------------------------------------------------------------------------------------------------

COMPARE = """
import sys, torch
from rich.console import Console
from illada.data.loader import Loader
from illada.data.packing import FixedRows
from illada.distributed.sharding import compile_blocks
from illada.model.config import ModelConfig
from illada.model.transformer import Transformer, initialize
from illada.track.console import ProgressBar
from illada.track.throughput import Throughput
from illada.train.learning_rate import WarmupConstantCosine
from illada.train.loop import Hooks, LoopConfig, TrainState, fit
from illada.train.objective import DiffusionObjective, NoiseConfig
from illada.train.optimizer import AdamWConfig, build_optimizer

class Losses:
    def __init__(self): self.seen = []
    def log(self, step, metrics): self.seen.append(metrics.get("train/loss_nats_per_token"))
    def close(self): pass

def losses(compile):
    model = Transformer(ModelConfig(vocab_size=20, hidden_size=16, layers=1, heads=2, kv_heads=1, ffn_size=24))
    initialize(model, seed=0)
    if compile:
        compile_blocks(model)
    rows = FixedRows(torch.randint(0, 19, (30, 12), generator=torch.Generator().manual_seed(1)))
    state = TrainState(
        model=model, optimizer=build_optimizer(model, AdamWConfig()), loader=Loader([(rows, 1.0)], seed=0)
    )
    sink = Losses()
    fit(
        state,
        LoopConfig(steps=5, batch_size=8, precision="fp32", log_every=1),
        loss=DiffusionObjective(NoiseConfig(), mask_id=19, seed=0),
        schedule=WarmupConstantCosine(peak=3e-3, floor=1e-4, warmup_steps=2),
        clip_norm=1.0,
        hooks=Hooks(
            validate=dict,
            save=lambda wait: None,
            sink=sink,
            progress=ProgressBar(Console(quiet=True), title="", total_steps=5),
            throughput=Throughput(flops_per_token=1.0, device=torch.device("cpu")),
        ),
    )
    return sink.seen[1:6]

eager, compiled = losses(False), losses(True)
from torch._dynamo.utils import counters
print(max(abs(a - b) for a, b in zip(eager, compiled, strict=True)), counters["stats"]["unique_graphs"])
"""


@pytest.mark.slow
@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="torch.compile needs a C++ compiler")
def test_a_compiled_model_trains_alike(tmp_path):
    # in a process of its own: torch.compile cannot trace through the run-time shape checks of this suite
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "TORCHINDUCTOR_CACHE_DIR": str(tmp_path),
        "TORCHINDUCTOR_COMPILE_THREADS": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", COMPARE], capture_output=True, text=True, env=environment, timeout=280, check=False
    )
    assert done.returncode == 0, done.stderr
    difference, graphs = done.stdout.split()
    assert float(difference) < 1e-4
    assert int(graphs) >= 1
