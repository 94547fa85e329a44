"""Every command that loads a model takes a published folder, and flags for what such a folder does not say."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from illada.cli.loading import Loading
from illada.pipeline import load

GOLDEN = Path(__file__).parents[1] / "golden" / "data"
SAYS_LITTLE = ["--rope-theta", "10000", "--norm-eps", "1e-6"]


@pytest.fixture
def silent(tmp_path):
    """A published folder that says neither theta nor epsilon."""
    folder = tmp_path / "silent"
    shutil.copytree(GOLDEN / "illada", folder)
    values = json.loads((folder / "config.json").read_text())
    del values["rope_theta"], values["rms_norm_eps"]
    (folder / "config.json").write_text(json.dumps(values))
    return folder


@pytest.mark.parametrize(
    "command",
    [
        ["generate", "once", "--length", "4", "--block-length", "4"],
        ["infill", "once", "a time", "--length", "2", "--block-length", "2"],
        ["score", "once", " upon", " under"],
        ["perplexity", "FILE", "--samples", "1"],
    ],
    ids=lambda command: command[0],
)
def test_commands(silent, illada, refusal, tmp_path, command):
    (tmp_path / "text.txt").write_text("once upon a time")
    arguments = [str(tmp_path / "text.txt") if part == "FILE" else part for part in command]
    arguments += ["--device", "cpu", "--json", "--model"]
    assert "does not give rope_theta, and no value is safe to assume" in refusal(*arguments, silent)
    assert "does not give rms_norm_eps" in refusal(*arguments, silent, *SAYS_LITTLE[:2])
    one, two = illada(*arguments, silent, *SAYS_LITTLE), illada(*arguments, GOLDEN / "illada")
    assert (one.code, two.code) == (0, 0)
    one, two = json.loads(one.out), json.loads(two.out)
    one.pop("seconds", None), two.pop("seconds", None)
    assert one == two


def test_an_evaluation_records_what_was_assumed(silent, illada, tmp_path):
    flags = ["--limit", "1", "--skills", "repeat", "--length", "4", "--block-length", "4", "--device", "cpu", "--json"]
    plain = illada("eval", "--model", GOLDEN / "illada", *flags)
    assert plain.code == 0
    assert "overrides" not in json.loads(plain.out)["settings"]
    given = illada("eval", "--model", silent, *SAYS_LITTLE, *flags)
    settings = json.loads(given.out)["settings"]
    assert (settings["overrides"]["rope_theta"], settings["overrides"]["norm_eps"]) == (10_000.0, 1e-6)
    assert settings["checkpoint"] != json.loads(plain.out)["settings"]["checkpoint"]


def test_special_tokens_are_named_in_pairs(silent, illada):
    flags = ["--length", "2", "--block-length", "2", "--device", "cpu"]
    answer = illada(
        "generate", "x", "--model", silent, *SAYS_LITTLE, *flags, "--special-tokens", "mask", "<reserved_0>"
    )
    assert answer.code == 0
    answer = illada("generate", "x", "--model", silent, *SAYS_LITTLE, *flags, "--special-tokens", "maks", "x")
    assert (answer.code, answer.err) == (2, "illada: unknown special token 'maks': choose among pad, bos, eos, mask\n")


def test_weights_in_half_the_memory():
    assert (
        Loading(device="cpu", dtype="bf16").load(GOLDEN / "llada").transformer.embedding.weight.dtype == torch.bfloat16
    )
    assert load(GOLDEN / "llada", device="cpu").transformer.embedding.weight.dtype == torch.float32


def test_a_checkpoint_of_ours_takes_no_such_flags(saved_model, refusal):
    assert "says itself what rope_theta is" in refusal("generate", "x", "--model", saved_model, "--rope-theta", "3")


def test_no_model_is_one_line(refusal, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    said = refusal("generate", "x", "--model", "some-lab/no-such-model")
    assert said.startswith(
        "some-lab/no-such-model is no folder here, and some-lab/no-such-model is not in the hub's cach"
    )


def test_blocks_are_compiled_if_that_is_wanted(monkeypatch):
    compiled = []
    monkeypatch.setattr("illada.model.compiling.compile_for_generation", compiled.append)
    Loading().load("tiny")
    assert not compiled
    model = Loading(compile=True).load("tiny")
    assert compiled == [model.transformer]
