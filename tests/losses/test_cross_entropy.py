import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from illada.losses.cross_entropy import weighted_cross_entropy

aten = torch.ops.aten
WIDTH, VOCAB = 12, 37
CHUNKS = [1, VOCAB, 3 * VOCAB - 1, 7 * VOCAB, 1 << 24]


def normal(*shape: int, seed: int, scale: float = 1.0) -> torch.Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Case:
    """Hidden states, a head, targets and weights: what `weighted_cross_entropy` takes."""

    def __init__(
        self, rows: int = 23, *, seed: int = 0, scale: float = 1.0, dtype: torch.dtype = torch.float32
    ) -> None:
        self.hidden = normal(rows, WIDTH, seed=seed, scale=scale).to(dtype).requires_grad_()
        self.head = normal(VOCAB, WIDTH, seed=seed + 100).to(dtype).requires_grad_()
        self.targets = torch.randint(0, VOCAB, (rows,), generator=torch.Generator().manual_seed(seed))
        self.weights = 1 / (0.05 + torch.rand(rows, generator=torch.Generator().manual_seed(seed)))

    def ours(self, **options: int) -> tuple[torch.Tensor, torch.Tensor]:
        return weighted_cross_entropy(self.hidden, self.head, self.targets, self.weights, **options)

    def naive(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Total and terms in float64, by torch's own cross-entropy on all logits at once."""
        logits = self.hidden.double() @ self.head.double().T
        terms = F.cross_entropy(logits, self.targets, reduction="none")
        return (terms * self.weights.double()).sum(), terms

    def gradients(self, total: torch.Tensor) -> list[torch.Tensor]:
        return list(torch.autograd.grad(total, [self.hidden, self.head]))


def assert_close(ours: torch.Tensor, expected: torch.Tensor, *, relative: float = 1e-5) -> None:
    """Equal to `relative` of the largest value."""
    scale = float(expected.detach().abs().max()) if expected.numel() else 1.0
    torch.testing.assert_close(ours.double(), expected.double(), atol=relative * scale, rtol=0)


# --- value and gradients ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk_logits", CHUNKS)
@pytest.mark.parametrize("rows", [1, 2, 23])
def test_value_and_gradients_equal_those_of_torch(rows, chunk_logits):
    case = Case(rows)
    total, terms = case.ours(chunk_logits=chunk_logits)
    expected_total, expected_terms = case.naive()
    assert_close(total, expected_total)
    assert_close(terms, expected_terms)
    for ours, expected in zip(case.gradients(total), case.gradients(expected_total), strict=True):
        assert_close(ours, expected)


@given(
    rows=st.integers(1, 12),
    chunk=st.integers(1, 500),
    seed=st.integers(0, 50),
    scale=st.sampled_from([0, 1e-3, 0.3, 5]),
)
@settings(max_examples=20)
def test_any_chunks_and_scales(rows, chunk, seed, scale):
    case = Case(rows, seed=seed, scale=scale)
    total, _ = case.ours(chunk_logits=chunk)
    expected, _ = case.naive()
    assert_close(total, expected)
    for ours, wanted in zip(case.gradients(total), case.gradients(expected), strict=True):
        assert_close(ours, wanted)


def test_the_gradient_is_the_slope_of_the_value():
    """Central differences of our own value, in float64 where it is kept: along random directions."""
    case = Case(6)
    gradients = case.gradients(case.ours()[0])
    for number, leaf in enumerate((case.hidden, case.head)):
        direction = normal(*leaf.shape, seed=50 + number)
        step = 1e-2
        with torch.no_grad():
            leaf.add_(step * direction)
            above = float(case.ours()[0])
            leaf.sub_(2 * step * direction)
            below = float(case.ours()[0])
            leaf.add_(step * direction)
        slope = float((gradients[number] * direction).sum())
        assert (above - below) / (2 * step) == pytest.approx(slope, rel=3e-3)


def test_the_incoming_gradient_scales_ours():
    case = Case()
    plain = case.gradients(case.ours()[0])
    scaled = case.gradients(-2.5 * case.ours()[0])
    for one, other in zip(plain, scaled, strict=True):
        assert_close(other, -2.5 * one)


def test_a_row_of_weight_zero_counts_nothing():
    case = Case(5)
    case.weights[2] = 0
    total, terms = case.ours()
    hidden, head = case.gradients(total)
    assert bool((hidden[2] == 0).all())
    assert float(terms[2]) > 0
    kept = torch.tensor([0, 1, 3, 4])
    fewer, _ = weighted_cross_entropy(case.hidden[kept], case.head, case.targets[kept], case.weights[kept])
    assert_close(total, fewer)
    assert_close(head, torch.autograd.grad(fewer, case.head)[0])


def test_equal_targets_add_up():
    """Several rows of one target, and of one hidden state, add their gradients and do not overwrite them."""
    case = Case(8)
    case.targets[:] = 5
    with torch.no_grad():
        case.hidden[:] = case.hidden[0]
    for ours, expected in zip(case.gradients(case.ours()[0]), case.gradients(case.naive()[0]), strict=True):
        assert_close(ours, expected)


def test_the_terms_carry_no_gradient():
    total, terms = Case().ours()
    assert total.requires_grad
    assert not terms.requires_grad


# --- nothing to do ------------------------------------------------------------------------------------------------


def test_no_rows_cost_nothing_and_give_zero_gradients():
    case = Case(0)
    total, terms = case.ours()
    assert float(total.detach()) == 0
    assert terms.shape == (0,)
    hidden, head = case.gradients(total)
    assert hidden.shape == (0, WIDTH)
    assert bool((head == 0).all())


@pytest.mark.parametrize(("hidden", "head"), [(True, False), (False, True)])
@pytest.mark.parametrize("chunk_logits", [VOCAB, 1 << 24])
def test_what_is_frozen_gets_no_gradient_and_the_rest_the_same(hidden, head, chunk_logits):
    case = Case()
    both = case.gradients(case.ours()[0])
    case.hidden.requires_grad_(hidden)
    case.head.requires_grad_(head)
    case.ours(chunk_logits=chunk_logits)[0].backward()
    assert (case.hidden.grad is not None, case.head.grad is not None) == (hidden, head)
    assert_close(case.hidden.grad if hidden else case.head.grad, both[0] if hidden else both[1])


class Products(TorchDispatchMode):
    """Counts matrix products by the multiplications in them."""

    multiplications = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket in (aten.mm, aten.matmul, aten.addmm, aten.addmm_):
            left, right = args[-2:]
            self.multiplications += left.shape[0] * left.shape[1] * right.shape[1]
        return func(*args, **(kwargs or {}))


def products(case: Case) -> float:
    """Matrix products in the forward pass, in units of one of rows x width x vocab."""
    with Products() as counter:
        case.ours(chunk_logits=5 * VOCAB)
    return counter.multiplications / (len(case.hidden) * WIDTH * VOCAB)


@pytest.mark.parametrize(("hidden", "head", "expected"), [(1, 1, 3), (1, 0, 2), (0, 1, 2), (0, 0, 1)])
def test_the_forward_makes_one_product_for_each_gradient(hidden, head, expected):
    case = Case()
    case.hidden.requires_grad_(bool(hidden))
    case.head.requires_grad_(bool(head))
    assert products(case) == expected


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_without_gradients_there_is_no_work_for_them(context):
    case = Case()
    expected = case.ours()
    with context():
        assert products(case) == 1
        total, terms = case.ours()
    assert not total.requires_grad
    assert torch.equal(total, expected[0].detach())
    assert torch.equal(terms, expected[1])


# --- numerics -----------------------------------------------------------------------------------------------------


def test_huge_logits_are_stable():
    case = Case(scale=1e4)
    total, terms = case.ours()
    assert float((case.hidden @ case.head.T).detach().abs().max()) > 1e4
    expected, expected_terms = case.naive()
    assert_close(terms, expected_terms)
    for ours, wanted in zip(case.gradients(total), case.gradients(expected), strict=True):
        assert bool(ours.isfinite().all())
        assert_close(ours, wanted)


def test_the_terms_of_a_certain_and_of_an_ignorant_model():
    head = torch.eye(4)
    hidden = torch.tensor([[0.0, 0, 0, 0], [60, 0, 0, 0], [60, 0, 0, 0]])
    _, terms = weighted_cross_entropy(hidden, head, torch.tensor([2, 0, 1]), torch.ones(3))
    assert terms.tolist() == pytest.approx([math.log(4), 0, 60], abs=1e-5)


def test_bf16_autocast_is_close():
    case = Case()
    expected, expected_terms = case.naive()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        total, terms = case.ours(chunk_logits=5 * VOCAB)
    assert (total.dtype, terms.dtype) == (torch.float32, torch.float32)
    assert_close(total, expected, relative=0.01)
    assert_close(terms, expected_terms, relative=0.01)
    for ours, wanted in zip(case.gradients(total), case.gradients(expected), strict=True):
        assert ours.dtype == torch.float32
        assert_close(ours, wanted, relative=0.02)


def test_bf16_tensors_sum_the_gradient_of_the_head_in_fp32():
    """One row per chunk or all at once: sums of bf16 would drift apart."""
    case = Case(200, dtype=torch.bfloat16)
    gradients = [case.gradients(case.ours(chunk_logits=chunk)[0]) for chunk in (1, 1 << 24)]
    assert gradients[0][1].dtype == torch.bfloat16
    wanted = case.gradients(case.naive()[0])
    for ours in gradients:
        assert_close(ours[0], wanted[0], relative=0.02)
        assert_close(ours[1], wanted[1], relative=0.01)


def test_a_second_backward_through_a_kept_graph_is_refused_and_not_wrong():
    """The gradient of the head is scaled where it lies: a copy of 155k x 4096 would cost 2.5 GB."""
    case = Case()
    total = 3 * case.ours()[0]
    torch.autograd.grad(total, [case.head], retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.grad(total, [case.head])


# --- focus --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("focus", [0.5, 1.0, 2.0])
def test_focus_is_the_formula_and_so_are_its_gradients(focus):
    """Against autograd through (1 - e^-u)^β u, written as it stands."""
    torch.manual_seed(0)
    hidden = torch.randn(11, 8, requires_grad=True)
    head = torch.randn(13, 8, requires_grad=True)
    targets, weights = torch.randint(0, 13, (11,)), torch.rand(11) + 0.5
    total, terms = weighted_cross_entropy(hidden, head, targets, weights, chunk_logits=40, focus=focus)
    grads = torch.autograd.grad(total, (hidden, head))
    plain = F.cross_entropy(hidden @ head.T, targets, reduction="none")
    naive = (weights * (1 - torch.exp(-plain)) ** focus * plain).sum()
    expected = torch.autograd.grad(naive, (hidden, head))
    torch.testing.assert_close(total, naive)
    torch.testing.assert_close(terms, plain.detach())
    for ours, theirs in zip(grads, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_without_focus_nothing_changes_to_the_last_bit():
    torch.manual_seed(1)
    hidden, head = torch.randn(5, 4), torch.randn(7, 4)
    targets, weights = torch.randint(0, 7, (5,)), torch.rand(5)
    plain = weighted_cross_entropy(hidden, head, targets, weights)
    assert torch.equal(plain[0], weighted_cross_entropy(hidden, head, targets, weights, focus=0.0)[0])


@pytest.mark.parametrize("focus", [0.5, 1.0])
def test_what_is_known_for_certain_has_no_gradient(focus):
    hidden = torch.tensor([[60.0, 0.0]], requires_grad=True)
    head = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    total, _ = weighted_cross_entropy(hidden, head, torch.tensor([0]), torch.ones(1), focus=focus)
    total.backward()
    assert float(total.detach()) == 0.0
    torch.testing.assert_close(hidden.grad, torch.zeros(1, 2), rtol=0, atol=1e-20)
