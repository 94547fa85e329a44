import json

import pytest

from illada.cli.flags import parse
from illada.cli.main import main
from illada.recipes.pretraining import PRETRAINING


def printed(capsys, *arguments: str) -> str:
    assert main(["plan", *arguments]) == 0
    return capsys.readouterr().out


def as_json(capsys, *arguments: str) -> dict:
    return json.loads(printed(capsys, *arguments, "--json"))


def test_the_example_of_the_help_prints_every_part(capsys):
    text = printed(capsys, "illada_8b", "--gpus", "512", "--gpu", "h200", "--tokens", "12e12")
    for part in ("7.62B parameters, 12T tokens, 512 x H200", "gradients", "AdamW's moments", "activations", "loss"):
        assert part in text
    for part in ("MFU, assumed", "40%", "arXiv 2407.21783", "days", "a checkpoint to resume from", "data sheet"):
        assert part in text
    assert "does not fit" not in text


def test_json_holds_the_numbers_of_the_tables(capsys):
    found = as_json(capsys, "illada_8b", "--gpus", "64", "--tokens", "12e12")
    assert found["fits"] is True
    assert found["steps"] == 1_430_512
    division = found["division"]
    assert division["shard"] * division["replicate"] * division["tensor"] == 64
    memory = found["memory_bytes_per_gpu"]
    assert memory["total"] == sum(value for part, value in memory.items() if part != "total")
    assert memory["total"] < found["gpu"]["usable"] < found["gpu"]["memory"]
    assert found["mfu"]["source"].startswith("38 to 43 %")
    assert found["disk_bytes"]["checkpoint"] == 12 * found["parameters"]
    assert f"{memory['total'] / 1e9:,.1f} GB" in printed(capsys, "illada_8b", "--gpus", "64", "--tokens", "12e12")


@pytest.mark.parametrize("recipe", PRETRAINING)
def test_every_recipe_can_be_planned(capsys, recipe):
    found = as_json(capsys, recipe, "--gpus", "8")
    assert found["fits"] is True
    assert found["tokens"] == PRETRAINING[recipe]().loop.steps * PRETRAINING[recipe]().loop.batch_size * found["length"]


@pytest.mark.parametrize("arguments", [("illada_8b", "--gpus", "64"), ("base", "--gpus", "1"), ("1b", "--gpus", "8")])
def test_the_command_that_starts_the_run_is_one_that_pretrain_understands(capsys, arguments):
    found = as_json(capsys, *arguments)
    words = found["launch"].split()
    place = words.index("pretrain")
    assert words[place + 1] == arguments[0]
    if found["gpus"] > 1:
        assert words[:3] == ["torchrun", "--nnodes", str(-(-found["gpus"] // 8))]
        assert int(words[2]) * int(words[4]) == found["gpus"]
    recipe = PRETRAINING[arguments[0]]()
    config = parse(type(recipe), words[place + 2 :], command="pretrain", default=recipe)
    division = found["division"]
    assert config.loop.activation_checkpointing == division["activation_checkpointing"]
    assert config.loop.micro_batch_size == division["micro_batch_size"]
    assert config.loop.batch_size == division["batch_size"]
    assert config.loop.accumulation == division["accumulation"]
    if found["gpus"] > 1:
        assert config.mesh.sizes(found["gpus"]) == {
            "replicate": division["replicate"],
            "shard": division["shard"],
            "context": 1,
            "tensor": division["tensor"],
        }


def test_where_it_does_not_fit_it_says_so_and_what_would(capsys):
    text = printed(capsys, "illada_8b", "--gpus", "1", "--gpu", "a100")
    assert "it does not fit: " in text
    assert "it would fit on: 2 x A100 80GB SXM; or 1 x B200 180GB" in text
    assert as_json(capsys, "illada_8b", "--gpus", "1", "--gpu", "a100")["would_fit"]


def test_what_was_measured_takes_the_place_of_what_is_assumed(capsys):
    text = printed(capsys, "1b", "--mfu", "0.5")
    assert "MFU, as given" in text
    assert "arXiv 2407.21783" not in text
    assert as_json(capsys, "1b", "--mfu", "0.5")["mfu"] == {"assumed": 0.5, "source": "given"}


def test_flags_fix_the_division(capsys):
    flags = ("--shard", "16", "--tensor", "2", "--micro-batch-size", "1", "--activation-checkpointing", "full")
    division = as_json(capsys, "illada_8b", "--gpus", "64", "--batch-size", "512", *flags)["division"]
    assert division == {
        "shard": 16,
        "replicate": 2,
        "tensor": 2,
        "batch_size": 512,
        "micro_batch_size": 1,
        "micro_steps": 16,
        "accumulation": "whole",
        "activation_checkpointing": "full",
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["illada_8b", "--gpu", "v100"], "no GPU is called 'v100'; there are: a100, h100, h200, b200"),
        (["illada_9b"], "no recipe is called 'illada_9b'"),
        (["illada_8b", "--batch-size", "0"], "batch_size must be at least 1, got 0"),
        (["illada_8b", "--micro-batch-size", "0"], "micro_batch_size must be at least 1, got 0"),
        (["illada_8b", "--gpus", "7"], "a step of 1024 rows (batch_size) does not divide among 7 GPUs"),
        (["illada_8b", "--tokens", "nan"], "tokens must be a number of at least 1, got nan"),
    ],
)
def test_what_cannot_be_planned_is_one_line(capsys, arguments, message):
    assert main(["plan", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
