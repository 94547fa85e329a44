"""Completions equal those of the authors' sampler, token for token and step for step."""

import json
from pathlib import Path

import pytest

from illada.sample.canvas import Canvas
from illada.sample.request import SamplingParams
from illada.sample.sampler import fill

GOLDEN = json.loads((Path(__file__).parent / "data" / "expected" / "sampler.json").read_text())
MASK = {"illada": 5, "llada": 500, "llada-gqa": 500}
EOS = {"illada": 2, "llada": 491, "llada-gqa": 491}
ENDS = {"illada": (2,), "llada": (491, 507), "llada-gqa": (491, 507)}
"""End of text and end of turn."""

CASES = GOLDEN["cases"]


def params_of(case):
    # batch cases name neither guidance nor suppression: they use none
    return SamplingParams(
        length=case["gen_length"],
        block_length=case["block_length"],
        # steps beyond one per token reveal nothing; here they are an error, and left out
        steps=min(case["steps"], case["gen_length"]),
        guidance=case.get("cfg_scale", 0.0),
        suppress=(EOS[case["model"]],) if case.get("logits_eos_inf") else (),
        reveal_last=ENDS[case["model"]] if case.get("confidence_eos_eot_inf") else (),
    )


def canvas_of(prompt, length):
    return Canvas(tokens=(*prompt, *[None] * length))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_completion(case, load):
    prompt = case["prompt_ids"]
    steps = []
    [filled] = fill(
        load(case["model"]),
        [canvas_of(prompt, case["gen_length"])],
        params_of(case),
        mask_id=MASK[case["model"]],
        on_step=lambda number, tokens, revealed: steps.append(
            sorted(int(position) - len(prompt) for position in revealed[0].nonzero().flatten())
        ),
    )
    assert list(filled.tokens[len(prompt) :]) == case["output_ids"]
    assert steps == [sorted(step) for step in case["revealed_per_step"] if step]


@pytest.mark.parametrize("case", GOLDEN["batch_cases"], ids=lambda case: case["id"])
def test_batch_of_unequal_prompts(case, load):
    prompts = [
        [token for token, seen in zip(row, mask, strict=True) if seen]
        for row, mask in zip(case["input_ids"], case["attention_mask"], strict=True)
    ]
    canvases = [canvas_of(prompt, case["gen_length"]) for prompt in prompts]
    filled = fill(load(case["model"]), canvases, params_of(case), mask_id=MASK[case["model"]])
    outputs = [list(row.tokens[-case["gen_length"] :]) for row in filled]
    assert outputs == case["output_ids"]


def test_the_set_is_complete():
    assert len(CASES) == 23
