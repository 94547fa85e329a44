import sys

import pytest
import torch

from illada.distributed.float8 import use_float8
from illada.distributed.mesh import alone
from illada.distributed.sharding import Layout, distribute
from illada.model.config import ModelConfig
from illada.model.transformer import Transformer, initialize

CPU, GPU = torch.device("cpu"), torch.device("cuda")
CONFIG = ModelConfig(vocab_size=30, hidden_size=32, layers=1, heads=2, kv_heads=1, ffn_size=40, max_length=16)


def new_model():
    model = Transformer(CONFIG)
    initialize(model, seed=0)
    return model


def test_without_it_nothing_changes():
    model = new_model()
    use_float8(model, "none", device=CPU)
    assert {type(module).__name__ for module in model.modules() if isinstance(module, torch.nn.Linear)} == {"Linear"}


def test_a_device_without_it_is_refused():
    with pytest.raises(ValueError, match="fp8 needs a GPU, and the device is cpu: leave --fp8 out"):
        distribute(new_model(), alone(CPU), Layout(float8="rowwise"))


def test_a_gpu_that_is_too_old_is_refused_with_both_numbers(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    with pytest.raises(ValueError, match=r"compute capability 8\.9, and this one has 8\.0"):
        use_float8(new_model(), "tensorwise", device=GPU)


def test_without_the_library_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchao.float8", None)
    with pytest.raises(ImportError, match=r"fp8 needs an extra: pip install 'illada\[fp8\]'"):
        use_float8(new_model(), "rowwise", device=CPU, emulate=True)


@pytest.mark.parametrize("recipe", ["tensorwise", "rowwise"])
def test_emulated_it_comes_close_and_has_gradients(recipe):
    pytest.importorskip("torchao.float8", reason="torchao is not installed")
    plain, model = new_model(), new_model()
    use_float8(model, recipe, device=CPU, emulate=True)
    tokens = torch.arange(16)[None]
    expected, got = plain(tokens), model(tokens)
    assert not torch.equal(got, expected)
    torch.testing.assert_close(got, expected, rtol=0, atol=0.05 * float(expected.detach().abs().max()))
    for one in (expected, got):
        one.square().sum().backward()
    # a side of 40 is no multiple of 16: these matrices stay as they are
    kinds = {name: type(module).__name__ for name, module in model.named_modules() if "_proj" in name}
    assert {name for name, kind in kinds.items() if kind == "Linear"} == {
        f"blocks.0.mlp.{name}_proj" for name in ("gate", "up", "down")
    }
    for name, parameter in model.named_parameters():
        gradient, reference = parameter.grad, plain.get_parameter(name).grad
        assert float((gradient - reference).norm() / reference.norm()) < 0.1, name
