"""Runs that start from a published model: continued pre-training, and fine-tuning."""

import json
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from illada.checkpoint.export import ExportConfig, export
from illada.checkpoint.native import checkpoint_path, load_checkpoint, save_checkpoint
from illada.checkpoint.source import open_model
from illada.cli.main import main
from illada.data.packing import PackingConfig
from illada.data.tokenizer import Tokenizer
from illada.model.config import ModelConfig
from illada.model.transformer import Transformer, initialize
from illada.train.pretrain import PretrainConfig, continued

SHAPE = {"hidden_size": 16, "layers": 1, "heads": 2, "kv_heads": 1, "ffn_size": 24, "max_length": 64}
FLAGS = shlex.split("""
    --packing.length 16 --held-out.rows 2 --held-out.samples 1 --batch-size 2 --checkpoint-every 2 --precision fp32
    --device cpu --learning-rate.warmup-steps 1 --log-every 1
""")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A causal model in the layout of Qwen2, and a diffusion model in that of iLLaDA."""
    root = tmp_path_factory.mktemp("published")
    tokenizer = Tokenizer.train(["the cat sat on a mat"], 290)
    for layout, changes in (("qwen2", {"attention": "causal", "qkv_bias": True}), ("illada", {})):
        # rows beyond the vocabulary are part of the model
        config = ModelConfig(vocab_size=tokenizer.vocab_size + 5, **SHAPE, **changes)
        model = Transformer(config)
        initialize(model, seed=3)
        native = checkpoint_path(root / f"{layout}-run" / "checkpoints", 1)
        save_checkpoint(native, model_config=config, weights=model.state_dict(), tokenizer=tokenizer)
        export(native, root / layout, ExportConfig(layout=layout, dtype=torch.float32))
    return root


@pytest.fixture
def pretrain(small_text, cache, tmp_path, capsys):
    """Call the command; (exit code, last line on standard error)."""

    def call(*arguments: object, out: str = "run", steps: int = 4) -> tuple[int, str]:
        fixed = ["--corpus.sources", small_text, "--cache", cache, "--out", tmp_path / out, "--steps", steps]
        code = main([str(argument) for argument in ("pretrain", "tiny", *FLAGS, *fixed, *arguments)])
        return code, (capsys.readouterr().err.splitlines() or [""])[-1]

    return call


def newest(tmp_path, step, out="run"):
    return load_checkpoint(checkpoint_path(tmp_path / out / "checkpoints", step))


def test_a_causal_model_goes_on_as_a_shifted_diffusion_model(folders, pretrain, tmp_path):
    assert pretrain("--from", folders / "qwen2")[0] == 0
    saved, start = newest(tmp_path, 4), open_model(folders / "qwen2")
    assert saved.model_config == replace(start.model_config, attention="bidirectional", shifted=True)
    assert saved.tokenizer.fingerprint == start.tokenizer.fingerprint
    told = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (told["model"]["shifted"], told["model"]["hidden_size"]) == (True, 16)
    # four small steps away from where it began
    moved = [(saved.weights[name] - stored.read()).abs().max() for name, stored in start.tensors.items()]
    assert 0 < max(moved) < 0.1


@pytest.mark.parametrize("name", ["illada", "illada-run"])
def test_a_diffusion_model_goes_on_as_it_is(folders, pretrain, tmp_path, name):
    assert pretrain("--from", folders / name)[0] == 0
    assert newest(tmp_path, 4).model_config == open_model(folders / name).model_config


def test_a_run_of_two_parts_is_one(folders, pretrain, tmp_path):
    pretrain("--from", folders / "qwen2", out="whole")
    pretrain("--from", folders / "qwen2", "--max-minutes", "1e-9", out="parts")
    assert pretrain("--from", folders / "qwen2", "--resume", out="parts")[0] == 0
    whole, parts = (newest(tmp_path, 4, out).weights for out in ("whole", "parts"))
    assert all(torch.equal(parts[name], tensor) for name, tensor in whole.items())


def test_it_does_not_resume_from_another_start(folders, pretrain, tmp_path):
    pretrain("--from", folders / "illada", "--max-minutes", "1e-9")
    other = tmp_path / "other"
    shutil.copytree(folders / "illada", other)
    tensors = (other / "model.safetensors").read_bytes()
    (other / "model.safetensors").write_bytes(tensors[:-4] + b"\0\0\0\0")
    code, said = pretrain("--from", other, "--resume")
    assert code == 2
    assert "was trained on another corpus: the sources have changed" in said


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--model.layers", "3"], "the shape of the model comes from --from: leave the flags --model.* out"),
        (["--corpus.tokenizer", "x"], "the tokenizer is that of "),
        (["--packing.length", "65"], "rows of 65 tokens (packing.length) exceed the model's context of 64"),
        (["--attention", "causal"], "the objective diffusion needs bidirectional attention"),
        (["--rope-theta", "3", "--objective", "next_token", "--model.attention", "causal"], None),
    ],
)
def test_what_contradicts_the_start(folders, pretrain, tmp_path, flags, message):
    code, said = pretrain("--from", folders / "qwen2", *flags)
    if message is None:
        assert (code, newest(tmp_path, 4).model_config.attention) == (0, "causal")
    else:
        assert code == 2
        assert message in said
        assert not (tmp_path / "run").exists()


def test_overrides_are_about_a_start(pretrain):
    code, said = pretrain("--rope-theta", "3")
    assert (code, said) == (2, "illada: rope_theta is about the model of --from, which is not given")


def test_the_tokenizer_is_kept_where_the_corpus_finds_it(folders, tmp_path):
    start, config = open_model(folders / "illada"), PretrainConfig(packing=PackingConfig(length=32))
    first, second = (continued(config, start, tmp_path).corpus.tokenizer for _ in range(2))
    assert first == second
    assert Tokenizer.load(Path(first)).fingerprint == start.tokenizer.fingerprint
    start.tokenizer.chat_template = "another"
    assert continued(config, start, tmp_path).corpus.tokenizer != first


# --- fine-tuning --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["illada", "qwen2"])
def test_a_published_model_is_fine_tuned(folders, tmp_path, layout):
    rows = [{"prompt": f"the cat {number}", "response": "sat on a mat"} for number in range(100)]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    flags = shlex.split("--stream.length 48 --batch-size 2 --steps 3 --precision fp32 --device cpu")
    places = ["--data", tmp_path / "data.jsonl", "--out", tmp_path / "run", "--cache", tmp_path / "cache"]
    assert main([str(part) for part in ("sft", "tiny", "--from", folders / layout, *flags, *places)]) == 0
    config = newest(tmp_path, 3).model_config
    assert (config.attention, config.shifted) == ("bidirectional", layout == "qwen2")
