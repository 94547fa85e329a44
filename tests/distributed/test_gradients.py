import math

import pytest
import torch
from torch import nn

from illada.distributed.gradients import by_mesh, clip_gradients


def model_with_gradients(scale=1.0):
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 3, bias=False))
    for parameter in model.parameters():
        parameter.grad = scale * torch.randn(parameter.shape, generator=generator)
    return model


@pytest.mark.parametrize("limit", [0.1, 1.0, 100.0])
def test_one_process_clips_as_torch_does(limit):
    ours, theirs = model_with_gradients(), model_with_gradients()
    expected = torch.nn.utils.clip_grad_norm_(theirs.parameters(), limit)
    assert torch.equal(clip_gradients(ours, limit), expected)
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(one.grad, other.grad)


def test_without_a_limit_the_norm_is_told_and_nothing_changed():
    model, before = model_with_gradients(), model_with_gradients()
    total = math.sqrt(sum(float(p.grad.double().square().sum()) for p in before.parameters()))
    assert float(clip_gradients(model, None)) == pytest.approx(total, rel=1e-6)
    assert all(torch.equal(a.grad, b.grad) for a, b in zip(model.parameters(), before.parameters(), strict=True))


def test_parameters_without_a_gradient_are_passed_over():
    model = model_with_gradients()
    model[0].bias.grad = None
    expected = math.sqrt(sum(float(p.grad.square().sum()) for p in model.parameters() if p.grad is not None))
    assert float(clip_gradients(model, 1e-3)) == pytest.approx(expected, rel=1e-6)


def test_what_is_not_divided_is_one_group():
    tensors = [torch.ones(2), torch.ones(3)]
    assert [len(group) for group in by_mesh(tensors)] == [2]
