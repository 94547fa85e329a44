"""Completions equal those of the authors' sampler, token for token and step for step."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from illada.sample.canvas import Canvas
from illada.sample.request import SamplingParams
from illada.sample.sampler import fill

GOLDEN = json.loads((Path(__file__).parent / "data" / "expected" / "sampler.json").read_text())
CASES = GOLDEN["cases"]


def params_of(case, tokenizer):
    # batch cases name neither guidance nor suppression: they use none
    return SamplingParams(
        length=case["gen_length"],
        block_length=case["block_length"],
        # steps beyond one per token reveal nothing; here they are an error, and left out
        steps=min(case["steps"], case["gen_length"]),
        guidance=case.get("cfg_scale", 0.0),
        suppress=(tokenizer.specials.eos,) if case.get("logits_eos_inf") else (),
        reveal_last=tokenizer.end_ids if case.get("confidence_eos_eot_inf") else (),
    )


def canvas_of(prompt, length):
    return Canvas(tokens=(*prompt, *[None] * length))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_completion(case, language_model):
    model, prompt = language_model(case["model"]), case["prompt_ids"]
    steps = []
    [filled] = fill(
        model.transformer,
        [canvas_of(prompt, case["gen_length"])],
        params_of(case, model.tokenizer),
        mask_id=model.tokenizer.specials.mask,
        on_step=lambda number, tokens, revealed: steps.append(
            sorted(int(position) - len(prompt) for position in revealed[0].nonzero().flatten())
        ),
    )
    assert list(filled.tokens[len(prompt) :]) == case["output_ids"]
    assert steps == [sorted(step) for step in case["revealed_per_step"] if step]


@pytest.mark.parametrize("case", GOLDEN["batch_cases"], ids=lambda case: case["id"])
def test_batch_of_unequal_prompts(case, language_model):
    model = language_model(case["model"])
    prompts = [
        [token for token, seen in zip(row, mask, strict=True) if seen]
        for row, mask in zip(case["input_ids"], case["attention_mask"], strict=True)
    ]
    canvases = [canvas_of(prompt, case["gen_length"]) for prompt in prompts]
    params = params_of(case, model.tokenizer)
    filled = fill(model.transformer, canvases, params, mask_id=model.tokenizer.specials.mask)
    outputs = [list(row.tokens[-case["gen_length"] :]) for row in filled]
    assert outputs == case["output_ids"]


# In one case the four rows of the model that no token belongs to have some probability. The authors count it; the front
# door never chooses such an id, and the softmax is over what can be chosen.
BY_THE_FRONT_DOOR = [case for case in CASES if case["id"] != "llada-p33-g64-b32-s32"]


@pytest.mark.parametrize("case", BY_THE_FRONT_DOOR, ids=lambda case: case["id"])
def test_completion_by_the_front_door(case, language_model):
    """The same tokens, up to the first that ends the text."""
    model = language_model(case["model"])
    params = replace(params_of(case, model.tokenizer), canvas="fixed")
    [completion] = model.complete_ids([case["prompt_ids"]], params)
    ends = [place for place, token in enumerate(case["output_ids"]) if token in model.tokenizer.end_ids]
    assert list(completion.tokens) == case["output_ids"][: ends[0] if ends else None]


def test_the_set_is_complete():
    assert len(CASES) == 23
