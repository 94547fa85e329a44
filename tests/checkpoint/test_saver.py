"""Checkpoints written beside the work, by one process; several are tested in tests/distributed."""

import threading
import time

import pytest
import torch

import illada.checkpoint.saver as saver_module
from illada.checkpoint.native import Particulars, checkpoint_path, list_checkpoints, load_checkpoint
from illada.checkpoint.saver import Saver
from illada.data.tokenizer import Tokenizer
from illada.model.config import ModelConfig

PARTICULARS = Particulars(
    model_config=ModelConfig(vocab_size=265),
    tokenizer=Tokenizer.train(["a text to learn merges from, a text"] * 3, 265),
    state={"step": 1},
)


def tensors():
    return {"model": {"w": torch.arange(6.0)}, "optimizer": {"w/exp_avg": torch.ones(6), "w/step": torch.tensor(1.0)}}


@pytest.fixture
def saver(tmp_path):
    saver = Saver(tmp_path, keep_last=2, keep_every=30)
    yield saver
    saver.close()


@pytest.fixture
def gate(monkeypatch):
    """Holds the thread before it writes, until it is opened."""
    opened = threading.Event()
    write = saver_module.save_checkpoint

    def held(*args, **options):
        assert opened.wait(20)
        write(*args, **options)

    monkeypatch.setattr(saver_module, "save_checkpoint", held)
    return opened


def test_the_work_goes_on_while_a_checkpoint_is_written(saver, gate, tmp_path):
    ours = tensors()
    saver.save(10, ours, PARTICULARS)
    assert list_checkpoints(tmp_path) == []
    for named in ours.values():  # the next step, while the thread still waits
        for tensor in named.values():
            tensor.zero_()
    gate.set()
    saver.wait()
    saved = load_checkpoint(checkpoint_path(tmp_path, 10), with_optimizer=True)
    assert torch.equal(saved.weights["w"], torch.arange(6.0))
    assert torch.equal(saved.optimizer["w/exp_avg"], torch.ones(6))
    assert saved.optimizer["w/step"] == 1


def test_one_is_written_at_a_time(saver, gate, tmp_path):
    saver.save(10, tensors(), PARTICULARS)
    threading.Timer(0.2, gate.set).start()
    began = time.monotonic()
    saver.save(20, tensors(), PARTICULARS)  # waits for the first
    assert time.monotonic() - began > 0.15
    saver.wait()
    assert [step for step, _ in list_checkpoints(tmp_path)] == [10, 20]


def test_asked_to_wait_it_returns_when_the_checkpoint_is_there(saver, tmp_path):
    saver.save(10, tensors(), PARTICULARS, wait=True)
    assert [step for step, _ in list_checkpoints(tmp_path)] == [10]


def test_in_the_foreground_it_is_there_at_once(tmp_path):
    saver = Saver(tmp_path, keep_last=1, background=False)
    saver.save(10, tensors(), PARTICULARS)
    assert [step for step, _ in list_checkpoints(tmp_path)] == [10]
    saver.close()


def test_old_ones_are_deleted_but_for_every_so_many(saver, tmp_path):
    for step in (10, 20, 30, 40, 50, 60, 70):
        saver.save(step, tensors(), PARTICULARS)
    saver.wait()
    assert [step for step, _ in list_checkpoints(tmp_path)] == [30, 60, 70]


def test_what_goes_wrong_is_told_when_it_is_asked_for(saver, monkeypatch, tmp_path):
    def full(*args, **options):
        raise OSError(28, "No space left on device")

    assert not saver.failed
    with monkeypatch.context() as patch:
        patch.setattr(saver_module, "save_checkpoint", full)
        saver.save(10, tensors(), PARTICULARS)
        deadline = time.monotonic() + 20
        while not saver.failed:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        with pytest.raises(OSError, match="No space left"):
            saver.wait()
    assert not saver.failed  # told once
    saver.save(20, tensors(), PARTICULARS, wait=True)
    assert [step for step, _ in list_checkpoints(tmp_path)] == [20]


def test_the_next_one_tells_of_the_failure_of_the_one_before(saver, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(saver_module, "save_checkpoint", lambda *args, **options: (_ for _ in ()).throw(OSError("full")))
        saver.save(10, tensors(), PARTICULARS)
        with pytest.raises(OSError, match="full"):
            saver.save(20, tensors(), PARTICULARS)


def test_it_tells_how_long_it_took_once(saver):
    saver.save(10, tensors(), PARTICULARS, wait=True)
    told = saver.timings()
    assert set(told) == {"checkpoint/blocked_seconds", "checkpoint/write_seconds"}
    assert told["checkpoint/blocked_seconds"] >= told["checkpoint/write_seconds"] > 0
    assert saver.timings() == {}


def test_memory_for_copies_can_be_taken_before(saver, tmp_path):
    ours = tensors()
    saver.prepare(ours)
    ours["model"]["w"].add_(1)
    saver.save(10, ours, PARTICULARS, wait=True)
    assert torch.equal(load_checkpoint(checkpoint_path(tmp_path, 10)).weights["w"], torch.arange(6.0) + 1)


def test_a_large_state_holds_the_work_up_for_less_than_a_tenth_of_its_writing(tmp_path):
    """Best of a few: how busy the machine is decides nothing about how the two compare."""
    large = {"model": {"w": torch.randn(8_000_000)}, "optimizer": {"a": torch.randn(16_000_000)}}
    saver = Saver(tmp_path, keep_last=1)
    saver.prepare(large)
    shares = []
    for step in range(1, 5):
        saver.save(step, large, PARTICULARS)
        saver.wait()
        told = saver.timings()
        shares.append(told["checkpoint/blocked_seconds"] / told["checkpoint/write_seconds"])
    saver.close()
    assert min(shares) < 0.1, shares
