"""`illada export`: the weights to give away."""

import pytest
import torch

from illada.checkpoint.native import find_checkpoint, load_checkpoint
from illada.cli.export import parse_size
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


# --- published layouts --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["illada", "llada"])
def test_a_published_layout_is_loaded_like_the_run(saved_model, illada, tmp_path, layout):
    out = tmp_path / "out"
    answer = illada("export", saved_model, "--out", out, "--layout", layout, "--shard-size", "4KB", "--dtype", "fp32")
    assert (answer.code, answer.out) == (0, f"{out}\n")
    assert len(list(out.glob("model-*.safetensors"))) > 1
    one, two = (load(where, device="cpu").generate("the fox", length=8, block_length=8) for where in (saved_model, out))
    assert one.tokens == two.tokens


def test_the_card_has_the_id_and_the_licence(saved_model, illada, tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr("illada.cli.export.check_login", lambda name: calls.append(("login", name)))
    monkeypatch.setattr(
        "illada.cli.export.push",
        lambda folder, name, private: calls.append(("push", folder.name, name, private)) or "https://hub/lab/model",
    )
    out = tmp_path / "out"
    flags = ["--layout", "illada", "--license", "mit", "--push-to-hub", "lab/model", "--private"]
    answer = illada("export", saved_model, "--out", out, *flags)
    assert (answer.code, answer.out) == (0, f"{out}\n")
    assert "https://hub/lab/model" in answer.err.splitlines()
    assert calls == [("login", "lab/model"), ("push", "out", "lab/model", True)]
    card = (out / "README.md").read_text()
    assert "license: mit" in card.splitlines()
    assert "# lab/model" in card.splitlines()


def test_nothing_is_written_for_a_push_that_cannot_be(saved_model, refusal, illada, tmp_path, monkeypatch):
    assert "add --layout illada" in refusal(
        "export", saved_model, "--out", tmp_path / "a", "--push-to-hub", "lab/model"
    )
    flags = ["--out", tmp_path / "a", "--layout", "illada", "--push-to-hub"]
    assert "is OWNER/NAME, got 'model'" in refusal("export", saved_model, *flags, "model")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_TOKEN", "hf_of_nobody")
    answer = illada("export", saved_model, *flags, "lab/model")
    assert (answer.code, answer.out) == (1, "")
    assert answer.err == "illada: cannot push to lab/model: the hub cannot be reached (OfflineModeIsEnabled)\n"
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("text", "size"),
    [("5GB", 5 * 10**9), ("1.5 MB", 1_500_000), ("2GiB", 2**31), ("700", 700), ("3kb", 3000), ("1B", 1)],
)
def test_sizes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "GB", "0", "0GB", "-1GB", "5 G B", "5XB", "1e9"])
def test_what_is_no_size(saved_model, refusal, tmp_path, text):
    said = refusal("export", saved_model, "--out", tmp_path / "a", f"--shard-size={text}")
    assert "a size is a number above 0 and a unit, such as 5GB or 500MB" in said
