"""What lm-eval's users write becomes settings of ours, or one line that says what is wrong."""

from dataclasses import replace

import pytest

from illada.evaluate.scoring import ScoringParams
from illada.harness.settings import AUTO_BATCH, ModelArguments, read_model_arguments, read_sampling
from illada.sample.request import SamplingParams

DEFAULT = ModelArguments()


def read(*, cuda=False, **values):
    return read_model_arguments(values, cuda=cuda)


# --- model arguments ----------------------------------------------------------------------------------------------


def test_without_a_word_the_defaults_are_taken():
    assert read() == DEFAULT
    assert read(pretrained=None, device=None, batch_size=None, max_batch_size=None) == DEFAULT


def test_an_argument_goes_where_it_belongs():
    found = read(
        pretrained="runs/mine",
        dtype="bfloat16",
        method="likelihood",
        samples=7,
        end=False,
        add_bos_token=False,
        max_gen_toks=33,
        block_length=11,
        end_of_text="last",
        rolling_samples=5,
        stride=9,
    )
    assert (found.pretrained, found.dtype, found.add_bos_token) == ("runs/mine", "bfloat16", False)
    assert (found.rolling_samples, found.stride) == (5, 9)
    assert found.scoring == ScoringParams(method="likelihood", samples=7, end=False, greedy=True)
    assert found.sampling == SamplingParams(length=33, block_length=11, end="last")


def test_guidance_and_seed_are_for_both():
    found = read(guidance=1.5, seed=3)
    assert found.scoring == replace(DEFAULT.scoring, guidance=1.5, seed=3)
    assert found.sampling == replace(DEFAULT.sampling, guidance=1.5, seed=3)


def test_whole_numbers_do_for_fractions_and_one_id_for_a_list():
    found = read(temperature=1, suppress=5, reveal_last=[6, 7]).sampling
    assert (found.temperature, found.suppress, found.reveal_last) == (1.0, (5,), (6, 7))


def test_names_may_be_made_of_digits():
    assert read(pretrained=17).pretrained == "17"


@pytest.mark.parametrize(
    ("given", "size"),
    [
        ({"batch_size": 3}, 3),
        ({"batch_size": "3"}, 3),
        ({"batch_size": "auto"}, AUTO_BATCH),
        ({"batch_size": "auto:4", "max_batch_size": 9}, 9),
        ({"max_batch_size": 9}, 9),
    ],
)
def test_batch_sizes(given, size):
    assert read(**given).batch_size == size


def test_lm_evals_device_of_default_means_any_where_there_is_no_gpu():
    assert read(device="cuda:0").device == "auto"
    assert read(device="cuda:0", cuda=True).device == "cuda:0"
    assert read(device="cuda:1").device == "cuda:1"
    assert read(device="cpu", cuda=True).device == "cpu"


def test_trust_is_not_needed():
    assert read(trust_remote_code=True) == DEFAULT


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"metod": "chain", "zzz": 1}, "no model argument metod, zzz; there are: add_bos_token"),
        ({"method": "guess"}, "must be one of confidence, likelihood, exact, chain; got 'guess' @ .*method"),
        ({"samples": "many"}, "expected int, got 'many'"),
        ({"samples": 0}, "samples must be at least 1, got 0"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"batch_size": "big"}, "a number or auto, got 'big'"),
        ({"stride": -1}, "stride must be at least 1, got -1"),
        ({"temperature": -1}, "temperature must be 0 or more"),
        ({"add_bos_token": "yes"}, "expected bool, got 'yes'"),
        ({"dtype": "float8"}, "one of auto, float32, bfloat16; got 'float8'"),
    ],
)
def test_what_is_no_argument_is_refused(values, message):
    with pytest.raises(ValueError, match=message):
        read(**values)


# --- the settings of one request ----------------------------------------------------------------------------------

SAMPLING = SamplingParams(length=256)


def sampling(**values):
    return read_sampling(SAMPLING, values)[0]


def test_no_setting_changes_nothing():
    assert read_sampling(SAMPLING, {}) == (SAMPLING, ())


def test_stop_strings_in_any_form():
    assert sampling(until="\n").stop == ("\n",)
    assert sampling(until=["a", "", "b", "a"]).stop == ("a", "b")
    assert sampling(until=None).stop == ()
    both = read_sampling(replace(SAMPLING, stop=("###",)), {"until": ["\n"]})[0]
    assert both.stop == ("###", "\n")


@pytest.mark.parametrize("name", ["max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens", "length"])
def test_the_length_by_any_name(name):
    assert sampling(**{name: 9}).length == 9


def test_of_two_lengths_lm_evals_own_counts():
    assert sampling(max_tokens=5, max_gen_toks=9).length == 9


@pytest.mark.parametrize(
    ("values", "temperature"),
    [
        ({"do_sample": False}, 0.0),
        ({"do_sample": False, "temperature": 0.7}, 0.0),
        ({"do_sample": True}, 1.0),
        ({"do_sample": True, "temperature": 0.7}, 0.7),
        ({"do_sample": True, "temperature": 0.0}, 0.0),
        ({"temperature": 0.7}, 0.7),
    ],
)
def test_whether_and_how_much_is_left_to_chance(values, temperature):
    assert sampling(**values).temperature == temperature


def test_the_temperature_of_the_model_arguments_is_kept_where_a_request_has_none():
    warm = replace(SAMPLING, temperature=0.4)
    assert read_sampling(warm, {})[0].temperature == 0.4
    assert read_sampling(warm, {"do_sample": True})[0].temperature == 0.4
    assert read_sampling(warm, {"do_sample": False})[0].temperature == 0.0


def test_settings_of_ours_by_their_names():
    found = sampling(canvas="fixed", block_length=8, steps=4, top_p=0.5, unmasking="random", end_of_text="never")
    assert found == SamplingParams(
        length=256, canvas="fixed", block_length=8, steps=4, top_p=0.5, unmasking="random", end="never"
    )


def test_steps_are_at_most_one_for_each_token():
    assert read_sampling(replace(SAMPLING, steps=100), {"max_gen_toks": 16})[0].steps == 16


def test_what_means_nothing_is_named():
    found, ignored = read_sampling(SAMPLING, {"top_k": 5, "num_beams": 1, "max_gen_toks": 8, "nothing": None})
    assert ignored == ("num_beams", "top_k")
    assert found == replace(SAMPLING, length=8)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"max_gen_toks": 0}, "length must be at least 1, got 0"),
        ({"top_p": 2.0}, "top_p"),
        ({"canvas": "round"}, "one of variable, fixed; got 'round'"),
    ],
)
def test_settings_out_of_range_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        sampling(**values)
