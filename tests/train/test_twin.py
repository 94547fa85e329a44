"""The autoregressive twin: the same run in all but two fields, from pre-training to fine-tuning in every style."""

import json
from dataclasses import replace

import pytest
import torch

import illada
from illada.checkpoint.native import load_checkpoint
from illada.config import to_dict
from illada.data.corpus import CorpusConfig, prepare
from illada.data.instruction_corpus import InstructionConfig
from illada.data.packing import PackingConfig
from illada.evaluate.perplexity import perplexity
from illada.model.config import ModelConfig
from illada.recipes.finetuning import STYLES
from illada.recipes.pretraining import PRETRAINING
from illada.train.learning_rate import StepDowns, WarmupConstantCosine
from illada.train.loop import LoopConfig
from illada.train.pretrain import HeldOutConfig, PretrainConfig, build_task, run
from illada.train.sft import SftConfig
from illada.train.sft import run as fine_tune

MODEL = ModelConfig(hidden_size=32, layers=1, heads=2, kv_heads=1, ffn_size=48, max_length=64, init_std=0.1)
WORDS = ["the", "cat", "sat", "on", "a", "mat", "dog", "log"]


def twin_of(config: PretrainConfig) -> PretrainConfig:
    return replace(config, objective="next_token", model=replace(config.model, attention="causal"))


@pytest.fixture(scope="module")
def config(small_text) -> PretrainConfig:
    return PretrainConfig(
        model=MODEL,
        corpus=CorpusConfig(sources=(str(small_text),), vocab_size=300, workers=1),
        packing=PackingConfig(length=32),
        learning_rate=WarmupConstantCosine(peak=1e-2, floor=1e-3, warmup_steps=2),
        loop=LoopConfig(steps=40, batch_size=8, precision="fp32", log_every=10, validate_every=20, checkpoint_every=40),
        held_out=HeldOutConfig(rows=8, samples=2),
        device="cpu",
    )


@pytest.fixture(scope="module")
def pair(config, cache, tmp_path_factory):
    """The run folders of both: diffusion, and its twin."""
    folder = tmp_path_factory.mktemp("pair")
    for name, one in (("diffusion", config), ("twin", twin_of(config))):
        run(one, folder / name, cache=cache)
    return folder / "diffusion", folder / "twin"


def flat(config, prefix=""):
    """Every field by its dotted name."""
    for key, value in config.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def differing(one, other):
    one, other = dict(flat(one)), dict(flat(other))
    assert one.keys() == other.keys()
    return {key: (one[key], other[key]) for key in one if one[key] != other[key]}


TWO_FIELDS = {"objective": ("diffusion", "next_token"), "model.attention": ("bidirectional", "causal")}


# --- two fields ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PRETRAINING)
def test_of_every_recipe_the_twin_differs_in_two_fields(name):
    config = PRETRAINING[name]()
    assert differing(to_dict(config), to_dict(twin_of(config))) == TWO_FIELDS


def test_the_runs_say_that_they_differ_in_two_fields(pair):
    assert differing(*(json.loads((folder / "config.json").read_text()) for folder in pair)) == TWO_FIELDS


def test_both_begin_with_the_same_weights_and_meet_the_same_rows_in_the_same_order(config, cache):
    corpus = prepare(config.corpus, cache)
    tasks = [
        build_task(replace(one, model=replace(one.model, vocab_size=300)), corpus) for one in (config, twin_of(config))
    ]
    weights = [
        {name: task.values(name, parameter.shape) for name, parameter in task.model.named_parameters()}
        for task in tasks
    ]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert tasks[0].data_identity == tasks[1].data_identity
    for _ in range(100):  # into the second epoch
        one, other = (task.loader.next(8) for task in tasks)
        assert torch.equal(one.tokens, other.tokens)
        assert torch.equal(one.segments, other.segments)
    assert int(one.epoch.max()) > 0


def test_both_tell_the_same_readings_at_the_same_steps(pair, readings):
    told = [[(line["step"], set(line)) for line in readings(folder)] for folder in pair]
    assert told[0] == told[1]
    same = ("train/tokens", "train/learning_rate")
    counted = [[[line[key] for key in same] for line in readings(folder) if same[0] in line] for folder in pair]
    assert counted[0] == counted[1]


# --- it learns ----------------------------------------------------------------------------------------------------


def test_loss_and_held_out_value_of_the_twin_fall_together(pair, readings):
    losses = [line["train/loss_nats_per_token"] for line in readings(pair[1]) if "train/tokens" in line]
    held_out = [line["held_out/nats_per_token"] for line in readings(pair[1]) if "held_out/nats_per_token" in line]
    assert losses == sorted(losses, reverse=True)
    assert held_out[-1] < held_out[0] - 1
    # both are means of -log p per predicted token, of text of one kind
    assert held_out[-1] == pytest.approx(losses[-1], abs=0.25)


def test_the_held_out_value_is_that_of_the_perplexity_of_the_same_rows(pair, config, cache, readings):
    """A second route: the scoring of evaluations, which puts BOS in front of a text. Here the row's first token."""
    model = illada.load(pair[1])
    shards = prepare(config.corpus, cache).held_out
    windows = len(shards) // 32
    texts = [shards.read((number * windows // 8) * 32, 32).tolist() for number in range(8)]
    total = [
        perplexity(model.transformer, [text[1:]], bos_id=text[0], mask_id=model.tokenizer.specials.mask, byte_count=1)
        for text in texts
    ]
    nats = sum(one.nats for one in total) / sum(one.tokens for one in total)
    assert nats == pytest.approx(readings(pair[1])[-1]["held_out/nats_per_token"], rel=1e-5)


def test_the_twin_writes_without_masks(pair):
    model = illada.load(pair[1])
    completions = model.generate(["abc ", "de"], length=12)
    assert [completion.forwards for completion in completions] == [12, 12]
    assert "".join(chunk.text for chunk in model.stream("abc ", length=12)) == completions[0].text
    with pytest.raises(ValueError, match="fills no holes"):
        model.infill("abc", "de", length=3)
    with pytest.raises(ValueError, match="guidance says nothing to it"):
        model.generate("abc", length=3, guidance=1.0)


def test_with_an_average_of_the_weights_that_is_measured_and_saved(config, cache, tmp_path, readings):
    short = replace(twin_of(config), average_decay=0.9999, loop=replace(config.loop, steps=6, validate_every=0))
    outcome = run(short, tmp_path / "run", cache=cache)
    bounds = [line["held_out/nats_per_token"] for line in readings(outcome.folder) if "held_out/nats_per_token" in line]
    assert bounds[-1] == pytest.approx(bounds[0], abs=1e-2)


# --- fine-tuning --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def dialogues(tmp_path_factory) -> str:
    file = tmp_path_factory.mktemp("data") / "dialogues.jsonl"
    rows = [{"prompt": f"say {number}", "response": " ".join(WORDS[: 1 + number % 8])} for number in range(200)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


def tuning(dialogues, style, **changes) -> SftConfig:
    config = STYLES[style](
        SftConfig(
            instructions=InstructionConfig(files=(dialogues,), held_out_fraction=0.1),
            stream=PackingConfig(length=64),
            learning_rate=StepDowns(warmup_steps=2, levels=((0.0, 1e-2),), floor=1e-3),
            loop=LoopConfig(
                steps=30, batch_size=4, validate_every=0, log_every=10, checkpoint_every=10, precision="fp32"
            ),
            held_out_examples=8,
            device="cpu",
        )
    )
    examples = replace(config.examples, block_length=8, longest_canvas=3)
    return replace(config, examples=examples, **{"objective": "next_token"} | changes)


@pytest.mark.parametrize("style", STYLES)
def test_every_style_teaches_the_twin(style, dialogues, pair, readings, tmp_path):
    outcome = fine_tune(tuning(dialogues, style), tmp_path / "run", start=pair[1], cache=tmp_path / "cache")
    lines = readings(outcome.folder)
    bounds = [line["held_out/response_nats_per_token"] for line in lines if "held_out/response_nats_per_token" in line]
    assert bounds[-1] < 0.7 * bounds[0]
    assert load_checkpoint(outcome.checkpoint).model_config.attention == "causal"
    [completion] = illada.load(outcome.checkpoint).chat([[{"role": "user", "content": "say 3"}]], length=16)
    assert completion.forwards == len(completion.tokens) + (completion.finish_reason == "stop")


def test_an_interrupted_fine_tuning_of_the_twin_ends_with_the_same_weights(dialogues, pair, tmp_path):
    config = tuning(dialogues, "canvas", loop=LoopConfig(steps=6, batch_size=4, precision="fp32", validate_every=0))
    cache = tmp_path / "cache"
    whole = fine_tune(config, tmp_path / "whole", start=pair[1], cache=cache)
    short = replace(config, loop=replace(config.loop, max_minutes=1e-9))
    for _ in range(6):
        outcome = fine_tune(short, tmp_path / "pieces", start=pair[1], cache=cache, resume=True)
    assert (outcome.steps, outcome.stopped_by) == (6, None)
    for name in ("model.safetensors", "optimizer.safetensors", "state.json"):
        assert (whole.checkpoint / name).read_bytes() == (outcome.checkpoint / name).read_bytes()


@pytest.mark.parametrize(("place", "objective"), [(0, "next_token"), (1, "diffusion")])
def test_the_objective_must_be_that_of_the_checkpoint(place, objective, dialogues, pair, tmp_path):
    config = tuning(dialogues, "canvas", objective=objective)
    with pytest.raises(ValueError, match=f"the objective {objective} needs .* attention, but the model's is"):
        fine_tune(config, tmp_path / "run", start=pair[place], cache=tmp_path / "cache")
    assert not (tmp_path / "run").exists()
