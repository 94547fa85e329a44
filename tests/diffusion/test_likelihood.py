import itertools
import math

import pytest
import torch

from illada.diffusion.likelihood import bound_by_count, bound_by_time, exact_bound
from illada.diffusion.schedule import CosineSchedule, LinearSchedule, PolynomialSchedule, loss_weight
from illada.seeding import Stream

MASK = 3
TEXT = torch.tensor([2, 0, 1, 1])
EVERYTHING = torch.ones(4, dtype=torch.bool)
QUADRATIC = PolynomialSchedule()


@pytest.fixture(scope="module")
def inconsistent(denoise):
    """Conditionals of no joint distribution that also waste probability on [MASK]."""
    return denoise.perturbed(seed=2, mask_logit=-1.0)


def bound(denoise, text=TEXT, target=EVERYTHING, *, batch_size=64):
    return exact_bound(denoise, text, target=target, mask_id=MASK, batch_size=batch_size)


def by_count(denoise, *, text=TEXT, target=EVERYTHING, samples=64, seed=0, index=0, batch_size=4096):
    return bound_by_count(
        denoise,
        text,
        target=target,
        mask_id=MASK,
        samples=samples,
        stream=Stream(seed, "likelihood"),
        index=index,
        batch_size=batch_size,
    )


def by_time(denoise, *, text=TEXT, target=EVERYTHING, schedule=QUADRATIC, samples=64, index=0, batch_size=4096):
    return bound_by_time(
        denoise,
        text,
        target=target,
        mask_id=MASK,
        schedule=schedule,
        samples=samples,
        stream=Stream(0, "likelihood"),
        index=index,
        batch_size=batch_size,
    )


def log_probability(denoise, canvas, position, token):
    return float(denoise(torch.tensor([canvas]))[0, position].log_softmax(dim=0)[token])


def order_log_probabilities(denoise, text, target):
    """log prod_k p(x^{o_k} | what came earlier), for each order in which the target can be revealed."""
    positions = [i for i in range(len(text)) if target[i]]
    totals = []
    for order in itertools.permutations(positions):
        canvas, total = [MASK if i in positions else text[i] for i in range(len(text))], 0.0
        for position in order:
            total += log_probability(denoise, canvas, position, text[position])
            canvas[position] = text[position]
        totals.append(total)
    return torch.tensor(totals, dtype=torch.float64)


def bound_by_quadrature(denoise, schedule, *, nodes=2000):
    """The integral over t of weight(t) E[sum over masked of log p], by the midpoint rule on t = v².

    The substitution spreads the nodes towards t = 0, where a schedule may be steep.
    """
    v = (torch.arange(nodes, dtype=torch.float64) + 0.5) / nodes
    t, jacobian = v**2, 2 * v
    alpha, weight = schedule.alpha(t), loss_weight(schedule, t)
    total = torch.zeros_like(t)
    for masked in itertools.product([False, True], repeat=4):
        canvas = [MASK if m else int(token) for m, token in zip(masked, TEXT, strict=True)]
        value = sum(log_probability(denoise, canvas, i, int(TEXT[i])) for i in range(4) if masked[i])
        total += weight * (1 - alpha) ** sum(masked) * alpha ** (4 - sum(masked)) * value
    return float((total * jacobian).mean())


# the exact bound


def test_the_exact_denoiser_gives_the_exact_log_probability(joint, denoise):
    for text in itertools.product(range(3), repeat=4):
        assert math.isclose(bound(denoise, torch.tensor(text)), float(joint[text].log()), abs_tol=1e-9)


def test_a_prompt_is_conditioned_on(joint, denoise):
    target = torch.tensor([False, True, False, True])
    given = joint[2, :, 1, :].sum()
    expected = float((joint[2, 0, 1, 1] / given).log())
    assert math.isclose(bound(denoise, target=target), expected, abs_tol=1e-9)


@pytest.mark.parametrize("target", [[1, 1, 1, 1], [0, 1, 1, 1], [1, 0, 0, 1], [0, 0, 1, 0]])
def test_the_bound_is_the_mean_log_probability_over_all_orders(inconsistent, target):
    target = torch.tensor(target, dtype=torch.bool)
    orders = order_log_probabilities(inconsistent, TEXT.tolist(), target.tolist())
    assert math.isclose(bound(inconsistent, target=target), float(orders.mean()), abs_tol=1e-9)


def test_the_bound_is_below_the_any_order_model_for_inconsistent_conditionals(denoise):
    noisy = denoise.perturbed(seed=4)
    for text in itertools.product(range(3), repeat=4):
        orders = order_log_probabilities(noisy, text, [True] * 4)
        any_order = float(orders.logsumexp(dim=0)) - math.log(len(orders))
        assert bound(noisy, torch.tensor(text)) < any_order - 1e-6  # strictly: the orders disagree


def test_the_bound_is_tight_for_independent_tokens(independent):
    joint, denoise = independent
    for text in itertools.product(range(3), repeat=3):
        value = bound(denoise, torch.tensor(text), torch.ones(3, dtype=torch.bool))
        assert math.isclose(value, float(joint[text].log()), abs_tol=1e-9)


def test_the_integral_over_time_is_the_exact_bound_for_every_schedule(inconsistent, schedule):
    assert math.isclose(bound_by_quadrature(inconsistent, schedule), bound(inconsistent), rel_tol=1e-5)


def test_probability_given_to_mask_is_lost(denoise):
    # with the logit log(c) beside probabilities that sum to 1, each of the 4 factors shrinks by 1 + c
    c = 0.25
    logits = denoise.logits.clone()
    logits[..., MASK] = math.log(c)
    wasteful = type(denoise)(logits)
    assert math.isclose(bound(wasteful), bound(denoise) - 4 * math.log(1 + c), abs_tol=1e-9)


@pytest.mark.parametrize("batch_size", [1, 4, 7, 15, 16])
def test_the_exact_bound_does_not_depend_on_the_batch_size(inconsistent, batch_size):
    assert math.isclose(bound(inconsistent, batch_size=batch_size), bound(inconsistent), abs_tol=1e-12)


def test_low_precision_logits_are_scored_in_float32(denoise):
    def coarse(tokens):
        return denoise(tokens).to(torch.bfloat16)

    def widened(tokens):
        return coarse(tokens).to(torch.float32)

    assert bound(coarse) == bound(widened)
    assert math.isclose(bound(coarse), bound(denoise), abs_tol=0.05)


# the estimators


@pytest.mark.parametrize("target", [[1, 1, 1, 1], [0, 1, 1, 1], [1, 0, 0, 1]])
def test_counting_is_unbiased(inconsistent, target):
    target = torch.tensor(target, dtype=torch.bool)
    estimate = by_count(inconsistent, target=target, samples=4096)
    assert abs(estimate.value - bound(inconsistent, target=target)) < 4 * estimate.standard_error
    assert estimate.standard_error < 0.1
    assert estimate.samples == 4096


def test_timing_is_unbiased_for_every_schedule(inconsistent, schedule):
    estimate = by_time(inconsistent, schedule=schedule, samples=4096)
    assert abs(estimate.value - bound(inconsistent)) < 4 * estimate.standard_error
    assert estimate.standard_error < 0.5


@pytest.mark.parametrize("estimator", [by_count, by_time])
@pytest.mark.parametrize("samples", [2, 5, 16])
def test_few_samples_are_unbiased_too_and_the_standard_error_is_honest(inconsistent, estimator, samples):
    estimates = [estimator(inconsistent, samples=samples, index=index) for index in range(300)]
    values = torch.tensor([estimate.value for estimate in estimates], dtype=torch.float64)
    claimed = torch.tensor([estimate.standard_error for estimate in estimates]).square().mean().sqrt()
    spread = values.std()
    assert abs(float(values.mean()) - bound(inconsistent)) < 4 * float(spread) / math.sqrt(300)
    assert 0.9 < float(claimed / spread) < 1.6


def test_stratification_leaves_less_spread_than_independent_draws(inconsistent):
    independent, stratified = [], []
    for index in range(60):
        stratified.append(by_count(inconsistent, samples=4, index=index).value)
        independent.append(
            sum(by_count(inconsistent, samples=1, index=1000 + 4 * index + k).value for k in range(4)) / 4
        )
    assert torch.tensor(stratified).std() < torch.tensor(independent).std()


@pytest.mark.parametrize("estimator", [by_count, by_time])
def test_an_estimate_is_a_function_of_its_address(inconsistent, estimator):
    reference = estimator(inconsistent, samples=20)
    for batch_size in (1, 3, 20):
        estimate = estimator(inconsistent, samples=20, batch_size=batch_size)
        assert math.isclose(estimate.value, reference.value, abs_tol=1e-12)
        assert math.isclose(estimate.standard_error, reference.standard_error, abs_tol=1e-12)
    assert estimator(inconsistent, samples=20, index=1).value != reference.value


def test_the_noise_of_a_target_does_not_depend_on_its_prompt(independent):
    # independent tokens: the prompt changes neither the conditionals nor, so, the estimate
    _, denoise = independent
    target = torch.tensor([False, True, True])
    first, second = (by_count(denoise, text=torch.tensor([x, 2, 1]), target=target, samples=7) for x in (0, 2))
    assert math.isclose(first.value, second.value, abs_tol=1e-12)
    assert math.isclose(first.standard_error, second.standard_error, abs_tol=1e-12)


def test_batches_are_no_larger_than_asked_and_the_prompt_stays_visible(denoise):
    seen = []

    def spy(tokens):
        seen.append(tokens)
        return denoise(tokens)

    target = torch.tensor([False, True, True, True])
    by_count(spy, target=target, samples=10, batch_size=4)
    assert [len(tokens) for tokens in seen] == [4, 4, 2]
    rows = torch.cat(seen)
    assert torch.all(rows[:, 0] == TEXT[0])
    masks = (rows == MASK).sum(dim=1)
    assert int(masks.min()) >= 1
    assert masks.bincount(minlength=4)[1:].tolist() in ([3, 3, 4], [3, 4, 3], [4, 3, 3])


def test_one_sample_is_exact_for_one_position_and_of_unknown_error_for_more(joint, denoise):
    target = torch.tensor([False, False, True, False])
    estimate = by_count(denoise, target=target, samples=1)
    expected = float((joint[2, 0, 1, 1] / joint[2, 0, :, 1].sum()).log())
    assert math.isclose(estimate.value, expected, abs_tol=1e-12)
    assert estimate.standard_error == 0
    assert by_count(denoise, samples=1).standard_error == math.inf
    assert by_time(denoise, target=target, samples=1).standard_error == math.inf


def test_standard_error_of_two_samples_is_the_textbook_one(inconsistent):
    # sqrt(s² / 2) with s² = (a - b)² / 2
    values = []

    def spy(tokens):
        logits = inconsistent(tokens)
        masked = tokens[0] == MASK
        log_p = logits[0].log_softmax(dim=-1).gather(1, TEXT[:, None])[:, 0]
        values.append(float(4 / masked.sum() * log_p[masked].sum()))
        return logits

    estimate = by_count(spy, samples=2, batch_size=1)
    assert math.isclose(estimate.value, sum(values) / 2, rel_tol=1e-6)
    assert math.isclose(estimate.standard_error, abs(values[0] - values[1]) / 2, rel_tol=1e-5)


@pytest.mark.parametrize("schedule", [LinearSchedule(), CosineSchedule()])
def test_a_steep_weight_without_any_mask_counts_as_zero(inconsistent, schedule):
    # many strata reach times so small that nothing is masked and the weight is huge
    estimate = by_time(inconsistent, schedule=schedule, samples=5000, index=3)
    assert math.isfinite(estimate.value)
    assert math.isfinite(estimate.standard_error)


def test_no_gradient_is_recorded(denoise):
    logits = denoise.logits.clone().requires_grad_()
    recorded = []

    def model(tokens):
        result = type(denoise)(logits)(tokens)
        recorded.append(result.requires_grad)
        return result

    by_count(model, samples=2)
    assert recorded == [False]


# bad input


def test_a_target_too_long_to_enumerate_is_refused_with_both_numbers(denoise):
    text = torch.zeros(17, dtype=torch.int64)
    with pytest.raises(ValueError, match="at most 16 target positions, not 17"):
        bound(denoise, text, torch.ones(17, dtype=torch.bool))


def test_an_empty_target_is_refused(denoise):
    for estimator in (by_count, by_time):
        with pytest.raises(ValueError, match="no position of the 4 tokens is marked as target"):
            estimator(denoise, target=~EVERYTHING)
    with pytest.raises(ValueError, match="nothing to score"):
        bound(denoise, target=~EVERYTHING)


def test_a_mask_in_the_target_is_refused(denoise):
    with pytest.raises(ValueError, match=r"1 of the 4 target tokens are \[MASK\] \(3\)"):
        by_count(denoise, text=torch.tensor([2, MASK, 1, 1]))


@pytest.mark.parametrize(
    ("option", "message"), [("samples", "at least 1 sample, not 0"), ("batch_size", "at least 1, not 0")]
)
def test_samples_and_batch_size_start_at_one(denoise, option, message):
    for estimator in (by_count, by_time):
        with pytest.raises(ValueError, match=message):
            estimator(denoise, **{option: 0})
