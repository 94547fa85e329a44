"""The models that come with the package: small, whole, and able to write English."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import illada
from illada.assets import BASE, embedded_model, embedded_models
from illada.checkpoint.native import find_checkpoint, load_checkpoint, verify_checkpoint

ASSETS = Path(illada.__file__).parent / "assets"
COMMON = {"the", "and", "of", "to", "a", "in", "was", "he", "she", "it", "his", "her", "that", "with", "they", "had"}


@pytest.mark.parametrize("name", embedded_models())
def test_a_model_is_whole_and_in_bf16(name):
    folder = embedded_model(name)
    verify_checkpoint(folder)
    saved = load_checkpoint(folder)
    assert {tensor.dtype for tensor in saved.weights.values()} == {torch.bfloat16}
    assert saved.optimizer == {}
    assert saved.tokenizer.vocab_size == saved.model_config.vocab_size
    assert find_checkpoint(Path(name)) == folder


def test_all_of_them_take_no_more_than_16_megabytes():
    assert BASE in embedded_models()
    assert sum(file.stat().st_size for file in ASSETS.rglob("*") if file.is_file()) <= 16_000_000


def test_there_is_no_other_model():
    assert embedded_model("huge") is None
    assert embedded_model("../assets/tiny") is None


def test_a_folder_of_that_name_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / BASE).mkdir()
    with pytest.raises(FileNotFoundError, match="tiny holds no checkpoint"):
        illada.load(BASE)


def test_told_nothing_it_writes_english():
    completion = illada.load().generate("Once upon a time", length=96, temperature=0.7, top_p=0.9, unmasking="random")
    words = [word.strip(".,;:!?\"'").lower() for word in completion.text.split()]
    assert len(words) > 30
    assert len(COMMON & set(words)) >= 5
    assert sum(word in COMMON for word in words) > len(words) / 5


def test_the_first_command_answers_within_ten_seconds(tmp_path):
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "illada", "generate", "Once upon a time"],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        timeout=100,
    )
    assert len(done.stdout.split()) > 20
    # a machine that is busy with other work is given more; the command itself needs about four
    assert time.monotonic() - began < 30
