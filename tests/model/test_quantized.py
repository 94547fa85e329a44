"""Packed matrices against what they stand for, worked out here from their definition."""

import sys

import pytest
import torch
from torch import nn

from illada.model.quantized import FrozenLinear, check_bits, quantize, reserve

pytest.importorskip("torchao", reason="the extra quant is not installed")


def weight_of(outputs: int, inputs: int, dtype=torch.float32, seed: int = 0) -> torch.Tensor:
    """Rows of very different size: one scale for all of them would not do."""
    noise = torch.randn(outputs, inputs, generator=torch.Generator().manual_seed(seed))
    return (noise * torch.linspace(0.01, 3, outputs)[:, None]).to(dtype)


def packed(weight: torch.Tensor, bits: str) -> FrozenLinear:
    layer = FrozenLinear(weight.shape[1], weight.shape[0], bias=False, bits=bits)
    layer.hold(weight)
    return layer


# --- what is held -------------------------------------------------------------------------------------------------


def test_int8_rounds_each_row_to_a_grid_of_its_own():
    weight = weight_of(24, 40)
    held = packed(weight, "int8").unpacked()
    step = weight.abs().amax(1, keepdim=True) / 127.5
    on_grid = held / step
    torch.testing.assert_close(on_grid, on_grid.round(), rtol=0, atol=1e-3)
    # the largest value of a row lies half a step outside of the grid
    assert bool(((held - weight).abs() <= step * 0.501).all())


@pytest.mark.parametrize(("inputs", "group"), [(128, 64), (96, 32)])
def test_int4_rounds_each_group_of_inputs_to_sixteen_levels(inputs, group):
    weight = weight_of(32, inputs)
    held = packed(weight, "int4").unpacked()
    for row, was in zip(held.reshape(-1, group), weight.view(-1, group), strict=True):
        step = (was.max() - was.min()) / 15
        levels = (row - row.min()) / step
        torch.testing.assert_close(levels, levels.round(), rtol=0, atol=2e-3)
        assert len(levels.round().unique()) <= 16
        assert float((row - was).abs().max()) <= float(step) * 0.502


@pytest.mark.parametrize(("outputs", "inputs"), [(32, 40), (24, 64)])
def test_what_the_kernel_of_int4_cannot_take_is_held_in_int8(outputs, inputs):
    weight = weight_of(outputs, inputs)
    assert torch.equal(packed(weight, "int4").unpacked(), packed(weight, "int8").unpacked())


def bytes_of(layer: FrozenLinear) -> int:
    names, _ = layer.weight.__tensor_flatten__()
    parts = (getattr(layer.weight, name) for name in names)
    return sum(part.numel() * part.element_size() for part in parts if part is not None)


def test_the_bytes_are_those_that_the_documentation_gives():
    weight = weight_of(256, 1024, torch.bfloat16)
    whole = weight.numel() * 2
    assert bytes_of(packed(weight, "int8")) == pytest.approx(whole / 2, rel=0.01)
    assert bytes_of(packed(weight, "int4")) == pytest.approx(whole * (1 / 4 + 1 / 32), rel=0.001)


# --- what is computed ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", ["int8", "int4"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_products_and_gradients_are_those_of_the_unpacked_matrix(bits, dtype, tolerance):
    layer = packed(weight_of(48, 64, dtype), bits)
    x = torch.randn(3, 5, 64, generator=torch.Generator().manual_seed(1)).to(dtype).requires_grad_()
    matrix = layer.unpacked().double()
    y = layer(x)
    assert y.dtype == dtype
    pull = torch.randn(y.shape, generator=torch.Generator().manual_seed(2)).to(dtype)
    y.backward(pull)
    expected, gradient = x.detach().double() @ matrix.T, pull.double() @ matrix
    assert float((y.detach().double() - expected).norm() / expected.norm()) < tolerance
    assert float((x.grad.double() - gradient).norm() / gradient.norm()) < tolerance
    assert layer.weight.grad is None


def test_a_bias_is_added():
    layer = FrozenLinear(64, 16, bias=True, bits="int8")
    layer.hold(weight_of(16, 64))
    nn.init.constant_(layer.bias, 3.0)
    x = torch.ones(1, 64)
    torch.testing.assert_close(layer(x), x @ layer.unpacked().T + 3)


@pytest.mark.parametrize("bits", ["int8", "int4"])
def test_nothing_unpacked_is_kept_for_the_backward_pass(bits):
    layer = packed(weight_of(256, 256), bits)
    kept: list[int] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor.numel() if tensor.is_floating_point() and type(tensor) is torch.Tensor else 0)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        layer(torch.ones(2, 256, requires_grad=True)).sum().backward()
    assert kept
    assert max(kept) < 256 * 256


@pytest.mark.parametrize("bits", ["int8", "int4"])
def test_autocast_changes_nothing(bits):
    layer = packed(weight_of(32, 64), bits)
    x = torch.randn(4, 64, generator=torch.Generator().manual_seed(3))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = layer(x)
    assert torch.equal(inside, layer(x))


# --- a whole model ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tied_head", [True, False])
@pytest.mark.parametrize("bits", ["int8", "int4"])
def test_only_the_matrices_of_the_blocks_are_packed(small, bits, tied_head):
    model = small(hidden_size=64, ffn_size=96, tied_head=tied_head, qkv_bias=True)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    quantize(model, bits)
    after = dict(model.named_parameters())
    assert before.keys() == after.keys()
    matrices = {name for name in before if name.startswith("blocks.") and name.endswith("_proj.weight")}
    assert len(matrices) == 2 * 7
    for name, value in before.items():
        assert after[name].shape == value.shape
        assert not after[name].requires_grad
        if name in matrices:
            assert isinstance(model.get_submodule(name.removesuffix(".weight")), FrozenLinear)
        else:
            assert torch.equal(after[name], value)


def test_a_quantised_model_computes_what_its_unpacked_matrices_say(small, transformer_by_hand):
    model = small(hidden_size=64, ffn_size=96)
    plain = small(hidden_size=64, ffn_size=96)
    quantize(model, "int4")
    for name, layer in model.named_modules():
        if isinstance(layer, FrozenLinear):
            plain.get_submodule(name).weight.data.copy_(layer.unpacked())
    tokens = torch.arange(20)
    by_hand = transformer_by_hand(plain, tokens)
    torch.testing.assert_close(model(tokens[None])[0].double(), by_hand, rtol=0, atol=5e-5)


def test_places_can_be_kept_on_the_meta_device_until_their_matrices_come(small):
    with torch.device("meta"):
        model = small(hidden_size=64, ffn_size=96)
        reserve(model, "int8")
    model = model.to_empty(device="cpu")
    layer = model.get_submodule("blocks.1.mlp.up_proj")
    assert layer.weight.numel() == 0
    layer.hold(weight_of(96, 64))
    assert layer(torch.ones(1, 64)).shape == (1, 96)


# --- asked for wrongly --------------------------------------------------------------------------------------------


def test_other_bits_are_refused():
    check_bits(None)
    check_bits("int4")
    with pytest.raises(ValueError, match="quantize must be one of int8, int4; got 'int2'"):
        check_bits("int2")


def test_without_the_library_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchao", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'illada\[quant\]'"):
        packed(weight_of(16, 64), "int8")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("bits", ["int8", "int4"])
def test_a_gpu_computes_what_its_unpacked_matrices_say(bits):
    layer = FrozenLinear(1024, 256, bias=False, bits=bits).cuda()
    weight = weight_of(256, 1024, torch.bfloat16).cuda()
    layer.hold(weight)
    x = torch.randn(8, 1024, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    matrix = layer.unpacked().float()
    assert float((matrix - weight.float()).norm() / weight.float().norm()) < 0.1
    y = layer(x)
    y.sum().backward()
    torch.testing.assert_close(y.float(), x.float() @ matrix.T, rtol=0.05, atol=1.0)
    assert x.grad.shape == x.shape
