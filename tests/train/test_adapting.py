"""Fine-tuning an adapter: what changes, what is saved, that it resumes, and how it is used afterwards."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import illada
from illada.checkpoint.native import checkpoint_path, load_checkpoint, save_checkpoint
from illada.cli.main import main
from illada.data.example_rows import ExamplePacking
from illada.data.instruction_corpus import InstructionConfig
from illada.data.tokenizer import Tokenizer
from illada.model.config import ModelConfig
from illada.model.lora import LoraConfig
from illada.model.transformer import Transformer, initialize
from illada.recipes.finetuning import STYLES
from illada.train.learning_rate import StepDowns
from illada.train.loop import LoopConfig
from illada.train.sft import SftConfig, check_processes, run

pytest.importorskip("peft", reason="the extra finetune is not installed")

WORDS = ["the", "cat", "sat", "on", "a", "mat", "dog", "log"]
ASKED = [[{"role": "user", "content": "say 3"}]]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    file = tmp_path_factory.mktemp("data") / "dialogues.jsonl"
    rows = [{"prompt": f"say {number}", "response": " ".join(WORDS[: 1 + number % 8])} for number in range(120)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    tokenizer = Tokenizer.train([" ".join(WORDS) * 20], 290)
    config = ModelConfig(
        vocab_size=tokenizer.vocab_size, hidden_size=32, layers=2, heads=2, kv_heads=1, ffn_size=64, max_length=64
    )
    model = Transformer(config)
    initialize(model, seed=0)
    folder = tmp_path_factory.mktemp("base")
    target = checkpoint_path(folder / "checkpoints", 1)
    save_checkpoint(target, model_config=config, weights=model.state_dict(), tokenizer=tokenizer)
    return folder


def config_of(data: str, lora: LoraConfig, **loop) -> SftConfig:
    config = STYLES["canvas"](
        SftConfig(
            instructions=InstructionConfig(files=(data,), held_out_fraction=0.1),
            learning_rate=StepDowns(warmup_steps=2, levels=((0.0, 2e-2),), floor=1e-3),
            loop=LoopConfig(
                **{"steps": 8, "batch_size": 4, "validate_every": 4, "log_every": 2, "checkpoint_every": 4} | loop,
                precision="fp32",
            ),
            held_out_examples=8,
            device="cpu",
            lora=lora,
        )
    )
    return replace(config, examples=ExamplePacking(length=48, filler="canvas", block_length=8, longest_canvas=3))


LORA = LoraConfig(rank=4, alpha=16.0)


@pytest.fixture(scope="module")
def trained(data, base, tmp_path_factory):
    root = tmp_path_factory.mktemp("trained")
    return run(config_of(data, LORA, steps=40), root / "run", start=base, cache=root / "cache")


def bounds(folder: Path) -> list[float]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    name = "held_out/response_nats_per_token"
    return [line[name] for line in lines if name in line]


# --- training -----------------------------------------------------------------------------------------------------


def test_it_learns_and_only_the_adapter_is_saved(trained):
    measured = bounds(trained.folder)
    assert measured[-1] < 0.8 * measured[0]
    files = {path.name for path in trained.checkpoint.iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors", "optimizer.safetensors"} <= files
    assert "model.safetensors" not in files
    adapter = load_file(trained.checkpoint / "adapter_model.safetensors")
    assert len(adapter) == 2 * 7 * 2
    moments = load_file(trained.checkpoint / "optimizer.safetensors")
    assert len(moments) == 3 * len(adapter)
    assert all(".lora_" in name for name in moments)


def test_the_base_stays_as_it_was(trained, base):
    model = illada.load(trained.folder).transformer
    before = load_checkpoint(checkpoint_path(base / "checkpoints", 1)).weights
    after = {name.replace(".base_layer", ""): value for name, value in model.state_dict().items()}
    assert all(torch.equal(after[name], value) for name, value in before.items())


@pytest.mark.parametrize("average_decay", [None, 0.7])
def test_an_interrupted_run_ends_with_the_same_bytes(data, base, tmp_path, average_decay):
    config = replace(config_of(data, LORA), average_decay=average_decay)
    whole = run(config, tmp_path / "whole", start=base, cache=tmp_path / "cache")
    short = replace(config, loop=replace(config.loop, max_minutes=1e-9))
    for _ in range(20):
        outcome = run(short, tmp_path / "pieces", start=base, cache=tmp_path / "cache", resume=True)
        if outcome.stopped_by is None:
            break
    assert outcome.steps == 8
    for name in ("adapter_config.json", "adapter_model.safetensors", "optimizer.safetensors", "state.json"):
        assert (whole.checkpoint / name).read_bytes() == (outcome.checkpoint / name).read_bytes(), name


@pytest.mark.parametrize("held", ["bf16", "int8", "int4"])
def test_an_adapter_learns_beside_weights_in_fewer_bits(data, base, tmp_path, held):
    if held.startswith("int"):
        pytest.importorskip("torchao", reason="the extra quant is not installed")
    config = config_of(data, replace(LORA, base=held), steps=40)
    outcome = run(config, tmp_path / "run", start=base, cache=tmp_path / "cache")
    measured = bounds(outcome.folder)
    assert measured[-1] < 0.8 * measured[0]
    tensors = load_file(outcome.checkpoint / "adapter_model.safetensors")
    assert {value.dtype for value in tensors.values()} == {torch.float32}


# --- use ----------------------------------------------------------------------------------------------------------


def test_a_run_of_an_adapter_is_loaded_like_any_other(trained, base):
    by_run = illada.load(trained.folder)
    by_hand = illada.load(base, adapter=trained.checkpoint)
    plain = illada.load(base)
    tokens = torch.arange(6, 30)[None]
    assert torch.equal(by_run.transformer(tokens), by_hand.transformer(tokens))
    assert not torch.allclose(by_run.transformer(tokens), plain.transformer(tokens), atol=1e-2)
    answers = [model.chat(ASKED, length=16)[0].text for model in (by_run, by_hand)]
    assert answers[0] == answers[1]


def test_exported_it_is_merged(trained, tmp_path):
    assert main(["export", str(trained.folder), "--out", str(tmp_path / "merged"), "--dtype", "fp32"]) == 0
    merged, adapted = illada.load(tmp_path / "merged"), illada.load(trained.folder)
    tokens = torch.arange(6, 30)[None]
    assert "blocks.0.attention.q_proj.weight" in merged.transformer.state_dict()
    torch.testing.assert_close(merged.transformer(tokens), adapted.transformer(tokens), rtol=0, atol=1e-5)


def test_what_starts_from_an_adapter_starts_from_the_merged_model(trained, data, tmp_path):
    config = config_of(data, LoraConfig(), steps=1)
    outcome = run(config, tmp_path / "run", start=trained.folder, cache=tmp_path / "cache")
    again = run(config_of(data, LORA, steps=1), tmp_path / "two", start=trained.folder, cache=tmp_path / "cache")
    assert bounds(outcome.folder)[0] == pytest.approx(bounds(trained.folder)[-1], rel=1e-5)
    assert illada.load(again.folder).transformer.config == illada.load(trained.folder).transformer.config


def test_it_serves_a_quantised_base_too(trained):
    pytest.importorskip("torchao", reason="the extra quant is not installed")
    whole, held = illada.load(trained.folder), illada.load(trained.folder, quantize="int8", dtype=torch.float32)
    tokens = torch.arange(6, 30)[None]
    torch.testing.assert_close(held.transformer(tokens), whole.transformer(tokens), rtol=0, atol=0.1)


def test_the_command_line_trains_and_loads_one(data, base, tmp_path, capsys):
    arguments = ["sft", "tiny", "--style", "canvas", "--from", base, "--data", data, "--out", tmp_path / "run"]
    arguments += ["--examples.length", 64, "--examples.block-length", 8, "--steps", 2, "--batch-size", 2]
    arguments += ["--cache", tmp_path / "cache", "--instructions.held-out-fraction", 0.1, "--precision", "fp32"]
    arguments += ["--lora.rank", 2, "--lora.alpha", 4, "--lora.targets", "q_proj", "v_proj"]
    assert main(list(map(str, arguments))) == 0
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["lora"] == {"rank": 2, "alpha": 4.0, "targets": ["q_proj", "v_proj"], "base": "fp32"}
    capsys.readouterr()
    asked = ["generate", "the", "--length", "8", "--temperature", "0"]
    assert main([*asked, "--model", str(tmp_path / "run")]) == 0
    by_run = capsys.readouterr().out
    assert main([*asked, "--model", str(base), "--adapter", str(tmp_path / "run")]) == 0
    assert capsys.readouterr().out == by_run


# --- asked for wrongly --------------------------------------------------------------------------------------------


def moved(trained, base, tmp_path) -> tuple[Path, Path]:
    """A copy of the adapter's checkpoint whose base lies in a copy of the base."""
    folder, start = tmp_path / "adapter", tmp_path / "base"
    shutil.copytree(trained.checkpoint, folder)
    shutil.copytree(base, start)
    (folder / "manifest.json").unlink()
    config = json.loads((folder / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = str(start)
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder, start


def test_an_adapter_whose_base_is_gone_says_so(trained, base, tmp_path):
    folder, start = moved(trained, base, tmp_path)
    assert illada.load(folder).transformer.config.layers == 2
    shutil.rmtree(start)
    with pytest.raises(FileNotFoundError, match=r"belongs to .*base, which is not there: load that model from where"):
        illada.load(folder)
    assert illada.load(base, adapter=folder).transformer.config.layers == 2


def test_an_adapter_whose_base_has_changed_says_so(data, base, tmp_path):
    start = tmp_path / "start"
    shutil.copytree(base, start)
    outcome = run(config_of(data, LORA, steps=1), tmp_path / "run", start=start, cache=tmp_path / "cache")
    illada.load(outcome.folder)
    saved = load_checkpoint(checkpoint_path(base / "checkpoints", 1))
    changed = {name: value + 1 for name, value in saved.weights.items()}
    target = checkpoint_path(start / "checkpoints", 1)
    shutil.rmtree(target)
    save_checkpoint(target, model_config=saved.model_config, weights=changed, tokenizer=saved.tokenizer)
    with pytest.raises(ValueError, match=r"has changed since the adapter in .* was trained on it"):
        illada.load(outcome.folder)


def test_a_damaged_adapter_is_refused_by_name(trained, tmp_path):
    folder = tmp_path / "adapter"
    shutil.copytree(trained.checkpoint, folder)
    content = bytearray((folder / "adapter_model.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "adapter_model.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match=r"is damaged: adapter_model\.safetensors was altered"):
        illada.load(folder)


def test_a_run_of_an_adapter_is_not_resumed_with_all_weights(trained, data, base, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(trained.folder, folder)
    with pytest.raises(ValueError, match=r"lora\.rank was 4 and is None"):
        run(config_of(data, LoraConfig(), steps=40), folder, start=base, cache=tmp_path / "cache", resume=True)


def test_an_adapter_in_several_processes_is_refused():
    check_processes(SftConfig(), 4)
    check_processes(SftConfig(lora=LoraConfig(rank=8)), 1)
    with pytest.raises(ValueError, match=r"an adapter \(lora.rank 8\) trains in one process, and this job has 4"):
        check_processes(SftConfig(lora=LoraConfig(rank=8)), 4)
