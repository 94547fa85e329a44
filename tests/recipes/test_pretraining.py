"""Every recipe is complete, and the papers' numbers are the papers'."""

from dataclasses import replace

import pytest

from illada.config import from_json, to_json
from illada.model.accounting import count_parameters
from illada.model.config import NAMED_SIZES
from illada.recipes.pretraining import PRETRAINING, base, illada_8b, llada_8b, one_billion, tiny
from illada.train.learning_rate import StepDowns, WarmupConstantCosine
from illada.train.pretrain import PretrainConfig

RECIPES = pytest.mark.parametrize("name", PRETRAINING)


@RECIPES
def test_a_recipe_is_a_whole_configuration_of_its_model(name):
    config = PRETRAINING[name]()
    assert isinstance(config, PretrainConfig)
    assert config.model == NAMED_SIZES[name]


@RECIPES
def test_a_recipe_goes_through_json(name):
    config = PRETRAINING[name]()
    assert from_json(PretrainConfig, to_json(config)) == config


@RECIPES
def test_a_recipe_is_new_at_every_call(name):
    assert PRETRAINING[name]() == PRETRAINING[name]()
    assert PRETRAINING[name].__doc__


@RECIPES
def test_the_tokenizer_has_as_many_entries_as_the_model(name):
    config = PRETRAINING[name]()
    assert config.corpus.vocab_size == config.model.vocab_size


@RECIPES
def test_rows_fit_the_context_and_micro_batches_the_batch(name):
    config = PRETRAINING[name]()
    assert config.packing.length <= config.model.max_length
    assert config.loop.batch_size % (config.loop.micro_batch_size or config.loop.batch_size) == 0


@RECIPES
def test_checkpoints_that_are_kept_are_made(name):
    loop = PRETRAINING[name]().loop
    assert loop.keep_every is None or loop.keep_every % loop.checkpoint_every == 0
    assert loop.checkpoint_every <= loop.steps


@RECIPES
def test_the_rate_warms_up_and_ends_at_its_floor(name):
    config = PRETRAINING[name]()
    schedule, steps = config.learning_rate, config.loop.steps
    peak = schedule.levels[0][1] if isinstance(schedule, StepDowns) else schedule.peak
    assert schedule.rate(0, steps=steps) == pytest.approx(peak / schedule.warmup_steps)
    assert schedule.rate(schedule.warmup_steps, steps=steps) == peak
    assert schedule.rate(steps - 1, steps=steps) == pytest.approx(schedule.floor)


def test_sizes_grow_along_the_list():
    sizes = [count_parameters(PRETRAINING[name]().model).total for name in ("tiny", "small", "base", "1b", "illada_8b")]
    assert sizes == sorted(sizes)


# --- iLLaDA, arXiv 2606.25331, section 2.1 ------------------------------------------------------------------------


def test_illadas_rows():
    packing = illada_8b().packing
    assert (packing.length, packing.split_probability, packing.random_length_probability) == (8192, 0.3, 0.0)


def test_illadas_rates():
    schedule = illada_8b().learning_rate
    assert isinstance(schedule, WarmupConstantCosine)
    assert (schedule.peak, schedule.floor) == (2e-4, 5e-6)
    assert schedule.plateau is not None  # the decay begins when the loss has settled
    assert illada_8b().optimizer.weight_decay == 0.1


def test_illadas_tokens():
    config = illada_8b()
    tokens = config.loop.steps * config.loop.batch_size * config.packing.length
    assert 12e12 <= tokens < 12e12 + config.loop.batch_size * config.packing.length


# --- LLaDA, arXiv 2502.09992, section 2.2 -------------------------------------------------------------------------


def test_lladas_rows():
    config = llada_8b()
    packing = config.packing
    assert (packing.length, packing.split_probability, packing.random_length_probability) == (4096, 0.0, 0.01)
    assert config.loop.batch_size == 1280


def test_lladas_rates():
    config = llada_8b()
    assert isinstance(config.learning_rate, StepDowns)
    found = {
        trillions: config.learning_rate.rate(
            min(config.loop.steps - 1, round(trillions * 1e12 / (1280 * 4096))), steps=config.loop.steps
        )
        for trillions in (0.1, 1.0, 1.5, 2.3)
    }
    assert found == pytest.approx({0.1: 4e-4, 1.0: 4e-4, 1.5: 1e-4, 2.3: 1e-5})
    assert config.optimizer.weight_decay == 0.1


def test_lladas_tokens():
    config = llada_8b()
    assert config.loop.steps * config.loop.batch_size * config.packing.length == pytest.approx(2.3e12, rel=1e-5)


# --- ours ---------------------------------------------------------------------------------------------------------


def test_tiny_is_small_enough_for_minutes_on_a_cpu():
    config = tiny()
    assert count_parameters(config.model).total < 5e6
    assert config.loop.steps * config.loop.batch_size * config.packing.length < 1e6
    assert config.corpus.sources == ("stdlib",)


@pytest.mark.parametrize("recipe", [base, one_billion, illada_8b, llada_8b])
def test_large_models_are_compiled(recipe):
    assert recipe().loop.compile


def test_a_recipe_is_changed_by_replacing_fields():
    config = tiny()
    changed = replace(config, loop=replace(config.loop, steps=7))
    assert (changed.loop.steps, config.loop.steps) == (7, 600)
