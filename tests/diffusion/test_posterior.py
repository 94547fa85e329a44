import itertools

import pytest
import torch
import torch.nn.functional as F

from illada.diffusion.corruption import absorb
from illada.diffusion.posterior import posterior, reveal_probability, reverse_step
from illada.seeding import Stream

MASK, VOCAB = 3, 4
TRIPLES = [(0.1, 0.4, 0.9), (0.25, 0.3, 1.0), (0.02, 0.5, 0.51)]


def time(value):
    return torch.tensor(value, dtype=torch.float64)


def one_hot(tokens):
    return F.one_hot(tokens, VOCAB).double()


def kernel(schedule, s, t):
    """q(x_t | x_s) of one token, [from, to]: it survives with alpha_t / alpha_s, and [MASK] is absorbing."""
    survive = float(schedule.alpha(time(t)) / schedule.alpha(time(s)))
    matrix = survive * torch.eye(VOCAB, dtype=torch.float64)
    matrix[:, MASK] += 1 - survive
    return matrix


def forward_law(schedule, t, *, grid=4000):
    """q(x_t | x_0), [from, to], from `absorb` itself: its noise runs over an even grid. Exact up to 1/(2 grid)."""
    clean = torch.arange(MASK)[:, None].expand(-1, grid)
    uniform = ((torch.arange(grid, dtype=torch.float64) + 0.5) / grid).expand(MASK, -1)
    masking = (1 - schedule.alpha(time(t))).expand(MASK, grid)
    noisy, _ = absorb(clean, masking, uniform=uniform, mask_id=MASK)
    return one_hot(noisy).mean(dim=1)


def posterior_law(schedule, s, t, clean):
    """q(x_s | x_t, x_0 = clean), [x_t, x_s], from `posterior`."""
    noisy = torch.arange(VOCAB)[None]
    predicted = one_hot(torch.full((1, VOCAB), clean))
    return posterior(noisy, predicted, s=time(s), t=time(t), schedule=schedule, mask_id=MASK)[0]


@pytest.mark.parametrize(("r", "s", "t"), TRIPLES)
def test_chapman_kolmogorov(schedule, r, s, t):
    torch.testing.assert_close(
        kernel(schedule, r, s) @ kernel(schedule, s, t), kernel(schedule, r, t), rtol=0, atol=1e-14
    )


@pytest.mark.parametrize(("_", "s", "t"), TRIPLES)
def test_corrupting_further_gives_the_marginal_that_absorb_has(schedule, _, s, t):
    torch.testing.assert_close(
        forward_law(schedule, s) @ kernel(schedule, s, t), forward_law(schedule, t), rtol=0, atol=3e-4
    )
    torch.testing.assert_close(forward_law(schedule, t), kernel(schedule, 0, t)[:MASK], rtol=0, atol=0.5 / 4000 + 1e-12)


@pytest.mark.parametrize(("_", "s", "t"), TRIPLES)
@pytest.mark.parametrize("clean", range(MASK))
def test_posterior_is_bayes_rule(schedule, _, s, t, clean):
    prior, likelihood = kernel(schedule, 0, s)[clean], kernel(schedule, s, t)
    for noisy in (clean, MASK):
        product = prior * likelihood[:, noisy]
        if product.sum() == 0:  # at t = 1 nothing is visible
            continue
        torch.testing.assert_close(
            posterior_law(schedule, s, t, clean)[noisy], product / product.sum(), rtol=0, atol=1e-14
        )


@pytest.mark.parametrize(("_", "s", "t"), TRIPLES)
@pytest.mark.parametrize("clean", range(MASK))
def test_posterior_averaged_over_x_t_is_the_marginal_of_x_s(schedule, _, s, t, clean):
    average = kernel(schedule, 0, t)[clean] @ posterior_law(schedule, s, t, clean)
    torch.testing.assert_close(average, kernel(schedule, 0, s)[clean], rtol=0, atol=1e-14)


def test_all_masks_are_revealed_at_time_zero(schedule):
    for dtype in (torch.float32, torch.float64):
        t = torch.linspace(0.001, 1, 50, dtype=dtype)
        assert torch.all(reveal_probability(schedule, torch.zeros_like(t), t) == 1)


def test_a_chain_of_posteriors_ends_in_the_distribution_predicted(schedule):
    # one token: from [MASK] through three reverse steps, as a product of transition matrices
    p = torch.tensor([0.5, 0.2, 0.3, 0.0], dtype=torch.float64)
    state = one_hot(torch.tensor(MASK))
    for t, s in itertools.pairwise([1.0, 0.6, 0.3, 0.0]):
        step = posterior(
            torch.arange(VOCAB)[None],
            p.expand(1, VOCAB, -1),
            s=time(s),
            t=time(t),
            schedule=schedule,
            mask_id=MASK,
        )[0]
        state = state @ step
    torch.testing.assert_close(state, p, rtol=0, atol=1e-14)


def test_reverse_step_has_the_law_of_the_posterior(schedule):
    s, t, grid = time(0.35), time(0.8), 4000
    uniform = ((torch.arange(grid, dtype=torch.float64) + 0.5) / grid)[None]
    for noisy, clean in ((MASK, 1), (2, 2)):
        result = reverse_step(
            torch.full((1, grid), noisy),
            torch.full((1, grid), clean),
            s=s,
            t=t,
            schedule=schedule,
            uniform=uniform,
            mask_id=MASK,
        )
        expected = posterior_law(schedule, 0.35, 0.8, clean)[noisy]
        torch.testing.assert_close(one_hot(result)[0].mean(dim=0), expected, rtol=0, atol=0.5 / grid + 1e-12)


def test_visible_tokens_never_change_and_masks_become_the_prediction_or_stay(schedule):
    noisy = torch.tensor([[0, MASK, 2, MASK], [MASK, MASK, 1, 1]]).repeat(1, 50)
    predicted = torch.full_like(noisy, 2)
    uniform = Stream(0, "reverse").uniform(torch.arange(2), 200)
    t, s = torch.tensor([0.9, 0.5]), torch.tensor([0.5, 0.1])
    result = reverse_step(noisy, predicted, s=s, t=t, schedule=schedule, uniform=uniform, mask_id=MASK)
    visible = noisy != MASK
    assert torch.equal(result[visible], noisy[visible])
    assert set(result[~visible].tolist()) == {2, MASK}


def test_one_time_per_row_equals_each_row_alone(schedule):
    noisy = torch.tensor([[0, MASK, 2], [MASK, MASK, 1]])
    predicted = torch.tensor([[0, 1, 2], [2, 0, 1]])
    uniform = torch.tensor([[0.3, 0.4, 0.1], [0.7, 0.2, 0.9]])
    s, t = torch.tensor([0.2, 0.6]), torch.tensor([0.5, 0.9])
    distribution = torch.rand(2, 3, VOCAB).softmax(dim=-1)
    options = {"schedule": schedule, "mask_id": MASK}
    tokens = reverse_step(noisy, predicted, s=s, t=t, uniform=uniform, **options)
    laws = posterior(noisy, distribution, s=s, t=t, **options)
    for row in range(2):
        one = slice(row, row + 1)
        alone = reverse_step(noisy[one], predicted[one], s=s[row], t=t[row], uniform=uniform[one], **options)
        assert torch.equal(alone[0], tokens[row])
        law = posterior(noisy[one], distribution[one], s=s[row], t=t[row], **options)
        torch.testing.assert_close(law[0], laws[row])


def test_reverse_process_of_independent_tokens_draws_the_joint(independent, schedule):
    # 3 tokens, 4 steps, tokens drawn from the exact denoiser: the law of the texts is the table
    joint, denoise = independent
    draws, steps = 4000, [1.0, 0.7, 0.4, 0.15, 0.0]
    x = torch.full((draws, 3), MASK)
    for number, (t, s) in enumerate(itertools.pairwise(steps)):
        reveal = Stream(number, "reveal").uniform(torch.arange(draws), 3)
        choice = Stream(number, "choice").uniform64(torch.arange(draws), 3)
        predicted = (denoise(x).softmax(dim=-1).cumsum(dim=-1) <= choice[..., None]).sum(dim=-1).clamp(max=2)
        x = reverse_step(x, predicted, s=time(s), t=time(t), schedule=schedule, uniform=reveal, mask_id=MASK)
    observed = (x * torch.tensor([9, 3, 1])).sum(dim=1).bincount(minlength=27)
    expected = joint.flatten() * draws
    chi_square = float(((observed - expected) ** 2 / expected).sum())
    assert chi_square < 54.1  # the 99.9 % point at 26 degrees of freedom
