"""The exact denoiser of conftest.py is the ruler of this folder: here it is measured itself."""

import itertools
import math

import torch

MASK = 3


def test_conditionals_equal_ratios_of_marginals(joint, denoise):
    # p(x^2 = c | x^0 = 1, x^3 = 2), written out as sums over the two hidden positions
    canvas = torch.tensor([[1, MASK, MASK, 2]])
    probabilities = denoise(canvas)[0, 2].softmax(dim=0)
    total = sum(float(joint[1, b, c, 2]) for b, c in itertools.product(range(3), repeat=2))
    for c in range(3):
        expected = sum(float(joint[1, b, c, 2]) for b in range(3)) / total
        assert math.isclose(float(probabilities[c]), expected, rel_tol=1e-12)
    assert probabilities[MASK] == 0


def test_visible_positions_are_certain(denoise):
    canvas = torch.tensor([[1, MASK, 0, 2]])
    probabilities = denoise(canvas)[0].softmax(dim=-1)
    assert [int(probabilities[i].argmax()) for i in (0, 2, 3)] == [1, 0, 2]
    assert torch.all(probabilities[[0, 2, 3]].amax(dim=-1) == 1)


def test_chain_rule_gives_the_joint_in_every_order(joint, denoise):
    text = (2, 0, 1, 1)
    for order in itertools.permutations(range(4)):
        canvas, total = [MASK] * 4, 0.0
        for position in order:
            total += float(denoise(torch.tensor([canvas]))[0, position].log_softmax(dim=0)[text[position]])
            canvas[position] = text[position]
        assert math.isclose(total, math.log(float(joint[text])), rel_tol=1e-12)


def test_perturbed_conditionals_belong_to_no_joint(denoise):
    noisy = denoise.perturbed(seed=1)
    text = (2, 0, 1, 1)
    totals = set()
    for order in ((0, 1, 2, 3), (3, 2, 1, 0)):
        canvas, total = [MASK] * 4, 0.0
        for position in order:
            total += float(noisy(torch.tensor([canvas]))[0, position].log_softmax(dim=0)[text[position]])
            canvas[position] = text[position]
        totals.add(round(total, 6))
    assert len(totals) == 2
