import cmath
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from illada.model.rotary import rotary_angles, rotate


def by_complex_numbers(states: torch.Tensor, positions: list[list[int]], theta: float) -> torch.Tensor:
    """Coordinates k and k + half as one complex number, turned by e^(i position theta^(-2k/size)), in float64."""
    batch, heads, length, size = states.shape
    result = torch.empty(states.shape, dtype=torch.float64)
    for row in range(batch):
        for place in range(length):
            for k in range(size // 2):
                turn = cmath.exp(1j * positions[row][place] * theta ** (-2 * k / size))
                for head in range(heads):
                    state = states[row, head, place]
                    turned = complex(float(state[k]), float(state[k + size // 2])) * turn
                    result[row, head, place, k] = turned.real
                    result[row, head, place, k + size // 2] = turned.imag
    return result


@pytest.mark.parametrize(("size", "theta"), [(2, 10_000.0), (8, 10_000.0), (16, 500_000.0)])
def test_rotation_is_that_of_complex_numbers(size, theta):
    states = torch.randn(2, 3, 5, size, generator=torch.Generator().manual_seed(0))
    positions = [[0, 1, 2, 3, 4], [0, 1, 0, 1, 2]]
    turned = rotate(states, rotary_angles(torch.tensor(positions), size, theta))
    expected = by_complex_numbers(states, positions, theta)
    torch.testing.assert_close(turned.double(), expected, atol=2e-6, rtol=0)


def test_one_row_of_positions_serves_all_rows():
    states = torch.randn(3, 2, 4, 8, generator=torch.Generator().manual_seed(0))
    one = rotate(states, rotary_angles(torch.arange(4)[None], 8, 10_000.0))
    each = rotate(states, rotary_angles(torch.arange(4)[None].repeat(3, 1), 8, 10_000.0))
    assert torch.equal(one, each)


def test_position_zero_does_not_turn():
    states = torch.randn(1, 2, 1, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(rotate(states, rotary_angles(torch.zeros(1, 1, dtype=torch.int64), 8, 10_000.0)), states)


def score(query: torch.Tensor, key: torch.Tensor, here: int, there: int) -> float:
    """q · k of one pair of positions."""
    angles = rotary_angles(torch.tensor([[here, there]]), query.numel(), 10_000.0)
    turned = rotate(torch.stack((query, key))[None, None], angles)[0, 0].double()
    return float(turned[0] @ turned[1])


@given(here=st.integers(0, 500), there=st.integers(0, 500), shift=st.integers(0, 500), seed=st.integers(0, 99))
@settings(max_examples=40)
def test_a_score_depends_on_the_distance_alone(here, there, shift, seed):
    query, key = torch.randn(2, 16, generator=torch.Generator().manual_seed(seed))
    moved = score(query, key, here + shift, there + shift)
    assert moved == pytest.approx(score(query, key, here, there), abs=2e-3)


def test_a_score_does_depend_on_the_distance():
    query, key = torch.randn(2, 16, generator=torch.Generator().manual_seed(0))
    assert abs(score(query, key, 0, 3) - score(query, key, 3, 0)) > 0.1


def test_the_length_of_a_vector_stays():
    states = torch.randn(1, 1, 300, 32, generator=torch.Generator().manual_seed(0))
    turned = rotate(states, rotary_angles(torch.arange(300)[None], 32, 10_000.0))
    torch.testing.assert_close(turned.norm(dim=-1), states.norm(dim=-1))


def test_angles_stay_in_fp32_and_states_in_their_own_type():
    angles = rotary_angles(torch.tensor([[8191]]), 128, 500_000.0)
    assert {part.dtype for part in angles} == {torch.float32}
    # the fastest pair turns by the position itself; bf16 positions would be off by radians
    assert float(angles[0][0, 0, 0, 0]) == pytest.approx(math.cos(8191), abs=1e-5)
    states = torch.randn(1, 1, 1, 128, generator=torch.Generator().manual_seed(0)).bfloat16()
    turned = rotate(states, angles)
    assert turned.dtype == torch.bfloat16
    # turned in fp32 and rounded once
    assert torch.equal(turned, rotate(states.float(), angles).bfloat16())
