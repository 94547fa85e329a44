import random
import shlex

import pytest

from illada.cli.flags import default_cache
from illada.config import from_json
from illada.recipes.pretraining import PRETRAINING
from illada.train.learning_rate import StepDowns
from illada.train.pretrain import PretrainConfig

SMALL = shlex.split("""
    --model.hidden-size 16 --model.layers 1 --model.heads 2 --model.kv-heads 1 --model.ffn-size 24
    --corpus.vocab-size 270 --packing.length 16 --held-out.rows 2 --held-out.samples 1 --steps 2 --batch-size 2
    --precision fp32 --device cpu
""")


@pytest.fixture
def refusal_line(illada, tmp_path, monkeypatch):
    """The last line on standard error of a command that is refused; the corpus may have been prepared before it."""
    monkeypatch.setenv("ILLADA_CACHE", str(tmp_path / "cache"))

    def call(*arguments: object) -> str:
        answer = illada(*arguments)
        assert (answer.code, answer.out) == (2, "")
        *_, last = answer.err.splitlines()
        assert last.startswith("illada: ")
        return last

    return call


@pytest.fixture
def text(tmp_path):
    chance = random.Random(0)
    file = tmp_path / "text.txt"
    file.write_text("\n".join("".join(chance.choices("abcdef ", k=60)) for _ in range(100)))
    return file


def test_it_trains_and_prints_the_checkpoint(text, illada, tmp_path, monkeypatch):
    monkeypatch.setenv("ILLADA_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "run"
    answer = illada("pretrain", "tiny", *SMALL, "--corpus.sources", text, "--out", folder)
    assert (answer.code, answer.out) == (0, f"{folder / 'checkpoints' / 'step_00000002'}\n")
    assert "pre-training 2/2" in answer.err
    told = from_json(PretrainConfig, (folder / "config.json").read_text())
    assert (told.loop.steps, told.model.hidden_size, told.corpus.sources) == (2, 16, (str(text),))
    assert told.learning_rate == PRETRAINING["tiny"]().learning_rate
    assert len(list((tmp_path / "cache").glob("*/corpus.json"))) == 1


def test_without_out_the_folder_is_named_after_the_recipe(text, illada, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    answer = illada("pretrain", "tiny", *SMALL, "--corpus.sources", text, "--cache", "cache", "--max-minutes", "1e-9")
    assert (answer.code, answer.out) == (0, "runs/tiny/checkpoints/step_00000001\n")
    assert "left at step 1 (its time is up): add --resume to go on" in answer.err.splitlines()


def test_the_flags_are_those_of_the_recipes_own_schedule(illada):
    assert isinstance(PRETRAINING["llada_8b"]().learning_rate, StepDowns)
    assert "--learning-rate.final-fraction" in illada("pretrain", "llada_8b", "--help").out
    assert "--learning-rate.final-fraction" not in illada("pretrain", "tiny", "--help").out


@pytest.mark.parametrize("recipe", PRETRAINING)
def test_help_shows_the_recipes_own_defaults(recipe, illada):
    answer = illada("pretrain", recipe, "--help")
    assert answer.code == 0
    config = PRETRAINING[recipe]()
    assert f"(default: {config.loop.steps})" in answer.out
    assert f"(default: {config.packing.length})" in answer.out


def test_help_without_a_recipe_lists_them(illada):
    answer = illada("pretrain", "--help")
    assert (answer.code, answer.out.splitlines()[0]) == (
        0,
        f"recipes: {', '.join(PRETRAINING)}; the defaults below are those of tiny",
    )


# --- refused ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [[], ["--steps", "5"]])
def test_a_recipe_must_be_named(arguments, refusal):
    known = ", ".join(PRETRAINING)
    assert refusal("pretrain", *arguments) == f"name a recipe: illada pretrain RECIPE, one of {known}"


def test_an_unknown_recipe_is_refused(refusal):
    known = ", ".join(PRETRAINING)
    assert refusal("pretrain", "medium") == f"no recipe is called 'medium'; there are: {known}"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--steps", 0], "steps must be at least 1, got 0"),
        (["--packing.length", 2000], "rows of 2000 tokens (packing.length) exceed the model's context of 1024"),
        (["--corpus.sources", "none.txt"], "no such file or folder: none.txt"),
        (["--average-decay", 2], "the decay of the weight average must lie between 0 and 1, got 2.0"),
        (["--device", "abacus"], "device 'abacus' cannot be used"),
    ],
)
def test_values_that_do_not_fit_are_refused_before_there_is_a_folder(flags, message, text, refusal_line, tmp_path):
    folder = tmp_path / "run"
    line = refusal_line("pretrain", "tiny", *SMALL, "--corpus.sources", text, *flags, "--out", folder)
    assert message in line
    assert not folder.exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--corpus.vocab-size", 100], "vocab_size is 100, but the bytes and the special tokens need at least 263"),
        (["--held-out.rows", 0], "rows of the held-out text must be at least 1, got 0"),
        (["--model.heads", 3], "must be an even multiple of heads 3"),
        (["--learning-rate.peak", 0.5, "--learning-rate.floor", 1], "must descend to its floor: peak 0.5, floor 1.0"),
        (["--noise.floor", 0], "t needs 0 < floor < ceiling <= 1, got a floor of 0.0 and 1.0"),
        (["--steps", "many"], "Error parsing --steps: invalid literal for int() with base 10: 'many'"),
        (["--precision", "fp64"], "invalid choice 'fp64' for argument '--precision'"),
        (["--compile", "maybe"], "maybe"),
    ],
)
def test_flags_that_make_no_sense_are_refused_by_name(flags, message, illada, tmp_path):
    answer = illada("pretrain", "tiny", *flags, "--out", tmp_path / "run")
    assert (answer.code, answer.out) == (2, "")
    assert message in " ".join(answer.err.replace("│", " ").split())
    assert not (tmp_path / "run").exists()


def test_an_empty_text_is_refused(refusal, tmp_path):
    empty = tmp_path / "empty.txt"
    empty.write_text("")
    line = refusal("pretrain", "tiny", "--corpus.sources", empty, "--out", tmp_path / "run", "--cache", tmp_path)
    assert line == f"source {empty} holds no text"


# --- where prepared corpora are kept ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"ILLADA_CACHE": "/a/b"}, "/a/b"),
        ({"ILLADA_CACHE": "", "XDG_CACHE_HOME": "/c"}, "/c/illada"),
        ({"XDG_CACHE_HOME": "/c", "HOME": "/h"}, "/c/illada"),
        ({"XDG_CACHE_HOME": "", "HOME": "/h"}, "/h/.cache/illada"),
    ],
)
def test_the_cache_is_where_the_environment_says(variables, expected, monkeypatch):
    monkeypatch.delenv("ILLADA_CACHE", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert str(default_cache()) == expected


# --- the autoregressive twin --------------------------------------------------------------------------------------


def test_two_flags_make_the_twin(text, illada, tmp_path):
    given = (*SMALL, "--corpus.sources", text, "--cache", tmp_path / "cache")
    twin = ("--model.attention", "causal", "--objective", "next_token")
    assert illada("pretrain", "tiny", *given, *twin, "--out", tmp_path / "twin").code == 0
    told = from_json(PretrainConfig, (tmp_path / "twin" / "config.json").read_text())
    assert (told.model.attention, told.objective) == ("causal", "next_token")


@pytest.mark.parametrize(
    ("flags", "had", "wanted", "other"),
    [
        (("--model.attention", "causal"), "causal", "bidirectional", "next_token"),
        (("--objective", "next_token"), "bidirectional", "causal", "diffusion"),
    ],
)
def test_half_a_twin_is_refused(flags, had, wanted, other, text, illada, tmp_path):
    answer = illada("pretrain", "tiny", *SMALL, *flags, "--corpus.sources", text, "--out", tmp_path / "run")
    assert answer.code == 2
    said = " ".join(answer.err.split())
    assert f"needs {wanted} attention, but the model's is {had}: choose the objective {other}, or a {wanted}" in said
    assert not (tmp_path / "run").exists()
