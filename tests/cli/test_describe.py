import json

import pytest

from illada.cli.describe import describe
from illada.config import from_dict
from illada.model.config import NAMED_SIZES, ModelConfig, named_size


@pytest.mark.parametrize(
    ("size", "total", "without"),
    [
        # the two numbers of iLLaDA's Table 1, and those of LLaDA's weights
        ("illada_8b", "7,615,025,152", "6,979,588,096"),
        ("llada_8b", "8,015,581,184", "6,979,588,096"),
    ],
)
def test_the_published_sizes_have_their_published_parameters(size, total, without, illada):
    answer = illada("describe", size)
    assert (answer.code, answer.err) == (0, "")
    assert total in answer.out
    assert without in answer.out


@pytest.mark.parametrize("size", NAMED_SIZES)
def test_json_is_one_object_and_nothing_else(size, illada):
    answer = illada("describe", size, "--json")
    assert (answer.code, answer.err) == (0, "")
    facts = json.loads(answer.out)
    assert facts["name"] == size
    assert from_dict(ModelConfig, facts["config"]) == named_size(size)
    assert facts["memory_bytes"]["weights_bf16"] == 2 * facts["parameters"]["total"]
    assert facts["memory_bytes"]["weights_fp32"] == 4 * facts["parameters"]["total"]
    assert facts["memory_bytes"]["adamw_moments_fp32"] == 8 * facts["parameters"]["total"]
    assert facts["flops_per_token"]["length"] == named_size(size).max_length


def test_the_tables_say_what_the_json_says(illada):
    facts = json.loads(illada("describe", "small", "--json").out)
    shown = illada("describe", "small").out
    assert f"{facts['parameters']['total']:,}" in shown
    assert f"{facts['flops_per_token']['training']:.3g}" in shown
    assert f"{facts['memory_bytes']['training_one_row'] / 2**30:,.2f} GiB" in shown


def test_parameters_are_two_flops_each_but_for_attention_and_the_embedding():
    config = named_size("base")
    short = describe("base", config, length=1)["flops_per_token"]["forward"]
    longer = describe("base", config, length=2)["flops_per_token"]["forward"]
    assert longer - short == pytest.approx(4 * config.layers * config.hidden_size)


def test_shorter_rows_need_less(illada):
    costs = [json.loads(illada("describe", "illada_8b", "--json", "--length", length).out) for length in (1024, 8192)]
    assert costs[0]["flops_per_token"]["forward"] < costs[1]["flops_per_token"]["forward"]
    assert costs[0]["memory_bytes"]["activations_one_row"] < costs[1]["memory_bytes"]["activations_one_row"]
    assert costs[0]["parameters"] == costs[1]["parameters"]


def test_an_unknown_size_is_refused(refusal):
    known = ", ".join(NAMED_SIZES)
    assert refusal("describe", "huge") == f"no model size is called 'huge'; there are: {known}"


@pytest.mark.parametrize("length", [0, -5, 1025])
def test_a_length_beyond_the_context_is_refused(length, refusal):
    expected = f"length must be between 1 and the model's context of 1024, got {length}"
    assert refusal("describe", "tiny", "--length", length) == expected
