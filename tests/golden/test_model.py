"""Logits and hidden states equal those of the authors' code."""

import pytest
import torch

LOGITS = {"atol": 3e-4, "rtol": 0.0}
HIDDEN = {"atol": 1e-4, "rtol": 0.0}


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.inference_mode():
        yield


@pytest.mark.parametrize("length", [1, 7, 64])
def test_logits(name, length, load, expected):
    data, model = expected(f"{name}_logits.safetensors"), load(name)
    logits = model.logits(model(data[f"len{length}.input_ids"]))
    torch.testing.assert_close(logits, data[f"len{length}.logits"], **LOGITS)


def test_logits_at_the_full_context(name, load, expected):
    data, model = expected(f"{name}_logits.safetensors"), load(name)
    logits = model.logits(model(data["len256.input_ids"]))
    torch.testing.assert_close(logits[:, data["len256.positions"].flatten()], data["len256.logits"], **LOGITS)
    torch.testing.assert_close(logits.logsumexp(-1), data["len256.logsumexp"], **HIDDEN)
    assert torch.equal(logits.argmax(-1), data["len256.argmax"])


def test_hidden_states_after_every_block(name, load, expected):
    data, model = expected(f"{name}_logits.safetensors"), load(name)
    states = []
    hooks = [model.embedding.register_forward_hook(lambda module, args, output: states.append(output))]
    hooks += [
        block.register_forward_hook(lambda module, args, output: states.append(output)) for block in model.blocks[:-1]
    ]
    states.append(model(data["len7.input_ids"]))
    for hook in hooks:
        hook.remove()
    for number, state in enumerate(states):
        torch.testing.assert_close(state, data[f"len7.hidden.{number}"], **HIDDEN)


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_padded_row_equals_the_row_alone(name, side, load, expected):
    data, model = expected(f"{name}_logits.safetensors"), load(name)
    seen = data[f"padded.{side}.attention_mask"].bool()
    logits = model.logits(model(data[f"padded.{side}.input_ids"], torch.where(seen, 0, -1)))
    for row in range(3):
        torch.testing.assert_close(logits[row][seen[row]], data[f"padded.row{row}.logits"], **LOGITS)


def test_packed_rows_equal_the_rows_alone(name, load, expected):
    data, model = expected(f"{name}_logits.safetensors"), load(name)
    rows = [data[f"padded.row{row}.input_ids"][None] for row in range(3)]
    segments = torch.cat([torch.full_like(row, number) for number, row in enumerate(rows)], dim=1)
    logits = model.logits(model(torch.cat(rows, dim=1), segments))
    for number in range(3):
        torch.testing.assert_close(logits[segments == number], data[f"padded.row{number}.logits"], **LOGITS)
