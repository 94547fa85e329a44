"""A saved model becomes a Transformer: any dtype to any dtype, sharded or whole, and never twice in memory."""

import subprocess
import sys

import pytest
import safetensors.torch
import torch

from illada.checkpoint import stored
from illada.checkpoint.saved import SavedModel, build, check_shapes, fill, parameter_shapes, stored_values
from illada.checkpoint.stored import tensors_in
from illada.data.tokenizer import Tokenizer
from illada.model.config import ModelConfig
from illada.model.transformer import Transformer, initialize

CONFIG = ModelConfig(vocab_size=270, hidden_size=16, layers=2, heads=2, kv_heads=1, ffn_size=24, tied_head=False)


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train(["the fox"], 263)


@pytest.fixture
def saved(tmp_path, tokenizer, request):
    model = Transformer(CONFIG)
    initialize(model, seed=1)
    weights = {name: value.to(getattr(request, "param", torch.float32)) for name, value in model.state_dict().items()}
    safetensors.torch.save_file(weights, tmp_path / "x.safetensors")
    return SavedModel(
        folder=tmp_path, model_config=CONFIG, tensors=tensors_in(tmp_path / "x.safetensors"), tokenizer=tokenizer
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("saved", [torch.float32, torch.bfloat16, torch.float16], indirect=True)
def test_any_dtype_becomes_any_dtype(saved, dtype, monkeypatch):
    monkeypatch.setattr(stored, "_PIECE", 1000)  # several pieces for a tensor
    model = build(saved, device=torch.device("cpu"), dtype=dtype)
    assert not model.training
    for name, parameter in model.named_parameters():
        assert parameter.dtype == dtype
        assert torch.equal(parameter, saved.tensors[name].read().to(dtype))


@pytest.mark.parametrize("saved", [torch.bfloat16, torch.float32], indirect=True)
def test_training_goes_on_from_the_values_in_fp32(saved):
    value = stored_values(saved)
    for name, tensor in saved.tensors.items():
        got = value(name, torch.Size(tensor.shape))
        assert got.dtype == torch.float32
        assert torch.equal(got, tensor.read().float())


def test_a_shard_reads_its_own_rows_alone(saved):
    """Two processes, each with half of the rows of every parameter."""
    with torch.device("meta"):
        model = Transformer(CONFIG)
    halves = {0: {}, 1: {}}
    for rank, half in halves.items():

        def place(name, parameter, tensor, rank=rank, half=half):
            middle = len(parameter) // 2
            half[name] = tensor.rows(0, middle) if rank == 0 else tensor.rows(middle, len(parameter))

        fill(model, saved.tensors, place=place)
    whole = build(saved, device=torch.device("cpu"), dtype=torch.float32)
    for name, parameter in whole.named_parameters():
        assert torch.equal(torch.cat((halves[0][name], halves[1][name])), parameter)


def test_shapes_are_those_of_the_model():
    shapes = parameter_shapes(CONFIG)
    assert shapes == {name: tuple(value.shape) for name, value in Transformer(CONFIG).named_parameters()}


def test_every_difference_is_named(tmp_path):
    expected = {"a": (2,), "b": (3, 4), "c": (5,)}
    check_shapes(dict(expected), expected, source=tmp_path)
    with pytest.raises(
        ValueError, match=r"a is missing; x is not part of the model; b is \[4, 3\] and should be \[3, 4"
    ):
        check_shapes({"b": (4, 3), "c": (5,), "x": (1,)}, expected, source=tmp_path)
    with pytest.raises(ValueError, match=r"a is missing; b is missing; c is missing \(and 2 more\)$"):
        check_shapes({"x": (1,), "y": (1,)}, expected, source=tmp_path)


PROGRAM = """
import sys
from pathlib import Path
import torch
from illada.checkpoint import stored
from illada.checkpoint.saved import SavedModel, build, parameter_shapes
from illada.checkpoint.stored import tensors_in
from illada.model.config import ModelConfig

def peak():
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) << 10

stored._PIECE = 1 << 23
config = ModelConfig(vocab_size=40_000, hidden_size=512, layers=4, heads=8, kv_heads=8, ffn_size=2048)
saved = SavedModel(folder=Path(), model_config=config, tensors=tensors_in(Path(sys.argv[1])), tokenizer=None)
parameter_shapes(config)  # torch has loaded what the meta device needs
before = peak()
model = build(saved, device=torch.device("cpu"), dtype=torch.float32)
print(before, peak())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the peak of the memory from /proc")
def test_the_peak_is_the_weights_and_a_piece(tmp_path):
    config = ModelConfig(vocab_size=40_000, hidden_size=512, layers=4, heads=8, kv_heads=8, ffn_size=2048)
    weights = {name: torch.zeros(shape) for name, shape in parameter_shapes(config).items()}
    size = sum(tensor.numel() * 4 for tensor in weights.values())
    safetensors.torch.save_file(weights, tmp_path / "x.safetensors")
    del weights
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "x.safetensors")], capture_output=True, text=True, check=True
    )
    before, after = map(int, done.stdout.split())
    assert size > 140e6
    # twice the weights where the file is read whole, or left mapped
    assert size * 0.9 < after - before < size + 32e6
