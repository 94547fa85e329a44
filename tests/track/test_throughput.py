import subprocess
import sys
import time

import pytest
import torch

from illada.track.throughput import PEAK_BF16_FLOPS, Throughput, peak_flops, peak_memory

CPU = torch.device("cpu")
GPU = torch.device("cuda")


class Clock:
    """A clock that is set by hand."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "perf_counter", clock)
    return clock


def on(monkeypatch: pytest.MonkeyPatch, name: str) -> torch.device:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    return GPU


def test_speed_is_tokens_by_seconds_since_the_last_reading(clock):
    throughput = Throughput(flops_per_token=1.0, device=CPU)
    clock.now += 4
    assert throughput.read(1000)[Throughput.SPEED] == 250.0
    clock.now += 2
    assert throughput.read(1100)[Throughput.SPEED] == 50.0


def test_waiting_for_data_is_a_part_of_the_time(clock):
    throughput = Throughput(flops_per_token=1.0, device=CPU)
    for _ in range(2):
        with throughput.waiting():
            clock.now += 0.5
        clock.now += 1.5
    assert throughput.read(1000) == {"train/tokens_per_second": 250.0, "train/data_wait_fraction": 0.25}
    clock.now += 1
    assert throughput.read(1100)["train/data_wait_fraction"] == 0.0


def test_waiting_before_a_pause_is_forgotten_with_it(clock):
    throughput = Throughput(flops_per_token=1.0, device=CPU)
    with throughput.waiting():
        clock.now += 1
    throughput.restart(0)
    clock.now += 1
    assert throughput.read(1)["train/data_wait_fraction"] == 0.0


def test_a_pause_that_was_not_training_does_not_count(clock):
    throughput = Throughput(flops_per_token=1.0, device=CPU)
    clock.now += 1
    throughput.read(1000)
    clock.now += 60  # validation
    throughput.restart(1000)
    clock.now += 2
    assert throughput.read(1600)[Throughput.SPEED] == 300.0


def test_a_resumed_run_starts_from_its_tokens(clock):
    throughput = Throughput(flops_per_token=1.0, device=CPU)
    throughput.restart(10**9)
    clock.now += 10
    assert throughput.read(10**9 + 500)[Throughput.SPEED] == 50.0


def test_two_readings_at_once_do_not_divide_by_zero(clock):
    throughput = Throughput(flops_per_token=1.0, device=CPU)
    assert throughput.read(0)[Throughput.SPEED] == 0.0
    assert throughput.read(5)[Throughput.SPEED] > 0


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H200", 989e12),
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA GeForce RTX 4090", 165e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA B200", 2250e12),
        ("NVIDIA GeForce GTX 1080", None),
    ],
)
def test_the_peak_goes_by_the_name_of_the_device(monkeypatch, name, peak):
    assert peak_flops(on(monkeypatch, name)) == peak


def test_a_cpu_has_no_known_peak():
    assert peak_flops(CPU) is None
    assert all(value > 1e14 for value in PEAK_BF16_FLOPS.values())


def test_mfu_is_the_fraction_of_the_peak(clock, monkeypatch):
    throughput = Throughput(flops_per_token=3e9, device=on(monkeypatch, "NVIDIA H200"))
    clock.now += 2
    metrics = throughput.read(200_000)
    assert metrics["train/tokens_per_second"] == 1e5
    assert metrics["train/mfu"] == pytest.approx(1e5 * 3e9 / 989e12)


def test_mfu_is_left_out_where_the_peak_is_not_known(clock, monkeypatch):
    throughput = Throughput(flops_per_token=3e9, device=on(monkeypatch, "NVIDIA GeForce GTX 1080"))
    clock.now += 2
    assert set(throughput.read(100)) == {Throughput.SPEED, Throughput.WAIT}


def test_mfu_is_of_all_devices_together(clock, monkeypatch):
    throughput = Throughput(flops_per_token=3e9, device=on(monkeypatch, "NVIDIA H200"), devices=8)
    clock.now += 2
    assert throughput.read(1_600_000)["train/mfu"] == pytest.approx(8e5 * 3e9 / (8 * 989e12))


HOLDS = """
import torch
from illada.track.throughput import peak_memory

cpu = torch.device("cpu")
before = peak_memory(cpu)
block = torch.ones(40_000_000)
print(before, peak_memory(cpu))
"""


def test_the_memory_of_a_cpu_process_is_what_it_has_held_and_not_its_parent():
    # in a process of its own, begun by one that has held more
    held = torch.ones(200_000_000)
    done = subprocess.run([sys.executable, "-c", HOLDS], capture_output=True, text=True, check=True, timeout=120)
    before, after = map(int, done.stdout.split())
    assert after - before > 0.5 * 40_000_000 * 4
    assert before > 50 * 2**20
    if sys.platform == "linux":
        assert before < 4 * held.numel() < peak_memory(CPU)
