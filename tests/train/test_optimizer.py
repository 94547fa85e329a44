"""AdamW and the moving average against loops over single numbers, in float64."""

import math

import pytest
import safetensors.torch
import torch

from illada.model.config import ModelConfig
from illada.model.transformer import Transformer, initialize
from illada.train.optimizer import (
    AdamWConfig,
    WeightAverage,
    begin_moments,
    build_optimizer,
    optimizer_tensors,
)

CONFIG = ModelConfig(vocab_size=12, hidden_size=8, layers=1, heads=2, kv_heads=1, ffn_size=12, max_length=8)
ADAMW = AdamWConfig(beta1=0.8, beta2=0.9, eps=1e-6, weight_decay=0.3)
RATES = (0.01, 0.02, 0.005, 0.03, 0.01, 0.002)


def new_model(seed=0):
    model = Transformer(CONFIG)
    initialize(model, seed=seed)
    return model


def gradients(model, step):
    generator = torch.Generator().manual_seed(step)
    return {
        name: torch.randn(parameter.shape, generator=generator) * 10.0 ** (step % 3 - 2)
        for name, parameter in model.named_parameters()
    }


def take_step(model, optimizer, step):
    for name, gradient in gradients(model, step).items():
        model.get_parameter(name).grad = gradient
    for group in optimizer.param_groups:
        group["lr"] = RATES[step]
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def adamw_by_hand(weight, history, *, decay):
    """One number's way through the steps, from the equations of arXiv 1711.05101, algorithm 2."""
    mean = square = 0.0
    for number, (gradient, rate) in enumerate(zip(history, RATES, strict=False), start=1):
        mean = ADAMW.beta1 * mean + (1 - ADAMW.beta1) * gradient
        square = ADAMW.beta2 * square + (1 - ADAMW.beta2) * gradient**2
        unbiased_mean = mean / (1 - ADAMW.beta1**number)
        unbiased_square = square / (1 - ADAMW.beta2**number)
        weight = weight - rate * (unbiased_mean / (math.sqrt(unbiased_square) + ADAMW.eps) + decay * weight)
    return weight


# --- AdamW --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 2, 6])
def test_every_weight_goes_the_way_of_the_equations(steps):
    model = new_model()
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimizer = build_optimizer(model, ADAMW)
    for step in range(steps):
        take_step(model, optimizer, step)
    for name, parameter in model.named_parameters():
        decay = ADAMW.weight_decay if parameter.dim() == 2 else 0.0
        for where in range(0, parameter.numel(), max(1, parameter.numel() // 7)):
            history = [float(gradients(model, step)[name].flatten()[where]) for step in range(steps)]
            expected = adamw_by_hand(float(before[name].flatten()[where]), history, decay=decay)
            assert float(parameter.detach().flatten()[where]) == pytest.approx(expected, abs=2e-6), name


def test_only_matrices_decay():
    model = new_model()
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimizer = build_optimizer(model, ADAMW)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    for group in optimizer.param_groups:
        group["lr"] = 0.1
    optimizer.step()
    factors = {name: float((model.get_parameter(name).detach() / before[name]).mean()) for name in before}
    assert {name for name, factor in factors.items() if factor == 1.0} == {
        "blocks.0.attention_norm.weight",
        "blocks.0.mlp_norm.weight",
        "norm.weight",
    }
    assert all(factor in (1.0, pytest.approx(1 - 0.1 * 0.3)) for factor in factors.values())


def test_every_parameter_is_optimized_once():
    model = Transformer(ModelConfig(**(vars(CONFIG) | {"tied_head": False})))
    groups = build_optimizer(model, ADAMW).param_groups
    found = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(found) == sorted(id(parameter) for parameter in model.parameters())


def test_the_defaults_are_the_papers_decay_and_our_betas():
    group = build_optimizer(new_model(), AdamWConfig()).param_groups[0]
    assert (group["weight_decay"], group["betas"], group["eps"]) == (0.1, (0.9, 0.95), 1e-8)
    assert AdamWConfig().clip_norm == 1.0


def test_without_a_rate_from_the_loop_nothing_moves():
    model = new_model()
    before = model.embedding.weight.detach().clone()
    optimizer = build_optimizer(model, ADAMW)
    for name, gradient in gradients(model, 0).items():
        model.get_parameter(name).grad = gradient
    optimizer.step()
    assert torch.equal(model.embedding.weight, before)


# --- saving and loading -------------------------------------------------------------------------------------------


def test_tensors_are_named_after_their_parameters():
    model = new_model()
    optimizer = build_optimizer(model, ADAMW)
    assert optimizer_tensors(model, optimizer) == {}
    take_step(model, optimizer, 0)
    tensors = optimizer_tensors(model, optimizer)
    assert set(tensors) == {
        f"{name}/{key}" for name, _ in model.named_parameters() for key in ("step", "exp_avg", "exp_avg_sq")
    }
    gradient = gradients(model, 0)["blocks.0.mlp.up_proj.weight"]
    torch.testing.assert_close(tensors["blocks.0.mlp.up_proj.weight/exp_avg"], gradient * (1 - ADAMW.beta1))


@pytest.mark.parametrize("pause", [1, 3])
def test_a_pause_changes_no_bit(pause, tmp_path):
    whole = new_model()
    optimizer = build_optimizer(whole, ADAMW)
    for step in range(6):
        take_step(whole, optimizer, step)

    first = new_model()
    begun = build_optimizer(first, ADAMW)
    for step in range(pause):
        take_step(first, begun, step)
    safetensors.torch.save_file(optimizer_tensors(first, begun), tmp_path / "optimizer.safetensors")

    second = new_model(seed=1)
    second.load_state_dict(first.state_dict())
    resumed = build_optimizer(second, ADAMW)
    begin_moments(resumed)
    saved = safetensors.torch.load_file(tmp_path / "optimizer.safetensors")
    for key, tensor in optimizer_tensors(second, resumed).items():
        tensor.copy_(saved[key])
    for step in range(pause, 6):
        take_step(second, resumed, step)

    for name, parameter in whole.named_parameters():
        assert torch.equal(second.get_parameter(name), parameter), name
    expected, got = optimizer_tensors(whole, optimizer), optimizer_tensors(second, resumed)
    assert expected.keys() == got.keys()
    assert all(torch.equal(expected[key], got[key]) for key in expected)


def test_moments_that_are_there_from_the_beginning_change_no_bit():
    lazy, eager = new_model(), new_model()
    optimizers = [build_optimizer(model, ADAMW) for model in (lazy, eager)]
    begin_moments(optimizers[1])
    assert set(optimizer_tensors(eager, optimizers[1])) == {
        f"{name}/{key}" for name, _ in eager.named_parameters() for key in ("step", "exp_avg", "exp_avg_sq")
    }
    for step in range(3):
        take_step(lazy, optimizers[0], step)
        take_step(eager, optimizers[1], step)
    assert all(torch.equal(eager.get_parameter(name), parameter) for name, parameter in lazy.named_parameters())


def test_moments_that_are_there_stay():
    model = new_model()
    optimizer = build_optimizer(model, ADAMW)
    take_step(model, optimizer, 0)
    before = {key: tensor.clone() for key, tensor in optimizer_tensors(model, optimizer).items()}
    begin_moments(optimizer)
    after = optimizer_tensors(model, optimizer)
    assert all(torch.equal(after[key], tensor) for key, tensor in before.items())


# --- moving average -----------------------------------------------------------------------------------------------


def test_the_average_is_the_recursion_number_by_number():
    model = new_model()
    optimizer = build_optimizer(model, ADAMW)
    average = WeightAverage(model, decay=0.75)
    by_hand = {name: parameter.detach().double().clone() for name, parameter in model.named_parameters()}
    for step in range(6):
        take_step(model, optimizer, step)
        average.update(model)
        for name, parameter in model.named_parameters():
            by_hand[name] = 0.75 * by_hand[name] + 0.25 * parameter.detach().double()
    assert average.tensors.keys() == by_hand.keys()
    for name, expected in by_hand.items():
        torch.testing.assert_close(average.tensors[name].double(), expected, rtol=0, atol=1e-6)


def test_the_average_starts_at_the_weights_and_is_a_copy():
    model = new_model()
    average = WeightAverage(model, decay=0.9)
    before = model.norm.weight.detach().clone()
    with torch.no_grad():
        model.norm.weight.add_(1)
    assert torch.equal(average.tensors["norm.weight"], before)


def test_the_average_is_fp32_whatever_the_weights_are():
    model = new_model().bfloat16()
    average = WeightAverage(model, decay=0.999)
    with torch.no_grad():
        model.norm.weight.add_(0.5)
    for _ in range(3):
        average.update(model)
    # a step of 0.0005 is below the resolution of bf16 at 1
    assert average.tensors["norm.weight"].dtype == torch.float32
    assert float(average.tensors["norm.weight"][0]) == pytest.approx(1.5 - 0.5 * 0.999**3, rel=1e-6)


def test_a_loaded_average_goes_on_like_the_first():
    model = new_model()
    first = WeightAverage(model, decay=0.6)
    second = WeightAverage(new_model(seed=3), decay=0.6)
    for name, tensor in second.tensors.items():
        tensor.copy_(first.tensors[name])
    optimizer = build_optimizer(model, ADAMW)
    take_step(model, optimizer, 0)
    for average in (first, second):
        average.update(model)
    assert all(torch.equal(first.tensors[name], second.tensors[name]) for name in first.tensors)


@pytest.mark.parametrize("decay", [0.0, 1.0, -0.5, 1.5])
def test_a_decay_that_averages_nothing_is_refused(decay):
    with pytest.raises(ValueError, match=f"must lie between 0 and 1, got {decay}"):
        WeightAverage(new_model(), decay=decay)
