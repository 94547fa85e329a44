import time

import pytest
import torch

from illada.distributed.stragglers import ForwardClock, spread_of_processes
from illada.model.config import ModelConfig
from illada.model.transformer import Transformer

CONFIG = ModelConfig(vocab_size=30, hidden_size=32, layers=2, heads=4, kv_heads=2, ffn_size=48, max_length=16)
TOKENS = torch.zeros(1, 8, dtype=torch.int64)


class Clock:
    now = 10.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(time, "perf_counter", clock)
    return clock


def timed_model(clock, seconds):
    """A model whose blocks take so long on the clock, and everything around them 100 s."""
    model = Transformer(CONFIG)
    forward_clock = ForwardClock(model, device=torch.device("cpu"))

    def work(module, arguments):
        clock.now += seconds

    def pause(module, arguments):
        clock.now += 100.0

    for block in model.blocks:
        block.attention.register_forward_pre_hook(work)
    model.norm.register_forward_pre_hook(pause)
    return model, forward_clock


def test_only_the_blocks_count(clock):
    model, forward_clock = timed_model(clock, 3.0)
    model(TOKENS)
    model(TOKENS)
    assert forward_clock.read() == 2 * 2 * 3.0
    assert forward_clock.read() == 0.0


def test_only_training_counts(clock):
    model, forward_clock = timed_model(clock, 3.0)
    with torch.no_grad():
        model(TOKENS)
    assert forward_clock.read() == 0.0


def test_the_slowest_is_named_and_compared_with_the_median():
    assert spread_of_processes([1.0, 1.2, 4.4, 0.8, 1.1]) == {
        "train/forward_seconds_median": 1.1,
        "train/forward_slowest_over_median": pytest.approx(4.0),
        "train/slowest_process": 2.0,
    }


def test_no_time_at_all_is_no_spread():
    assert spread_of_processes([0.0, 0.0])["train/forward_slowest_over_median"] == 1.0
