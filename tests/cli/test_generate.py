"""`illada generate` and `illada infill` on a model that was never trained: what is printed, and where."""

import io
import json
import sys
from dataclasses import replace

import pytest

import illada as library
from illada.cli.generate import WRITING
from illada.cli.main import main
from illada.demo.live import printable

KEYS = {
    "text",
    "tokens",
    "finish_reason",
    "prompt_tokens",
    "forwards",
    "seconds",
    "revealed_at",
    "positions",
    "stop_string",
}


# --- generate -----------------------------------------------------------------------------------------------------


def test_the_text_goes_to_stdout_and_the_rest_to_stderr(saved_model, illada):
    expected = library.load(saved_model).generate("the fox", replace(WRITING, length=6))
    answer = illada("generate", "the fox", "--model", saved_model, "--length", 6)
    assert answer.code == 0
    assert answer.out == printable(expected.text) + "\n"
    assert answer.err.startswith(f"{len(expected.tokens)} tokens, 6 forwards, ")
    assert answer.err.endswith(f"finished by {expected.finish_reason}\n")


def test_json_is_one_object_on_stdout_and_nothing_elsewhere(saved_model, illada):
    answer = illada("generate", "the fox", "--model", saved_model, "--length", 5, "--json")
    assert (answer.code, answer.err) == (0, "")
    completion = json.loads(answer.out)
    assert set(completion) == KEYS
    assert len(completion["tokens"]) == len(completion["revealed_at"]) <= 5
    assert completion["forwards"] == 5
    assert answer.out.count("\n") == 1


def test_flags_reach_the_sampler(saved_model, illada):
    options = {"length": 8, "block_length": 4, "steps": 2, "temperature": 1.0, "top_p": 0.9, "seed": 5}
    flags = [text for name, value in options.items() for text in (f"--{name.replace('_', '-')}", value)]
    got = json.loads(illada("generate", "fox", "--model", saved_model, *flags, "--json").out)
    expected = library.load(saved_model).generate("fox", WRITING, **options)
    assert (got["text"], got["forwards"]) == (expected.text, 2)
    assert tuple(got["revealed_at"]) == expected.revealed_at


def test_the_same_seed_gives_the_same_text(saved_model, illada):
    call = ["generate", "fox", "--model", saved_model, "--length", 8, "--temperature", 2, "--json", "--seed"]
    texts = [json.loads(illada(*call, seed).out)["tokens"] for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


def test_an_empty_prompt_will_do(saved_model, illada):
    answer = illada("generate", "", "--model", saved_model, "--length", 3, "--json")
    assert (answer.code, json.loads(answer.out)["prompt_tokens"]) == (0, 1)


def test_a_checkpoint_folder_will_do_for_a_run_folder(saved_model, illada):
    call = ["generate", "fox", "--length", 4, "--json", "--model"]
    texts = {
        json.loads(illada(*call, folder).out)["text"]
        for folder in (saved_model, saved_model / "checkpoints" / "step_00000001")
    }
    assert len(texts) == 1


def test_live_frames_go_to_stderr(saved_model, illada):
    answer = illada("generate", "fox", "--model", saved_model, "--length", 4, "--json", "--live")
    assert "generating" in answer.err
    assert set(json.loads(answer.out)) == KEYS


def test_a_stream_that_takes_only_ascii_gets_ascii(saved_model, monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    flags = ["--length", "32", "--temperature", "5"]  # random bytes: hardly any of them text
    assert main(["generate", "fox", "--model", str(saved_model), *flags]) == 0
    assert stream.buffer.getvalue().decode("ascii").endswith("\n")


# --- infill -------------------------------------------------------------------------------------------------------


def test_infill_prints_what_stands_between(saved_model, illada):
    expected = library.load(saved_model).infill("the ", " fox", length=4)
    answer = illada("infill", "the ", " fox", "--model", saved_model, "--length", 4)
    assert (answer.code, answer.out) == (0, printable(expected.text) + "\n")
    assert answer.err.startswith("4 tokens, 4 forwards, ")


def test_infill_in_json(saved_model, illada):
    answer = illada("infill", "the ", " fox", "--model", saved_model, "--json")
    completion = json.loads(answer.out)
    assert (answer.code, answer.err, set(completion)) == (0, "", KEYS)
    assert len(completion["tokens"]) == 16  # the gap is filled, whatever comes


# --- refused ------------------------------------------------------------------------------------------------------

COMMANDS = pytest.mark.parametrize("command", [("generate", "the fox"), ("infill", "the ", " fox")])


@COMMANDS
def test_a_model_that_is_not_there_is_refused(command, refusal, tmp_path):
    missing = tmp_path / "none"
    expected = f"{missing} does not exist: give a run folder or a checkpoint folder"
    assert refusal(*command, "--model", missing).startswith(expected)
    expected = f"{tmp_path} holds no checkpoint: give a run folder or a checkpoint folder"
    assert refusal(*command, "--model", tmp_path) == expected


@COMMANDS
def test_without_a_name_the_model_of_the_package_answers(command, illada):
    named = illada(*command, "--model", "tiny", "--length", 4, "--json")
    answer = illada(*command, "--length", 4, "--json")
    assert answer.code == 0
    assert json.loads(answer.out)["text"] == json.loads(named.out)["text"]


@COMMANDS
@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--length", 0], "length must be at least 1, got 0"),
        (["--block-length", 0], "block_length must be at least 1, got 0"),
        (["--length", 4, "--steps", 5], "got 5 steps for 4 tokens"),
        (["--temperature", -1], "temperature must be 0 or more, got -1.0"),
        (["--temperature", "nan"], "temperature must be 0 or more, got nan"),
        (["--top-p", 0], "top_p must be above 0 and at most 1, got 0.0"),
        (["--unmasking", "alphabetical"], "unmasking must be one of"),
        (["--device", "abacus"], "device 'abacus' cannot be used"),
    ],
)
def test_options_out_of_range_are_refused(command, flags, message, saved_model, refusal):
    assert message in refusal(*command, "--model", saved_model, *flags)


@COMMANDS
def test_a_text_beyond_the_context_is_refused(command, saved_model, refusal):
    fixed = ["--canvas", "fixed"] if command[0] == "generate" else []
    line = refusal(*command, "--model", saved_model, "--length", 64, *fixed)
    assert "but the model's context holds 64: shorten the prompt or ask for a smaller length" in line


def test_a_prompt_that_is_too_long_by_itself_is_refused(saved_model, refusal):
    line = refusal("generate", "x" * 100, "--model", saved_model, "--length", 1)
    assert line.startswith("the prompt has 101 tokens and fills the model's context of 64: shorten it")


def test_a_damaged_checkpoint_is_refused_by_name(saved_model, refusal, tmp_path):
    import shutil

    folder = tmp_path / "copy"
    shutil.copytree(saved_model, folder)
    weights = folder / "checkpoints" / "step_00000001" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    assert "model.safetensors was altered" in refusal("generate", "a", "--model", folder)


# --- a causal model -----------------------------------------------------------------------------------------------


def test_a_causal_model_generates_with_the_defaults_of_the_command(saved_twin, illada):
    got = json.loads(illada("generate", "the fox", "--model", saved_twin, "--length", 6, "--json").out)
    params = replace(WRITING, length=6, unmasking="low_confidence")
    expected = library.load(saved_twin).generate("the fox", params)
    assert (got["tokens"], got["forwards"]) == (list(expected.tokens), expected.forwards)
    assert got["revealed_at"] == list(range(1, len(expected.tokens) + 1))


def test_a_causal_model_is_refused_what_it_cannot_do(saved_twin, refusal):
    said = refusal("generate", "fox", "--model", saved_twin, "--length", 6, "--steps", 3)
    assert said == "a causal model writes one token after the other: steps says nothing to it; leave it at None, got 3"
    said = refusal("infill", "the", "fox", "--model", saved_twin, "--length", 4)
    assert said == "a causal model does not see what stands behind a gap: it continues texts and fills no holes"
