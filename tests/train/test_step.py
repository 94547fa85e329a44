"""In which precision a step computes."""

import contextlib

import pytest
import torch

from illada.train.step import autocast, compute_dtype

CPU = torch.device("cpu")


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", None), ("bf16", torch.bfloat16)])
@pytest.mark.parametrize("device", ["cpu", "cuda", "meta"])
def test_a_precision_that_is_named_is_taken(precision, dtype, device):
    assert compute_dtype(precision, torch.device(device)) is dtype


@pytest.mark.parametrize(("avx", "amx", "dtype"), [(False, False, None), (True, False, "bf16"), (False, True, "bf16")])
def test_auto_asks_the_cpu(monkeypatch, avx, amx, dtype):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    assert compute_dtype("auto", CPU) is (torch.bfloat16 if dtype else None)
    assert compute_dtype("auto", torch.device("meta")) is None


@pytest.mark.parametrize("there", [True, False])
def test_auto_asks_the_gpu_for_bf16_that_is_not_emulated(monkeypatch, there):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: there and not including_emulation)
    assert compute_dtype("auto", torch.device("cuda")) is (torch.bfloat16 if there else None)


def test_fp32_leaves_autocast_off():
    assert isinstance(autocast("fp32", CPU), contextlib.nullcontext)
    with autocast("bf16", CPU):
        assert torch.is_autocast_enabled("cpu")
