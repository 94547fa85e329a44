"""`illada export`: the weights to give away."""

import pytest
import torch

from illada.checkpoint.native import find_checkpoint, load_checkpoint
from illada.pipeline import load


@pytest.mark.parametrize(("name", "dtype"), [("bf16", torch.bfloat16), ("fp32", torch.float32)])
def test_an_exported_model_holds_the_weights_and_no_more(saved_model, illada, tmp_path, name, dtype):
    answer = illada("export", saved_model, "--out", tmp_path / "model", "--dtype", name)
    assert (answer.code, answer.out.strip()) == (0, str(tmp_path / "model"))
    before, after = load_checkpoint(find_checkpoint(saved_model)), load_checkpoint(tmp_path / "model")
    assert after.model_config == before.model_config
    assert after.tokenizer.fingerprint == before.tokenizer.fingerprint
    assert (after.optimizer, after.state) == ({}, {})
    assert {key: tensor.dtype for key, tensor in after.weights.items()} == dict.fromkeys(before.weights, dtype)
    for key, tensor in before.weights.items():
        assert torch.equal(after.weights[key], tensor.to(dtype))
    assert load(tmp_path / "model").generate("the fox", length=3).prompt_tokens > 1


def test_a_folder_that_is_there_is_not_written_over(saved_model, refusal, tmp_path):
    (tmp_path / "model").mkdir()
    assert str(tmp_path / "model") in refusal("export", saved_model, "--out", tmp_path / "model")
