"""Fine-tuning from a checkpoint to a checkpoint, in every style, interrupted and not."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from illada.checkpoint.native import checkpoint_path, list_checkpoints, load_checkpoint, save_checkpoint
from illada.cli.main import main
from illada.data.example_rows import ExamplePacking
from illada.data.instruction_corpus import InstructionConfig
from illada.data.packing import PackingConfig
from illada.data.tokenizer import Tokenizer
from illada.model.config import ModelConfig
from illada.model.transformer import Transformer, initialize
from illada.recipes.finetuning import FINETUNING, STYLES, illada_8b
from illada.train.learning_rate import StepDowns
from illada.train.loop import LoopConfig
from illada.train.sft import SftConfig, held_out_examples, run, steps_of

WORDS = ["the", "cat", "sat", "on", "a", "mat", "dog", "log"]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    file = tmp_path_factory.mktemp("data") / "dialogues.jsonl"
    rows = [{"prompt": f"say {number}", "response": " ".join(WORDS[: 1 + number % 8])} for number in range(200)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    tokenizer = Tokenizer.train([" ".join(WORDS) * 20], 290)
    config = ModelConfig(
        vocab_size=tokenizer.vocab_size, hidden_size=16, layers=1, heads=2, kv_heads=1, ffn_size=24, max_length=64
    )
    model = Transformer(config)
    initialize(model, seed=0)
    folder = tmp_path_factory.mktemp("base")
    save_checkpoint(
        checkpoint_path(folder / "checkpoints", 1),
        model_config=config,
        weights=model.state_dict(),
        tokenizer=tokenizer,
    )
    return folder


def config_of(data, style="canvas", **loop):
    config = STYLES[style](
        SftConfig(
            instructions=InstructionConfig(files=(data,), held_out_fraction=0.1),
            stream=PackingConfig(length=48),
            learning_rate=StepDowns(warmup_steps=2, levels=((0.0, 1e-2),), floor=1e-3),
            loop=LoopConfig(
                **{"steps": 12, "batch_size": 4, "validate_every": 6, "log_every": 2, "checkpoint_every": 4} | loop,
                precision="fp32",
            ),
            held_out_examples=8,
            device="cpu",
        )
    )
    return replace(config, examples=replace(config.examples, block_length=8, longest_canvas=3))


@pytest.mark.parametrize("style", STYLES)
def test_every_style_learns_and_leaves_a_checkpoint_that_answers(style, data, base, tmp_path):
    outcome = run(config_of(data, style, steps=30), tmp_path / "run", start=base, cache=tmp_path / "cache")
    assert (outcome.steps, outcome.stopped_by) == (30, None)
    metrics = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    bounds = [
        line["held_out/response_nats_per_token"] for line in metrics if "held_out/response_nats_per_token" in line
    ]
    assert bounds[-1] < 0.8 * bounds[0]
    import illada

    [completion] = illada.load(outcome.checkpoint).chat([[{"role": "user", "content": "say 3"}]], length=16)
    assert completion.forwards > 0


def test_an_interrupted_run_ends_with_the_same_weights(data, base, tmp_path):
    config = config_of(data)
    whole = run(config, tmp_path / "whole", start=base, cache=tmp_path / "cache")
    short = replace(config, loop=replace(config.loop, max_minutes=1e-9))
    folder = tmp_path / "pieces"
    for _ in range(40):
        outcome = run(short, folder, start=base, cache=tmp_path / "cache", resume=True)
        if outcome.stopped_by is None:
            break
    assert outcome.steps == 12
    first, second = load_checkpoint(whole.checkpoint), load_checkpoint(outcome.checkpoint)
    assert all(torch.equal(first.weights[name], second.weights[name]) for name in first.weights)


def test_another_start_or_other_data_is_not_resumed(data, base, tmp_path):
    config = config_of(data, steps=4)
    folder = tmp_path / "run"
    outcome = run(config, folder, start=base, cache=tmp_path / "cache")
    longer = replace(config, loop=replace(config.loop, steps=4))
    with pytest.raises(FileExistsError, match="holds a run already"):
        run(longer, folder, start=base, cache=tmp_path / "cache")
    with pytest.raises(ValueError, match="was trained on another corpus"):
        run(longer, folder, start=outcome.checkpoint, cache=tmp_path / "cache", resume=True)


def test_epochs_become_steps(data, base, tmp_path):
    config = replace(config_of(data, "llada"), epochs=0.1)
    outcome = run(config, tmp_path / "run", start=base, cache=tmp_path / "cache")
    dialogues = 200 - len(load_held_out(tmp_path / "cache"))
    assert outcome.steps == -(-dialogues // 40)
    saved = json.loads((tmp_path / "run" / "config.json").read_text())
    assert saved["loop"]["steps"] == outcome.steps


def load_held_out(cache):
    from illada.data.instructions import InstructionSet

    [folder] = cache.iterdir()
    return InstructionSet.open(folder / "held-out")


def test_steps_of_whole_epochs(data):
    class Rows:
        rows, length = 10, 8

        def read(self, row, *, example, epoch):
            raise AssertionError

    config = replace(config_of(data), epochs=12.0)
    assert steps_of(config, [(Rows(), 1.0), (Rows(), 3.0)]) == 60
    assert steps_of(replace(config, epochs=None), []) == 12


def test_held_out_examples_are_whole_dialogues_that_fit(data, base, tmp_path):
    run(config_of(data, steps=1), tmp_path / "run", start=base, cache=tmp_path / "cache")
    held_out = load_held_out(tmp_path / "cache")
    examples = held_out_examples(held_out, 5, longest=64)
    assert len(examples) == 5
    assert all(len(example.prompt) + len(example.response) <= 64 for example in examples)
    assert held_out_examples(held_out, 5, longest=2) == []


# --- asked for wrongly --------------------------------------------------------------------------------------------


def test_rows_longer_than_the_context_are_refused(data, base, tmp_path):
    config = replace(config_of(data), examples=ExamplePacking(length=65))
    with pytest.raises(ValueError, match="rows of 65 tokens exceed the model's context of 64"):
        run(config, tmp_path / "run", start=base, cache=tmp_path / "cache")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sft"], "name a recipe: illada sft RECIPE, one of tiny, illada_tiny, illada_8b"),
        (["sft", "huge"], "no recipe is called 'huge'"),
        (["sft", "tiny"], "say what to start from: --from FOLDER"),
        (["sft", "tiny", "--style", "best"], "no style is called 'best'; there are: illada, llada, dllm_var, canvas"),
        (["sft", "tiny", "--from", "nowhere"], "nowhere does not exist"),
    ],
)
def test_what_is_missing_is_said_in_one_line(arguments, message, capsys, tmp_path):
    assert main([*arguments, "--out", str(tmp_path / "run")] if len(arguments) > 2 else arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_the_command_line_reaches_the_run(data, base, tmp_path, capsys):
    arguments = ["sft", "tiny", "--style", "canvas", "--from", base, "--data", data, "--out", tmp_path / "run"]
    arguments += ["--examples.length", 64, "--examples.block-length", 8, "--steps", 2, "--batch-size", 2]
    arguments += ["--cache", tmp_path / "cache", "--instructions.held-out-fraction", 0.1, "--precision", "fp32"]
    assert main(list(map(str, arguments))) == 0
    out = capsys.readouterr().out.replace("\n", "")
    assert list_checkpoints(tmp_path / "run" / "checkpoints")[-1][0] == 2
    assert out == str(tmp_path / "run" / "checkpoints" / "step_00000002")
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (config["rows"], config["examples"]["filler"], config["noise"]["maskable"]) == (
        "examples",
        "canvas",
        "response",
    )


# --- recipes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FINETUNING)
def test_a_recipe_is_a_whole_configuration(name):
    assert isinstance(FINETUNING[name](), SftConfig)


def test_the_recipe_of_the_paper():
    config = illada_8b()
    assert (config.rows, config.stream.length, config.stream.split_probability) == ("stream", 8192, 0.3)
    assert (config.epochs, config.noise.maskable, config.noise.weighted) == (12, "everything", True)
    rates = [config.learning_rate.rate(step, steps=1000) for step in (300, 899, 999)]
    assert rates == pytest.approx([5e-6, 5e-6, 5e-7])
    assert config.optimizer.weight_decay == 0.1
