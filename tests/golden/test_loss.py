"""Loss, cross-entropies and gradients equal those of the authors' code."""

import pytest
import torch

from illada.losses.cross_entropy import weighted_cross_entropy
from illada.losses.diffusion import diffusion_loss


def weights_of(data, name):
    masked = data[f"{name}.masked"].bool()
    return masked, (1 / data[f"{name}.p_mask"])[:, None].expand(masked.shape)


@pytest.fixture
def case(name, load, expected):
    model = load(name)
    model.zero_grad()
    return model, expected("loss.safetensors"), expected("loss.json")[name]


@pytest.mark.parametrize("chunk_logits", [1 << 24, 512 * 5])
def test_loss_and_gradients(name, case, name_of, chunk_logits):
    model, data, numbers = case
    masked, weight = weights_of(data, name)
    loss = diffusion_loss(
        model(data[f"{name}.noisy_ids"]),
        model.head_weight,
        clean=data[f"{name}.clean_ids"],
        masked=masked,
        weight=weight,
        normaliser=masked.numel(),
        chunk_logits=chunk_logits,
    )
    assert float(loss.detach()) == pytest.approx(numbers["loss"], abs=3e-5)
    loss.backward()
    parameters = dict(model.named_parameters())
    for published, norm in numbers["grad_norms"].items():
        assert float(parameters[name_of(published)].grad.norm()) == pytest.approx(norm, rel=1e-4)
    total = torch.nn.utils.get_total_norm([parameter.grad for parameter in model.parameters()])
    assert float(total) == pytest.approx(numbers["grad_norm_total"], rel=1e-4)


def test_cross_entropy_at_every_position(name, case):
    model, data, _ = case
    clean = data[f"{name}.clean_ids"]
    with torch.inference_mode():
        hidden = model(data[f"{name}.noisy_ids"]).flatten(0, 1)
        _, terms = weighted_cross_entropy(hidden, model.head_weight, clean.flatten(), torch.ones(clean.numel()))
    torch.testing.assert_close(terms.view_as(clean), data[f"{name}.token_ce"], atol=2e-4, rtol=0.0)


def test_fine_tuning_loss(name, case):
    """The same function with the prompt visible: weights 1 / (p * answer length), divided by the rows."""
    model, data, numbers = case
    masked, weight = weights_of(data, name)
    clean = data[f"{name}.clean_ids"]
    prompt = torch.tensor(numbers["prompt_lengths"])[:, None]
    masked = masked & (torch.arange(clean.shape[1]) >= prompt)
    with torch.inference_mode():
        loss = diffusion_loss(
            model(torch.where(masked, data[f"{name}.noisy_ids"], clean)),
            model.head_weight,
            clean=clean,
            masked=masked,
            weight=weight / (clean.shape[1] - prompt),
            normaliser=len(clean),
        )
    assert float(loss) == pytest.approx(numbers["sft_loss"], abs=3e-5)
