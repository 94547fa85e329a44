import math

import pytest
import torch

from illada.diffusion.schedule import (
    CosineSchedule,
    LinearSchedule,
    PolynomialSchedule,
    Schedule,
    loss_weight,
)

TIMES = torch.linspace(0.001, 1, 400, dtype=torch.float64)


def test_every_schedule_is_a_schedule(schedule):
    assert isinstance(schedule, Schedule)


def test_alpha_falls_from_one_to_zero(schedule):
    ends = schedule.alpha(torch.tensor([0.0, 1.0], dtype=torch.float64))
    assert ends.tolist() == [1.0, 0.0]
    assert torch.all(schedule.alpha(TIMES).diff() < 0)


def test_closed_forms():
    t = 0.3
    at = torch.tensor(t, dtype=torch.float64)
    assert math.isclose(LinearSchedule().alpha(at), 0.7)
    assert math.isclose(CosineSchedule().alpha(at), 1 - math.cos(math.pi / 2 * (1 - t)))
    assert math.isclose(PolynomialSchedule(power=3.0).alpha(at), 1 - t**3)


def test_alpha_prime_is_the_derivative_of_alpha(schedule):
    t = TIMES.clone().requires_grad_()
    (slope,) = torch.autograd.grad(schedule.alpha(t).sum(), t)
    torch.testing.assert_close(schedule.alpha_prime(TIMES), slope, rtol=1e-12, atol=1e-12)


def test_time_inverts_alpha(schedule):
    # away from the ends, where the cosine is flat and digits are lost in alpha itself
    t = torch.linspace(0.01, 0.95, 100, dtype=torch.float64).reshape(10, 10)
    torch.testing.assert_close(schedule.time(schedule.alpha(t)), t, rtol=1e-9, atol=1e-12)


def test_linear_weight_is_one_over_t_to_the_last_digit_of_float32():
    t = torch.linspace(0.001, 1, 1000)
    torch.testing.assert_close(loss_weight(LinearSchedule(), t), 1 / t, rtol=1e-7, atol=0)


def test_weight_is_minus_the_derivative_of_log_masking(schedule):
    t = TIMES.clone().requires_grad_()
    (slope,) = torch.autograd.grad((1 - schedule.alpha(t)).log().sum(), t)
    torch.testing.assert_close(loss_weight(schedule, TIMES), slope, rtol=1e-9, atol=1e-12)


def test_shape_and_dtype_are_kept(schedule):
    for dtype in (torch.float32, torch.float64):
        t = torch.full((2, 3), 0.5, dtype=dtype)
        for result in (schedule.alpha(t), schedule.alpha_prime(t), schedule.time(t), loss_weight(schedule, t)):
            assert (result.shape, result.dtype) == (t.shape, dtype)


def test_quadratic_schedule_has_the_second_moment_that_its_docstring_gives():
    # E[weight² 1(masked)] = integral of alpha'² / (1 - alpha), by the midpoint rule
    midpoints = (torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000
    for power in (2.0, 3.0):
        schedule = PolynomialSchedule(power=power)
        integral = (schedule.alpha_prime(midpoints) ** 2 / (1 - schedule.alpha(midpoints))).mean()
        assert math.isclose(float(integral), power**2 / (power - 1), rel_tol=1e-6)


@pytest.mark.parametrize("power", [0.0, -1.0, math.nan])
def test_a_power_that_is_not_positive_is_refused_with_its_value(power):
    with pytest.raises(ValueError, match=f"above 0, not {power}"):
        PolynomialSchedule(power=power)
