"""The next-token loss against torch's cross-entropy on all logits at once, and against a loop over positions."""

import math

import pytest
import torch
import torch.nn.functional as F

from illada.losses.next_token import next_token_loss, next_token_nats, predicting

WIDTH, VOCAB = 12, 37
CHUNKS = [1, VOCAB, 5 * VOCAB - 1, 1 << 24]

SEGMENTS = torch.tensor(
    [
        [0, 0, 0, 0, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 1, 1, 1, 1, 1],
        [0, 1, 1, 2, 2, 2, -1, -1, -1],
        [-1, -1, 0, 0, 0, 1, -1, -1, -1],
        [-1, -1, -1, -1, -1, -1, -1, -1, -1],
    ]
)


def normal(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def rows() -> dict[str, torch.Tensor]:
    return {
        "hidden": normal(*SEGMENTS.shape, WIDTH, seed=0).requires_grad_(),
        "head_weight": normal(VOCAB, WIDTH, seed=1).requires_grad_(),
        "tokens": torch.randint(0, VOCAB, SEGMENTS.shape, generator=torch.Generator().manual_seed(2)),
    }


def places(segments: torch.Tensor, learnt: torch.Tensor | None = None) -> list[tuple[int, int]]:
    """Where a token is predicted, position by position."""
    return [
        (row, place)
        for row in range(len(segments))
        for place in range(segments.shape[1] - 1)
        if segments[row, place + 1] != -1
        and segments[row, place] == segments[row, place + 1]
        and (learnt is None or learnt[row, place + 1])
    ]


def plain(hidden: torch.Tensor, head_weight: torch.Tensor, tokens: torch.Tensor, learnt=None) -> torch.Tensor:
    """The sum in float64: logits everywhere, targets shifted by one, and -100 where there is none."""
    targets = torch.full_like(tokens, -100)
    for row, place in places(SEGMENTS, learnt):
        targets[row, place] = tokens[row, place + 1]
    logits = hidden.double() @ head_weight.double().T
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-100, reduction="sum")


def assert_close(ours: torch.Tensor, expected: torch.Tensor) -> None:
    scale = float(expected.detach().abs().max())
    torch.testing.assert_close(ours.double(), expected.double(), atol=1e-5 * scale, rtol=0)


# --- which positions ----------------------------------------------------------------------------------------------


def test_nothing_is_predicted_across_a_border_nor_padding():
    where = predicting(SEGMENTS)
    assert where.nonzero().tolist() == [list(place) for place in places(SEGMENTS)]
    assert where.sum(1).tolist() == [8, 7, 3, 2, 0]


def test_only_what_is_learnt_is_predicted():
    learnt = torch.rand(SEGMENTS.shape, generator=torch.Generator().manual_seed(3)) < 0.5
    where = predicting(SEGMENTS, learnt)
    assert where.nonzero().tolist() == [list(place) for place in places(SEGMENTS, learnt)]
    assert 0 < int(where.sum()) < int(predicting(SEGMENTS).sum())


def test_a_row_of_one_token_predicts_nothing():
    assert predicting(torch.zeros(3, 1, dtype=torch.int64)).tolist() == [[False]] * 3


# --- value and gradients ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk_logits", CHUNKS)
@pytest.mark.parametrize("part", [None, 0.4])
def test_value_and_gradients_equal_those_of_torch(part, chunk_logits):
    given = rows()
    learnt = None if part is None else torch.rand(SEGMENTS.shape, generator=torch.Generator().manual_seed(4)) < part
    where = predicting(SEGMENTS, learnt)
    ours = next_token_loss(**given, where=where, normaliser=13, chunk_logits=chunk_logits)
    expected = plain(**given, learnt=learnt) / 13
    assert_close(ours, expected)
    leaves = [given["hidden"], given["head_weight"]]
    for one, other in zip(torch.autograd.grad(ours, leaves), torch.autograd.grad(expected, leaves), strict=True):
        assert_close(one, other)


def test_the_terms_are_those_of_the_sum_row_by_row():
    given, where = rows(), predicting(SEGMENTS)
    nats = next_token_nats(**given, where=where)
    log_probability = (given["hidden"] @ given["head_weight"].T).detach().double().log_softmax(-1)
    expected = [-float(log_probability[r, p, given["tokens"][r, p + 1]]) for r, p in places(SEGMENTS)]
    assert nats.tolist() == pytest.approx(expected, rel=1e-5)
    assert not nats.requires_grad


def test_a_hidden_state_that_predicts_nothing_is_never_read():
    given, where = rows(), predicting(SEGMENTS)
    expected = next_token_loss(**given, where=where, normaliser=1)
    with torch.no_grad():
        given["hidden"][~where] = math.nan
    assert torch.equal(next_token_loss(**given, where=where, normaliser=1), expected)


def test_a_model_that_knows_nothing_loses_log_vocab():
    given, where = rows(), predicting(SEGMENTS)
    given["head_weight"] = torch.zeros(VOCAB, WIDTH)
    loss = next_token_loss(**given, where=where, normaliser=int(where.sum()))
    assert float(loss.detach()) == pytest.approx(math.log(VOCAB), rel=1e-6)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_the_parts_of_a_step_sum_to_the_whole(size):
    given, where = rows(), predicting(SEGMENTS)
    whole = next_token_loss(**given, where=where, normaliser=20)
    parts = [
        next_token_loss(
            given["hidden"][start : start + size],
            given["head_weight"],
            tokens=given["tokens"][start : start + size],
            where=where[start : start + size],
            normaliser=20,
        )
        for start in range(0, len(where), size)
    ]
    assert sum(float(part.detach()) for part in parts) == pytest.approx(float(whole.detach()), rel=1e-6)


def test_nothing_to_predict_is_loss_zero_with_finite_gradients():
    given = rows()
    loss = next_token_loss(**given, where=torch.zeros_like(SEGMENTS, dtype=torch.bool), normaliser=1)
    loss.backward()
    assert float(loss.detach()) == 0
    assert bool((given["hidden"].grad == 0).all())
    assert bool((given["head_weight"].grad == 0).all())
