import math

import pytest
import torch

from illada.losses.diffusion import diffusion_loss

WIDTH, VOCAB = 12, 37


def normal(*shape: int, seed: int, scale: float = 1.0) -> torch.Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def assert_close(ours: torch.Tensor, expected: torch.Tensor, *, relative: float = 1e-5) -> None:
    """Equal to `relative` of the largest value."""
    scale = float(expected.detach().abs().max()) if expected.numel() else 1.0
    torch.testing.assert_close(ours.double(), expected.double(), atol=relative * scale, rtol=0)


def rows_of(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    t = torch.rand(4, 9, generator=generator) * 0.9 + 0.1
    return {
        "clean": torch.randint(0, VOCAB, (4, 9), generator=generator),
        "masked": torch.rand(4, 9, generator=generator) < t,
        "weight": 1 / t,
    }


def test_the_loss_is_the_sum_over_all_positions_written_out():
    rows, head = rows_of(), normal(VOCAB, WIDTH, seed=1)
    hidden = normal(4, 9, WIDTH, seed=0).requires_grad_()
    loss = diffusion_loss(hidden, head, **rows, normaliser=36)
    expected = torch.zeros((), dtype=torch.float64)
    for row in range(4):
        for place in range(9):
            log_probabilities = (hidden[row, place].double() @ head.double().T).log_softmax(0)
            term = -log_probabilities[rows["clean"][row, place]]
            expected = expected + rows["masked"][row, place] * rows["weight"][row, place].double() * term / 36
    assert_close(loss, expected)
    ours, wanted = torch.autograd.grad(loss, hidden)[0], torch.autograd.grad(expected, hidden)[0]
    assert_close(ours, wanted)
    assert bool((ours[~rows["masked"]] == 0).all())


def test_what_is_visible_is_never_read():
    """Neither the hidden state nor the weight of a visible position can reach the loss."""
    rows, head, hidden = rows_of(), normal(VOCAB, WIDTH, seed=1), normal(4, 9, WIDTH, seed=0)
    expected = diffusion_loss(hidden, head, **rows, normaliser=36)
    visible = ~rows["masked"]
    hidden[visible], rows["weight"][visible] = math.nan, math.inf
    rows["clean"][visible] = 10**6
    assert torch.equal(diffusion_loss(hidden, head, **rows, normaliser=36), expected)


def test_a_batch_without_masks_has_loss_zero_and_finite_gradients():
    rows = rows_of() | {"masked": torch.zeros(4, 9, dtype=torch.bool)}
    hidden, head = normal(4, 9, WIDTH, seed=0).requires_grad_(), normal(VOCAB, WIDTH, seed=1).requires_grad_()
    loss = diffusion_loss(hidden, head, **rows, normaliser=36)
    loss.backward()
    assert float(loss.detach()) == 0
    assert bool((hidden.grad == 0).all())
    assert bool((head.grad == 0).all())


@pytest.mark.parametrize("size", [1, 2, 3])
def test_the_parts_of_a_step_sum_to_the_whole(size):
    rows, head, hidden = rows_of(), normal(VOCAB, WIDTH, seed=1), normal(4, 9, WIDTH, seed=0)
    whole = diffusion_loss(hidden, head, **rows, normaliser=36)
    parts = sum(
        diffusion_loss(
            hidden[start : start + size],
            head,
            **{name: value[start : start + size] for name, value in rows.items()},
            normaliser=36,
        )
        for start in range(0, 4, size)
    )
    assert float(parts) == pytest.approx(float(whole), rel=1e-6)
