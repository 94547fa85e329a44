"""Whole runs on a small text: what they leave in their folder, and what they refuse before they make one."""

import io
import json
import math
from dataclasses import replace

import pytest
import torch
from rich.console import Console

from illada.checkpoint.native import list_checkpoints, load_checkpoint, load_weights, save_checkpoint
from illada.cli.main import main
from illada.config import from_json
from illada.data.corpus import CorpusConfig, prepare
from illada.data.loader import Loader
from illada.data.packing import FixedRows, PackingConfig
from illada.data.tokenizer import Tokenizer
from illada.evaluate.bound import HeldOut, held_out_bound
from illada.model.config import ModelConfig
from illada.model.transformer import Transformer, initialize
from illada.train.learning_rate import WarmupConstantCosine
from illada.train.loop import LoopConfig, TrainState
from illada.train.optimizer import AdamWConfig, WeightAverage, build_optimizer
from illada.train.pretrain import HeldOutConfig, PretrainConfig, run
from illada.train.saving import restore

LOOP = LoopConfig(
    steps=20, batch_size=8, precision="fp32", log_every=5, validate_every=10, checkpoint_every=5, keep_last=2
)
MODEL = ModelConfig(hidden_size=32, layers=1, heads=2, kv_heads=1, ffn_size=48, max_length=64)


@pytest.fixture(scope="module")
def config(small_text) -> PretrainConfig:
    return PretrainConfig(
        model=MODEL,
        corpus=CorpusConfig(sources=(str(small_text),), vocab_size=300, workers=1),
        packing=PackingConfig(length=32),
        learning_rate=WarmupConstantCosine(peak=1e-2, floor=1e-3, warmup_steps=2),
        loop=LOOP,
        held_out=HeldOutConfig(rows=8, samples=2),
        device="cpu",
    )


@pytest.fixture(scope="module")
def finished(config, cache, tmp_path_factory):
    """(outcome, console output) of one run."""
    output = io.StringIO()
    folder = tmp_path_factory.mktemp("runs") / "run"
    return run(config, folder, cache=cache, console=Console(file=output, width=200)), output.getvalue()


# --- what a run leaves --------------------------------------------------------------------------------------------


def test_a_run_says_how_it_ended(finished):
    outcome, _ = finished
    assert (outcome.steps, outcome.stopped_by) == (20, None)
    assert outcome.checkpoint == outcome.folder / "checkpoints" / "step_00000020"


def test_the_folder_holds_configuration_metrics_and_the_newest_checkpoints(finished):
    folder = finished[0].folder
    assert {path.name for path in folder.iterdir()} == {"config.json", "metrics.jsonl", "checkpoints"}
    assert {path.name for path in (folder / "checkpoints").iterdir()} == {"step_00000015", "step_00000020"}


def test_the_configuration_is_the_one_that_ran(finished, config):
    told = from_json(PretrainConfig, (finished[0].folder / "config.json").read_text())
    assert told == replace(config, model=replace(config.model, vocab_size=300))


def test_the_vocabulary_is_the_tokenizers(finished, config):
    saved = load_checkpoint(finished[0].checkpoint)
    assert config.model.vocab_size != 300
    assert saved.model_config.vocab_size == saved.tokenizer.vocab_size == 300
    assert saved.weights["embedding.weight"].shape == (300, 32)


def test_the_metrics_have_the_documented_names(finished, readings):
    lines = readings(finished[0].folder)
    train = {
        "step",
        "train/loss_nats_per_token",
        "train/gradient_norm",
        "train/learning_rate",
        "train/tokens",
    }
    held_out = {
        "step",
        "held_out/nats_per_token",
        "held_out/standard_error_nats_per_token",
        "held_out/bits_per_byte",
    }
    assert [(line["step"], set(line)) for line in lines] == [
        (0, held_out),
        (5, train),
        (10, train),
        (10, held_out),
        (15, train),
        (20, train),
        (20, held_out),
    ]
    assert [line["train/tokens"] for line in lines if "train/tokens" in line] == [5 * 8 * 32 * k for k in (1, 2, 3, 4)]


def test_the_bound_falls(finished, readings):
    first, *_, last = [
        line["held_out/nats_per_token"]
        for line in readings(finished[0].folder)
        if len(line) == 4 and "held_out/nats_per_token" in line
    ]
    assert first == pytest.approx(math.log(300), abs=0.6)
    assert last < first - 0.5


def test_the_bound_that_was_told_is_that_of_the_checkpoint(finished, config, cache, readings):
    saved = load_checkpoint(finished[0].checkpoint)
    model = Transformer(saved.model_config)
    load_weights(model, saved.weights, source="the test")
    held_out = HeldOut.from_shards(prepare(config.corpus, cache).held_out, rows=8, length=32)
    bound = held_out_bound(model, held_out, mask_id=saved.tokenizer.specials.mask, samples=2)
    told = readings(finished[0].folder)[-1]
    assert bound.nats_per_token == pytest.approx(told["held_out/nats_per_token"], abs=1e-6)


def test_progress_is_told_on_the_console(finished):
    _, output = finished
    assert "tokenizer: 300 entries" in output or "prepared before" in output
    assert "pre-training 20/20 loss" in output
    assert "bits/byte" in output


def test_without_a_console_nothing_is_printed(config, cache, tmp_path, capsys):
    short = replace(config, loop=replace(LOOP, steps=1))
    run(short, tmp_path / "run", cache=cache)
    assert capsys.readouterr() == ("", "")


def test_with_an_average_that_is_what_is_measured_and_saved(config, cache, tmp_path, readings):
    slow = replace(config, average_decay=0.9999, loop=replace(LOOP, steps=6))
    outcome = run(slow, tmp_path / "run", cache=cache)
    start = Transformer(replace(MODEL, vocab_size=300))
    initialize(start, seed=0)
    saved = load_checkpoint(outcome.checkpoint, with_optimizer=True)
    for name, parameter in start.named_parameters():
        # six steps move the average by hardly anything, and the weights by much
        torch.testing.assert_close(saved.weights[name], parameter.detach(), rtol=0, atol=1e-4)
    live = saved.optimizer["live/embedding.weight"]
    assert float((live - saved.weights["embedding.weight"]).abs().max()) > 1e-3
    bounds = [line["held_out/nats_per_token"] for line in readings(outcome.folder) if "held_out/nats_per_token" in line]
    assert bounds[-1] == pytest.approx(bounds[0], abs=1e-2)


def test_tensorboard_is_written_beside_the_metrics(config, cache, tmp_path):
    run(replace(config, tensorboard=True, loop=replace(LOOP, steps=1)), tmp_path / "run", cache=cache)
    assert len(list((tmp_path / "run" / "tensorboard").glob("events.out.tfevents.*"))) == 1


# --- refused before there is a folder -----------------------------------------------------------------------------


def test_a_corpus_that_is_not_there_is_refused(config, cache, tmp_path):
    wrong = replace(config, corpus=CorpusConfig(sources=(str(tmp_path / "none.txt"),), vocab_size=300))
    with pytest.raises(FileNotFoundError, match=r"none\.txt"):
        run(wrong, tmp_path / "run", cache=cache)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no text"),
        ("a few words and no more\n" * 3, "too few for one row of 64"),
    ],
)
def test_a_corpus_that_is_too_small_is_refused(text, message, config, cache, tmp_path):
    file = tmp_path / "small.txt"
    file.write_text(text)
    corpus = CorpusConfig(sources=(str(file),), vocab_size=300, workers=1)
    with pytest.raises(ValueError, match=message):
        run(replace(config, corpus=corpus, packing=PackingConfig(length=64)), tmp_path / "run", cache=cache)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"average_decay": 1.5}, "must lie between 0 and 1, got 1.5"),
        ({"optimizer": AdamWConfig(beta1=1.0)}, "Invalid beta"),
        ({"device": "abacus"}, "'abacus' cannot be used"),
    ],
)
def test_what_nothing_can_be_built_from_is_refused(changes, message, config, cache, tmp_path):
    with pytest.raises(ValueError, match=message):
        run(replace(config, **changes), tmp_path / "run", cache=cache)
    assert not (tmp_path / "run").exists()


def test_a_vocabulary_without_room_for_the_bytes_is_refused():
    with pytest.raises(ValueError, match="vocab_size is 100, but the bytes and the special tokens need at least 263"):
        CorpusConfig(vocab_size=100)


def test_rows_longer_than_the_context_are_refused(config):
    with pytest.raises(ValueError, match=r"rows of 65 tokens .* exceed the model's context of 64"):
        replace(config, packing=PackingConfig(length=65))


@pytest.mark.parametrize("name", ["rows", "samples"])
def test_a_measurement_of_nothing_is_refused(name):
    with pytest.raises(ValueError, match=f"{name} of the held-out text must be at least 1, got 0"):
        HeldOutConfig(**{name: 0})


# --- restoring ----------------------------------------------------------------------------------------------------


@pytest.fixture
def corpus(config, cache):
    return prepare(config.corpus, cache)


@pytest.fixture
def state():
    model = Transformer(replace(MODEL, vocab_size=300))
    return TrainState(
        model=model,
        optimizer=build_optimizer(model, AdamWConfig()),
        loader=Loader([(FixedRows(torch.ones(3, 8, dtype=torch.int64)), 1.0)], seed=0),
    )


def of(corpus):
    """What a checkpoint must agree with."""
    identity = [shards.identity for shards, _ in corpus.train]
    return {"tokenizer": corpus.tokenizer, "data_identity": identity}


def test_a_checkpoint_puts_everything_back(finished, state, corpus):
    saved = load_checkpoint(finished[0].checkpoint, with_optimizer=True)
    restore(state, finished[0].checkpoint, **of(corpus))
    assert (state.step, state.tokens) == (20, 20 * 8 * 32)
    assert state.plain() == {key: value for key, value in saved.state.items() if key != "corpus"}
    assert all(torch.equal(state.model.get_parameter(name), tensor) for name, tensor in saved.weights.items())
    assert float(state.optimizer.state[state.model.norm.weight]["step"]) == 20


def test_a_checkpoint_of_another_tokenizer_is_refused(finished, state, corpus):
    other = replace(corpus, tokenizer=Tokenizer.train(["quite another text " * 50], 270))
    with pytest.raises(ValueError, match=r"step_00000020 was trained with another tokenizer"):
        restore(state, finished[0].checkpoint, **of(other))


def test_a_checkpoint_of_another_corpus_is_refused(finished, state, corpus):
    other = replace(corpus, train=[(corpus.held_out, 1.0)])
    with pytest.raises(ValueError, match="was trained on another corpus: the sources have changed"):
        restore(state, finished[0].checkpoint, **of(other))


def test_weights_alone_can_not_be_resumed(finished, state, corpus, tmp_path):
    saved = load_checkpoint(finished[0].checkpoint)
    save_checkpoint(
        tmp_path / "exported", model_config=saved.model_config, weights=saved.weights, tokenizer=saved.tokenizer
    )
    with pytest.raises(ValueError, match="holds weights but no training state: it can be loaded, not resumed"):
        restore(state, tmp_path / "exported", **of(corpus))


def test_a_run_without_an_average_does_not_become_one_with_it(finished, state, corpus):
    state.average = WeightAverage(state.model, decay=0.9)
    with pytest.raises(ValueError, match=r"does not fit the optimizer: live/embedding\.weight is missing"):
        restore(state, finished[0].checkpoint, **of(corpus))


# --- a full disk --------------------------------------------------------------------------------------------------


def test_a_disk_that_is_full_costs_no_more_than_the_checkpoint_that_did_not_fit(
    processes, small_run, readings, tmp_path, capsys
):
    folder, log = tmp_path / "run", tmp_path / "log"
    arguments = [*small_run, "--out", str(folder), "--steps", "10"]
    process = processes([*arguments, "--max-minutes", "1e-9"], log)
    process.join()
    assert (process.exitcode, [step for step, _ in list_checkpoints(folder / "checkpoints")]) == (0, [1])
    log.unlink()

    # room for the weights, but not for the optimizer's two moments
    sizes = [
        (folder / "checkpoints" / "step_00000001" / f"{name}.safetensors").stat().st_size
        for name in ("model", "optimizer")
    ]
    flags = ["--resume", "--faults.pause-minutes", "0"]
    process = processes([*arguments, *flags], log, file_limit=sum(sizes) // 2)
    process.join()
    assert process.exitcode == 1
    *_, last = log.read_text().splitlines()
    assert last.startswith("illada: cannot write optimizer.safetensors: ")
    assert "Traceback" not in log.read_text()
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["step_00000001"]
    load_checkpoint(folder / "checkpoints" / "step_00000001", with_optimizer=True)

    assert main([*arguments, "--resume"]) == 0
    assert [step for step, _ in list_checkpoints(folder / "checkpoints")] == [5, 10]
    assert [line["step"] for line in readings(folder) if "train/tokens" in line] == [2, 4, 6, 8, 10]


def test_plain_state_is_json(finished):
    state = json.loads((finished[0].checkpoint / "state.json").read_text())
    assert state["step"] == 20
    assert state["loader"] == {"example": 160, "taken": [160]}
